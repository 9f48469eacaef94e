"""When not to believe a dream: ``signals.py`` measures, ``calibration.py`` weighs."""
