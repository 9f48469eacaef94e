"""A store as a LeRobot dataset, with the robot that the store itself names.

Enters: a store, recorded, imagined or synthesised. Leaves: a new folder that LeRobot, openpi and
GR00T train on (``data/writers/lerobot.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.data.store.episodes import EpisodeStore

if TYPE_CHECKING:
    from worldeval.data.writers.lerobot import Exported


def export_lerobot(
    store: EpisodeStore | str | Path,
    out: str | Path,
    *,
    version: str = "3.0",
    keys: str | None = None,
    modality: str | None = None,
    only_successful: bool = False,
    robot: str | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> Exported:
    """Write ``store`` as a LeRobot dataset into the folder ``out``, which must not be there yet.

    version: "3.0" or "2.1" of the format. keys: how columns are spelled, by the robot if None.
    modality: "gr00t" adds what GR00T asks for (version 2.1). only_successful: without episodes that
    are not known to be solved. robot: a TOML file, a name or "module:attr"; as the store says if
    None. progress: a bar on stderr, or who is told of episodes done and of all.

    Raises ConfigError if ``out`` is taken, DataError if no episode is left, MismatchError for
    another robot's store, StoreError if the disk is full; none of them leaves anything.
    """
    from worldeval.data.writers.lerobot import export
    from worldeval.worlds.named import robot_of_store

    opened = store if isinstance(store, EpisodeStore) else EpisodeStore.open(store)
    chosen = None
    if only_successful:
        chosen = [i for i in range(len(opened)) if opened.facts(i)["success"]]
    return export(
        opened,
        out,
        robot_of_store(opened, robot),
        version=version,
        keys=keys,
        with_modality=modality,
        episodes=chosen,
        progress=progress,
    )
