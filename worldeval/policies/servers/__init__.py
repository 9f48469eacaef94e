"""Policies behind a server: openpi, RoboArena, GR00T, vla-evaluation-harness, HTTP."""
