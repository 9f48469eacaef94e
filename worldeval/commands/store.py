"""``worldeval store``: care of a store of episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Read everything in a store of episodes and name what is damaged (exit code 1 if anything).

    For example:
      worldeval store verify recordings/training
    """

    folder: tyro.conf.Positional[Path]
    """The store, or a folder of stores."""

    def run(self) -> int:
        from worldeval.commands.opening import stores_in
        from worldeval.data.episodes import EpisodeStore

        faults = 0
        for place in stores_in(self.folder):
            store = EpisodeStore.open(place)
            damages = store.verify()
            for damage in damages:
                print(f"{damage.path}: episode {damage.episode_index}: {damage.what}")
            print(f"{place}: {len(store)} episodes, {len(damages) or 'nothing'} damaged")
            faults += len(damages)
        return 1 if faults else 0


@dataclass(frozen=True, kw_only=True)
class Compact:
    """Merge the many small files of a store into few large ones; no frame is encoded again.

    An interruption leaves the old store or the new one.

    For example:
      worldeval store compact recordings/training --video-mb 200
    """

    folder: tyro.conf.Positional[Path]
    """The store, or a folder of stores."""
    data_mb: int | None = None
    """Largest data file in MB; the store's own setting if not given."""
    video_mb: int | None = None
    """Largest video file in MB; the store's own setting if not given."""

    def run(self) -> None:
        from worldeval.commands.opening import stores_in
        from worldeval.data.episodes import EpisodeStore

        for place in stores_in(self.folder):
            store = EpisodeStore.open(place)
            before = sum(1 for path in place.rglob("*") if path.is_file())
            store.compact(data_mb=self.data_mb, video_mb=self.video_mb)
            after = sum(1 for path in place.rglob("*") if path.is_file())
            print(f"{place}: {len(store)} episodes, {before} files before, {after} now")
