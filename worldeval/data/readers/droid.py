"""DROID as a LeRobot dataset, v2.1 (and v2.0) or v3.0: a file an episode, or many in one file.

Enters: a folder with ``meta/info.json`` and a key map (``droid_keys.py``). Leaves: ``RawEpisode``.
Everything is at 15 Hz, and every third row is ours. How rows, pictures and words are brought
together is ``lerobot.py``'s.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from worldeval.data.readers.droid_keys import (
    Column,
    KeyMap,
    choose_key_map,
    known_key_maps,
    read_key_map,
)
from worldeval.data.readers.footage import CONTROL_HZ
from worldeval.data.readers.lerobot import NO_ORDER, LeRobotReader, outcome
from worldeval.data.readers.lerobot_index import LeRobotIndex
from worldeval.data.readers.lerobot_rows import EpisodeRows
from worldeval.data.readers.raw import STEPS, RawEpisode
from worldeval.errors import DataError
from worldeval.motion.panda import VIEWS


class LeRobotDroid(LeRobotReader):
    """The episodes of one split of a LeRobot dataset of DROID, by index (as text)."""

    def __init__(
        self, root: str | Path, split: str = "train", key_map: str | Path | None = None
    ) -> None:
        """key_map: a file of your own; None tries those that come with worldeval."""
        index = LeRobotIndex(Path(root))
        maps = known_key_maps() if key_map is None else [read_key_map(key_map)]
        self.key_map: KeyMap = choose_key_map(index.features, maps, index.info_path)
        hz = self.key_map.control_hz or index.fps or 0.0
        if abs(hz - CONTROL_HZ) > 0.02 * CONTROL_HZ:
            said = f"{hz:g}" if hz else "nothing of"
            raise DataError(
                f"{index.info_path} says {said} frames per second, expected "
                f"{CONTROL_HZ:g}; if it was recorded at that rate all the same, say control_hz in "
                "a key map"
            )
        super().__init__(index, split, hz)

    def episode(self, identity: str) -> RawEpisode:
        """The episode of that index. Raises DataError naming the file missing or damaged."""
        keys = self.key_map
        number, rows = self.rows(identity, self._columns())
        joints = self._part(rows, keys.joint_position)
        cartesian = self._part(rows, keys.cartesian_position)
        if cartesian is None and joints is not None:
            cartesian = _hand_poses(joints)
        gripper = self._part(rows, keys.gripper)
        if cartesian is None or gripper is None:  # KeyMap promises one of each
            raise DataError(f"{rows.path} lacks the columns of key map {keys.name!r}")
        return RawEpisode(
            id=identity,
            split=self.split,
            described_in=rows.path,
            instructions=self.instructions(number, rows, keys.instructions),
            success=outcome(rows, keys.success),
            footage=tuple(self.footage(number, keys.views[view], rows) for view in VIEWS),
            frames=math.ceil(len(rows) / STEPS),
            state_hz=CONTROL_HZ,
            cartesian_position=cartesian,
            gripper=gripper[:, 0],
            joint_position=joints,
            actions={
                name: values
                for name, column in keys.actions.items()
                if (values := self._part(rows, column)) is not None
            },
            notes=() if rows.ordered else (NO_ORDER,),
        )

    def _columns(self) -> set[str]:
        keys = self.key_map
        columns = [keys.gripper, *keys.actions.values()]
        columns += [c for c in (keys.joint_position, keys.cartesian_position) if c is not None]
        wanted = {column.name for column in columns} | {*keys.instructions}
        return wanted | ({keys.success} if keys.success else set())

    def _part(self, rows: EpisodeRows, column: Column | None) -> np.ndarray | None:
        """(N, last - first) float64."""
        if column is None:
            return None
        return rows.numbers(column.name, column.width)[:, column.first : column.last]


def _hand_poses(joints: np.ndarray) -> np.ndarray:
    """(N, 7) joints in rad -> (N, 6) hand poses."""
    from worldeval.motion.panda import forward_pose

    return forward_pose(joints)
