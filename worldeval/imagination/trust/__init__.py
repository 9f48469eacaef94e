"""When not to believe an imagined rollout: ``signals.py`` measures, ``calibration.py`` weighs."""
