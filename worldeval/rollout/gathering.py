"""From the control steps that a policy executes to the whole frames that a world is stepped by.

Enters: answers of any number of control steps for a batch of rollouts. Leaves: the same control
steps in the same order, a whole number of frames at a time. With 3 control steps per frame, a
policy that executes 8 moves the world by 2 frames and leaves 2 steps, then by 3 frames (2 + 8 = 9 +
1), and so on; one that executes single steps is asked three times for each frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldeval.robots import RobotSpec
from worldeval.types import World, frames_at_a_time


class Gathered:
    """Control steps (B, K, A) that were commanded and not carried out yet."""

    def __init__(self, robot: RobotSpec, rows: int) -> None:
        self._per_frame = robot.steps_per_frame
        self._waiting = np.zeros((rows, 0, robot.action_dim), np.float32)

    @property
    def steps(self) -> int:
        """Control steps that wait."""
        return self._waiting.shape[1]

    @property
    def frames(self) -> int:
        """Whole frames that they fill."""
        return self.steps // self._per_frame

    def add(self, actions: np.ndarray) -> None:
        """Control steps (B, K, A) that follow those that wait."""
        self._waiting = np.concatenate([self._waiting, actions], axis=1) if self.steps else actions

    def take_frames(self, most: int | None = None) -> np.ndarray:
        """The control steps of all whole frames, of ``most`` frames at most; they wait no more."""
        frames = self.frames if most is None else min(self.frames, most)
        count = frames * self._per_frame
        taken, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        return taken

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Only these rollouts go on."""
        self._waiting = self._waiting[list(rows)]


def frames_at_once(world: World, steps: int, *, flagged: bool) -> int | None:
    """By how many frames ``world`` may be stepped after ``steps`` control steps; None: any number.

    A world model imagines a fixed number of frames at a time. A world that flags success is not
    stepped beyond the end of a chunk of its robot, where a rollout may end: so it ends at the same
    frame however many steps its policy executes.
    """
    most = frames_at_a_time(world)
    if not flagged:
        return most
    robot = world.robot
    left = robot.frames_per_chunk - steps // robot.steps_per_frame % robot.frames_per_chunk
    return left if most is None else min(most, left)
