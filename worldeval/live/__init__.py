"""Driving an imagined world by hand: keys, drawn paths, policies, branches, episodes."""
