"""Policies cloned from demonstrations: network, data, training, recipes."""
