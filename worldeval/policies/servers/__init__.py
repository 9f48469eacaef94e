"""Policies behind a server: openpi, RoboArena, and what their wires have in common."""
