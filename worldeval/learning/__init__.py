"""One resumable training loop for policies, judges and world models."""
