"""Training data from imagination: varied rollouts, judged, selected, and told apart from recorded.

``synthesize`` is the whole way from a policy and a world model to a dataset; ``diagnose`` tells how
diverse any dataset is. Nothing here rolls out, judges or stores by itself: the one loop, the
``Evaluation`` and the one store do.
"""
