"""The address that scripts of others know ``open_world`` by; it lives in ``evaluation/opening``."""

from worldeval.evaluation.opening import open_world

__all__ = ["open_world"]
