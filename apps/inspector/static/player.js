// One player for the views of a rollout.
