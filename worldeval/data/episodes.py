"""The address that scripts of others know ``EpisodeStore`` by; it lives in ``data/store``."""

from worldeval.data.store.episodes import EpisodeStore

__all__ = ["EpisodeStore"]
