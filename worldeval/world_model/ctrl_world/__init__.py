"""Ctrl-World at full size: the published model, its importer and its deliberate improvements."""
