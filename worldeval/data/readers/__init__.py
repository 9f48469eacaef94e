"""Readers of other people's recordings: LeRobot, DROID, Ctrl-World."""
