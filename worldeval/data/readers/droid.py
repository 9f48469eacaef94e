"""DROID as a LeRobot dataset, v2.1 (and v2.0) or v3.0: a file an episode, or many in one file.

Enters: a folder with ``meta/info.json`` and a key map (``droid_keys.py``). Leaves: ``RawEpisode``.
Everything is at 15 Hz, and every third row is ours. What belongs together is what the dataset says
belongs together: rows by ``episode_index`` and ``frame_index``, pictures by their time in the film
(``from_timestamp`` plus ``timestamp``), instructions by ``task_index``. Where two of these
contradict each other the episode is refused.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from worldeval.data.cells import EXPECTED
from worldeval.data.readers.droid_keys import (
    Column,
    KeyMap,
    choose_key_map,
    known_key_maps,
    read_key_map,
)
from worldeval.data.readers.footage import CONTROL_HZ, FilmPart, Footage, ImageColumn
from worldeval.data.readers.lerobot_index import LeRobotIndex
from worldeval.data.readers.lerobot_rows import TASK, EpisodeRows, RowFinder
from worldeval.data.readers.raw import STEPS, RawEpisode
from worldeval.data.values import single, success, text, whole_number
from worldeval.errors import DataError
from worldeval.motion.panda import VIEWS


class LeRobotDroid:
    """The episodes of one split of a LeRobot dataset of DROID, by index (as text).

    notes: one sentence for each thing about the dataset that its user must know.
    """

    def __init__(
        self, root: str | Path, split: str = "train", key_map: str | Path | None = None
    ) -> None:
        """key_map: a file of your own; None tries those that come with worldeval."""
        self.root, self.split = Path(root), split
        self.index = LeRobotIndex(self.root)
        maps = known_key_maps() if key_map is None else [read_key_map(key_map)]
        self.key_map: KeyMap = choose_key_map(self.index.features, maps, self.index.info_path)
        self.hz = self.key_map.control_hz or self.index.fps or 0.0
        if abs(self.hz - CONTROL_HZ) > 0.02 * CONTROL_HZ:
            said = f"{self.hz:g}" if self.hz else "nothing of"
            raise DataError(
                f"{self.index.info_path} says {said} frames a second, expected "
                f"{CONTROL_HZ:g}; if it was recorded at that rate all the same, say control_hz in "
                "a key map"
            )
        # Films and timestamps keep the clock of info.json even where it is not the robot's.
        clocks = dict.fromkeys(rate for rate in (self.index.fps, self.hz) if rate)
        self._finder = RowFinder(self.index, tuple(clocks))
        self.ids, self.notes = self.index.ids_of(split)

    def __len__(self) -> int:
        return len(self.ids)

    def episode(self, identity: str) -> RawEpisode:
        """The episode of that index. Raises DataError naming the file missing or damaged."""
        if identity in self.index.refused:
            raise DataError(self.index.refused[identity])
        number = int(identity) if identity.isdecimal() else -1
        if number not in self.index.rows:
            last = max(self.index.rows, default=0)
            raise DataError(f"{self.root} has no episode {identity!r}, only 0..{last}")
        keys = self.key_map
        rows = self._finder.rows(number, self._columns())
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
            instructions=self._instructions(number, rows),
            success=self._success(rows),
            footage=tuple(self._footage(number, keys.views[view], rows) for view in VIEWS),
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
            notes=() if rows.ordered else (_NO_ORDER,),
        )

    def _columns(self) -> set[str]:
        keys = self.key_map
        columns = [keys.gripper, *keys.actions.values()]
        columns += [c for c in (keys.joint_position, keys.cartesian_position) if c is not None]
        wanted = {column.name for column in columns} | {TASK, *keys.instructions}
        return wanted | ({keys.success} if keys.success else set())

    def _part(self, rows: EpisodeRows, column: Column | None) -> np.ndarray | None:
        """(N, last - first) float64."""
        if column is None:
            return None
        return rows.numbers(column.name, column.width)[:, column.first : column.last]

    def _footage(self, number: int, view: str, rows: EpisodeRows) -> Footage:
        if self.index.features[view].get("dtype") == "image":
            return ImageColumn(
                files=rows.files, column=view, episode_index=number, order=rows.order,
                root=self.root,
            )  # fmt: skip
        row_s = float(rows.times_s[-1]) / (len(rows) - 1) if len(rows) > 1 else 1 / self.hz
        if self.index.version != "v3.0":
            path = self.index.path(number, "video_path", "", view)
            return FilmPart(path=path, times_s=rows.times_s, row_s=row_s, whole=True)
        span = self.index.span(number, view)
        return FilmPart(
            path=span.path,
            times_s=span.start_s + rows.times_s,
            row_s=row_s,
            whole=False,
            claimed_s=self.index.end_of(span.path, view),
        )

    def _instructions(self, number: int, rows: EpisodeRows) -> tuple[str, ...]:
        """Different instructions, LeRobot's task first; none where nothing is known.

        LeRobot goes by task_index, and the index repeats the text; they must not differ.
        """
        listed = self.index.rows[number].get("tasks")
        listed = listed if isinstance(listed, list | tuple) else [listed]
        texts = [words for entry in listed if (words := text(entry)) is not None]
        named = []
        for value in rows.changes(TASK):
            try:
                place = whole_number(value)
            except ValueError:
                continue
            if place is not None and place in self.index.tasks:
                named.append(self.index.tasks[place])
        strange = [words for words in named if words not in texts]
        if texts and strange:
            raise DataError(
                f"{rows.path}: task_index of episode {number} means {strange[0]!r} in the table of "
                f"tasks, and the index of episodes says {texts[0]!r}; one of them is of another "
                "dataset"
            )
        for name in self.key_map.instructions:
            named += [words for v in rows.changes(name) if (words := text(v)) is not None]
        return tuple(dict.fromkeys(texts + named))

    def _success(self, rows: EpisodeRows) -> bool | None:
        """The last that is known; flags a row may turn to true, but not back."""
        known = []
        for value in rows.changes(self.key_map.success) if self.key_map.success else []:
            try:
                found = success(value)
            except ValueError:
                raise DataError(
                    f"{rows.path}: {self.key_map.success!r} is {single(value)!r}, expected "
                    f"{EXPECTED}"
                ) from None
            known += [] if found is None else [found]
        if known != sorted(known):
            raise DataError(
                f"{rows.path}: {self.key_map.success!r} says both success and, later, failure; "
                "expected one of them"
            )
        return known[-1] if known else None


_NO_ORDER = (
    "no column frame_index, timestamp or index says which row comes first, so rows were taken in "
    "the order in which they are kept"
)


def _hand_poses(joints: np.ndarray) -> np.ndarray:
    """(N, 7) joints in rad -> (N, 6) hand poses."""
    from worldeval.motion.panda import forward_pose

    return forward_pose(joints)
