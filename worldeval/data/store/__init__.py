"""The one store of episodes: a LeRobotDataset v3.0 that is safe to kill."""
