"""``worldeval store``: care of a store of episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Read everything in a store of episodes and name what is damaged (exit code 1 if anything).

    Checksums of films and tables, every picture and number, the index and the counts. What is no
    damage but good to know is reported as a note.

    For example:
      worldeval store verify recordings/training
    """

    folder: tyro.conf.Positional[Path]
    """The store, or a folder of stores."""
    seal: bool = False
    """Also note the checksums of films and tables in the index of a store that was written before
    there were any, if nothing is damaged."""

    def run(self) -> int:
        from worldeval.data.atomic import WriterLock
        from worldeval.data.store.sealing import seal, unsealed
        from worldeval.data.store.verification import verify

        faults = 0
        for place in _stores_in(self.folder):
            found = verify(place, WriterLock(place / ".writer.lock"))
            for damage in found.damages:
                print(damage)
            notes = list(found.notes)
            if not found.damages:
                notes += _beyond_bounds(place)
                if self.seal:
                    print(f"{place}: checksums noted for {seal(place)} episodes")
                elif count := unsealed(place):
                    notes.append(
                        f"{count} episodes have no checksums to compare with; --seal notes them"
                    )
            for note in notes:
                print(f"{place}: note: {note}")
            damaged = len(found.damages) or "nothing"
            print(f"{place}: {found.episodes} episodes, {damaged} damaged")
            faults += len(found.damages)
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
        from worldeval.data.store.episodes import EpisodeStore

        for place in _stores_in(self.folder):
            store = EpisodeStore.open(place)
            before = sum(1 for path in place.rglob("*") if path.is_file())
            store.compact(data_mb=self.data_mb, video_mb=self.video_mb)
            after = sum(1 for path in place.rglob("*") if path.is_file())
            print(f"{place}: {len(store)} episodes, {before} files before, {after} now")


@dataclass(frozen=True, kw_only=True)
class RepairVerb:
    """Rebuild the index of a store (its meta/) from its recordings, where it is lost or damaged.

    Keeps what the index still says and takes the rest from the data tables and films. No recording
    is changed or deleted; the old meta/ is kept beside the new one, and what could not be known
    again is told. Damaged films and tables stay damaged: `store verify` names them.

    For example:
      worldeval store repair recordings/training
    """

    folder: tyro.conf.Positional[Path]
    """The store, or a folder of stores."""

    def run(self) -> None:
        from worldeval.data.store.repair import repair

        for place in _stores_in(self.folder):
            done = repair(place)
            for sentence in done.mended:
                print(f"{place}: mended: {sentence}")
            for sentence in done.lost:
                print(f"{place}: lost or left: {sentence}")
            if done.backup is None:
                print(f"{place}: {done.episodes} episodes, the index is whole; nothing was changed")
            else:
                print(
                    f"{place}: {done.episodes} episodes in the new index, {len(done.rebuilt)} of "
                    f"them rebuilt from their recordings; the old one is kept in {done.backup}"
                )


def _stores_in(folder: Path) -> list[Path]:
    """As for other verbs, but also a store whose ``info.json`` is lost."""
    from worldeval.data.store.index import holds_recordings
    from worldeval.evaluation.opening import stores_in

    if holds_recordings(folder):
        return [folder]
    lost = [
        place
        for below in (folder, folder / "rollouts")
        if below.is_dir()
        for place in sorted(below.iterdir())
        if place.is_dir() and holds_recordings(place)
    ]
    return lost or stores_in(folder)


def _beyond_bounds(place: Path) -> list[str]:
    """Actions that the robot of the store would not carry out as they are."""
    import numpy as np

    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.errors import WorldEvalError
    from worldeval.robots.bounds import beyond
    from worldeval.worlds.named import robot_of_store

    store = EpisodeStore.open(place)
    try:
        robot = robot_of_store(store)
    except WorldEvalError:  # a robot that is not known has no known bounds
        return []
    if store.layout.action_names != robot.action_names:
        return []
    counts = np.zeros(len(robot.action_names), int)
    first: dict[int, str] = {}
    for i, key in enumerate(store.metadata()["key"]):
        actions = store.trajectory(i).actions
        outside = beyond(actions, robot.action_low, robot.action_high)
        for place_of in np.flatnonzero(outside.any(axis=(0, 1))):
            first.setdefault(int(place_of), key)
        counts += outside.sum(axis=(0, 1))
    return [
        f"{counts[at]} actions {robot.action_names[at]!r} lie outside of "
        f"{robot.action_low[at]:g} to {robot.action_high[at]:g}, first in {key!r}; the robot would "
        "cut them"
        for at, key in sorted(first.items())
    ]
