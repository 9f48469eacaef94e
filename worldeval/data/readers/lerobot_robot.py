"""Any robot's episodes out of a LeRobot dataset: its own views, numbers, rates and sizes.

Enters: a folder with ``meta/info.json`` and a robot. Leaves: ``RobotEpisode``, with the clock of
the robot. A dataset has one row an instant; the robot says how many control steps lie between two
frames, so frame t is row R t for R rows per frame::

    row     0  1  2  3  4  5  6 ...     30 rows per second
    step    0  1  2  3  4  5  6 ...     control_hz = 30: the actions of these rows
    frame   0                 1         steps_per_frame = 6: 5 frames per second

Row k's action is what was commanded at its instant and is carried out before row k + 1, so the
actions of frame t are those of rows R t to R (t + 1) - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.readers.footage import Footage, resized
from worldeval.data.readers.lerobot import NO_ORDER, LeRobotReader, outcome
from worldeval.data.readers.lerobot_columns import (
    SUCCESS,
    Numbers,
    Spelling,
    columns_of,
    read_spelling,
)
from worldeval.data.readers.lerobot_index import LeRobotIndex
from worldeval.data.readers.lerobot_rows import EpisodeRows
from worldeval.errors import DataError
from worldeval.robots import ABSOLUTE_MOTIONS, RobotSpec

_SAME = 0.02
"""Of a rate, how far two that are meant to be the same may differ."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """rows_per_step: rows of the dataset for one control step. steps: control steps per frame."""

    rows_per_step: int
    steps: int

    @property
    def rows_per_frame(self) -> int:
        return self.rows_per_step * self.steps

    def frames(self, rows: int) -> int:
        """T+1 frames in an episode of ``rows`` rows."""
        return (rows - 1) // self.rows_per_frame + 1


def clock_of(rows_hz: float | None, robot: RobotSpec, where: Path) -> Clock:
    """Raises DataError with the rates that work, where rows are no whole number per step."""
    if not rows_hz:
        raise DataError(
            f"{where} says nothing of frames per second; write fps there, or in a key map"
        )
    ratio = rows_hz / robot.control_hz
    rows = round(ratio)
    if rows < 1 or abs(ratio - rows) > _SAME * rows:
        good = ", ".join(f"{rows_hz / n:g}" for n in range(1, 6))
        raise DataError(
            f"{where} has {rows_hz:g} rows per second, and robot {robot.name!r} takes "
            f"{robot.control_hz:g} control steps per second, expected a whole number of rows for "
            f"each step: control_hz may be {good}, ..."
        )
    if rows > 1 and robot.control_mode not in ABSOLUTE_MOTIONS:
        raise DataError(
            f"{where} has {rows_hz:g} rows per second and robot {robot.name!r} moves by "
            f"{robot.control_mode!r} {robot.control_hz:g} times per second; {rows} relative "
            f"actions cannot become one, so give it control_hz = {rows_hz:g}"
        )
    return Clock(rows_per_step=rows, steps=robot.steps_per_frame)


@dataclass(frozen=True, kw_only=True)
class RobotEpisode:
    """One recorded episode of any robot; arrays have N rows of the dataset.

    actions: (N, A). states: (N, P) measured poses, or None. measured: (N, J) joints, or None.
    """

    id: str
    split: str
    described_in: Path
    robot: RobotSpec
    clock: Clock
    instructions: tuple[str, ...]
    success: bool | None
    footage: tuple[Footage, ...]
    actions: np.ndarray
    states: np.ndarray | None
    measured: np.ndarray | None = None
    latents: tuple[Path, ...] | None = field(default=None, init=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        arrays: Mapping[str, np.ndarray | None] = {
            "action": self.actions, "state": self.states, "joints": self.measured,
        }  # fmt: skip
        for name, array in arrays.items():
            if array is None:
                continue
            bad = ~(np.abs(array) <= np.finfo(np.float32).max)  # NaN too: it is kept as float32
            if bad.any():
                raise DataError(
                    f"{self.described_in}: {name} has NaN or infinity in row "
                    f"{int(np.argwhere(bad)[0][0])} ({int(bad.sum())} values in all)"
                )

    @property
    def key(self) -> str:
        return f"{self.split}/{self.id}"

    @property
    def frames(self) -> int:
        """T+1."""
        return self.clock.frames(len(self.actions))

    def steps(self) -> np.ndarray:
        """(T, S, A) float32: of several rows a control step the last, which is what it ends with.

        Only of targets are there several, see ``clock_of``.
        """
        count, rows = self.frames - 1, self.clock.rows_per_step
        taken = self.actions[: count * self.clock.rows_per_frame][rows - 1 :: rows]
        shape = (count, self.clock.steps, self.actions.shape[1])  # also of an episode of one frame
        return taken.reshape(shape).astype(np.float32)

    def poses(self) -> np.ndarray:
        """(T+1, P) float32 at frame rate.

        Where an action says where to be, the commanded ones, as imagination and replay have them;
        nothing is commanded yet at frame 0, so that one is measured. Otherwise the measured ones.
        """
        at_frames = None
        if self.states is not None:
            at_frames = self.states[:: self.clock.rows_per_frame].astype(np.float32)
        if not commands_poses(self.robot):
            if at_frames is None:
                raise DataError(f"{self.described_in} has no measured poses")
            return at_frames
        steps = self.steps()[:, -1]
        first = self.actions[:1].astype(np.float32) if at_frames is None else at_frames[:1]
        return np.concatenate([first, steps])

    def joints(self) -> np.ndarray | None:
        """(T+1, J) float32 at frame rate; None of a robot without joint names.

        Of a robot whose pose is its joints, these are the same.
        """
        if not self.robot.joint_names:
            return None
        if self.measured is None or self.robot.joint_names == self.robot.pose_names:
            return self.poses()
        return self.measured[:: self.clock.rows_per_frame].astype(np.float32)

    def images(self, size: tuple[int, int]) -> np.ndarray:
        """(T+1, V, H, W, 3) uint8 at frame rate."""
        frames = np.empty((self.frames, len(self.footage), *size, 3), np.uint8)
        for view, footage in enumerate(self.footage):
            seen = footage.read(self.clock.rows_per_frame)
            if len(seen) != self.frames:
                raise DataError(
                    f"{footage.path} decodes to {len(seen)} frames, expected {self.frames}; it is "
                    "truncated or was changed"
                )
            for t, frame in enumerate(seen):
                frames[t, view] = resized(frame, size)
        return frames

    def extra(self) -> dict[str, Any]:
        """Facts for ``Episode.extra``."""
        facts: dict[str, Any] = {"source_id": self.id, "steps": "recorded"}
        for number, text in enumerate(self.instructions[1:], start=2):
            facts[f"instruction_{number}"] = text
        return facts


class LeRobotRobot(LeRobotReader):
    """The episodes of one split of a LeRobot dataset of ``robot``, by index (as text)."""

    def __init__(
        self,
        root: str | Path,
        robot: RobotSpec,
        split: str = "train",
        key_map: str | Path | None = None,
    ) -> None:
        """key_map: of odd spellings, see ``lerobot_columns.py``."""
        index = LeRobotIndex(Path(root))
        self.robot = robot
        self.spelling = Spelling() if key_map is None else read_spelling(Path(key_map))
        self.columns = columns_of(index.features, robot, self.spelling, index.info_path)
        hz = self.spelling.fps or index.fps
        self.clock = clock_of(hz, robot, index.info_path)
        if not commands_poses(robot) and self.columns.state is None:
            raise DataError(
                f"{index.info_path}: no column of states has the poses "
                f"{', '.join(robot.pose_names)} of robot {robot.name!r}, whose actions "
                f"({robot.control_mode}) do not say where it is; name its poses like the "
                "column's, or say by a key map which is which (--key-map FILE)"
            )
        if robot.joint_names not in ((), robot.pose_names) and self.columns.joints is None:
            raise DataError(
                f"{index.info_path}: no column of states has the joints "
                f"{', '.join(robot.joint_names)} of robot {robot.name!r}; leave joint_names out, "
                "or say by a key map which is which (--key-map FILE)"
            )
        super().__init__(index, split, hz or robot.control_hz)

    def episode(self, identity: str) -> RobotEpisode:
        """The episode of that index. Raises DataError naming the file missing or damaged."""
        found, spelling = self.columns, self.spelling
        success = spelling.success or (SUCCESS if SUCCESS in self.index.features else None)
        parts = [part for part in (found.action, found.state, found.joints) if part is not None]
        wanted = {part.column for part in parts} | {*spelling.instructions}
        number, rows = self.rows(identity, wanted | ({success} if success else set()))
        return RobotEpisode(
            id=identity,
            split=self.split,
            described_in=rows.path,
            robot=self.robot,
            clock=self.clock,
            instructions=self.instructions(number, rows, spelling.instructions),
            success=outcome(rows, success),
            footage=tuple(self.footage(number, view, rows) for view in found.views),
            actions=_taken(rows, found.action),
            states=None if found.state is None else _taken(rows, found.state),
            measured=None if found.joints is None else _taken(rows, found.joints),
            notes=() if rows.ordered else (NO_ORDER,),
        )


def commands_poses(robot: RobotSpec) -> bool:
    """Whether an action is itself the pose to be at."""
    if robot.control_mode == "joint_position":  # there the pose is the hand's, by kinematics
        return False
    return robot.control_mode in ABSOLUTE_MOTIONS and robot.action_dim == robot.pose_dim


def _taken(rows: EpisodeRows, numbers: Numbers) -> np.ndarray:
    return rows.numbers(numbers.column, numbers.width)[:, list(numbers.places)]
