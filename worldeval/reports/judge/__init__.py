"""How the calibration of a judge is shown."""
