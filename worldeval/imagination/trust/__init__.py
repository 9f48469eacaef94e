"""When not to believe a dream: ``signals.py`` measures it, ``calibration.py`` what that is worth."""
