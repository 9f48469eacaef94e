"""Policies behind a server: openpi, RoboArena, HTTP, GR00T, and what their wires have in common."""
