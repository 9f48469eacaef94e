"""``worldeval.settings`` by the name under which the rooms of stored data know it."""

from worldeval.settings import settings_from

__all__ = ["settings_from"]
