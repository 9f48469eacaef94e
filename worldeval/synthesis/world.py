"""A world whose rollouts begin elsewhere than they were recorded: the arm is moved there first.

Enters: a world and recipes. Leaves: a world with the recipes' start states. It begins at the
recorded start, commands the recipe's poses in imagination without showing the policy, and shows
what is seen at the end. What it takes is measured, so that a run can say how busy the world was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from worldeval.data import digests
from worldeval.errors import StartStateError
from worldeval.motion import panda
from worldeval.robots import PLAIN_JOINTS, RobotSpec
from worldeval.rollout.resuming import start_digest
from worldeval.synthesis.recipe import Recipe
from worldeval.types import ActionChunk, StartState, World, WorldStep


class VariedWorld:
    """``world`` begun as recipes say. A ``types.World``.

    recipes: by the ``start_id`` of their rollouts. seconds: spent within ``world`` so far.
    beside: the recipes that were reset together last, in their rows; floating-point arithmetic
    depends on how many rows there are, so they belong to what made a rollout.
    """

    def __init__(self, world: World, recipes: Mapping[str, Recipe]) -> None:
        self.world, self.recipes = world, recipes
        self.name, self.robot = world.name, world.robot
        self.frames_per_step: int | None = getattr(world, "frames_per_step", None)
        self.seconds = 0.0
        self.beside: tuple[Recipe, ...] = ()

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        self.beside = tuple(self._recipe(start) for start in starts)
        with self._timed():
            seen = self.world.reset([r.recorded_start() for r in self.beside], seeds)
        frames, poses = seen.frames[:, -1:].copy(), seen.poses[:, -1:].copy()
        joints = None if seen.joints is None else seen.joints[:, -1:].copy()
        flags = None if seen.success is None else seen.success[:, -1:].copy()
        ahead = [r.approach(poses[row, 0]) for row, r in enumerate(self.beside)]
        for first in range(0, max(map(len, ahead), default=0), self._most):
            by_length: dict[int, list[int]] = {}
            for row, path in enumerate(ahead):
                if count := len(path[first : first + self._most]):
                    by_length.setdefault(count, []).append(row)
            for count, rows in sorted(by_length.items()):
                path = np.stack([ahead[row][first : first + count] for row in rows])
                step = self.step(_moved(self.robot, path, joints, rows), rows)
                frames[rows], poses[rows] = step.frames[:, -1:], step.poses[:, -1:]
                if joints is not None and step.joints is not None:
                    joints[rows] = step.joints[:, -1:]
                if flags is not None and step.success is not None:
                    flags[rows] = step.success[:, -1:]
        return WorldStep(
            frames=frames, poses=poses, joints=joints, success=flags, info=[{} for _ in starts]
        )

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        with self._timed():
            return self.world.step(chunk, rows)

    def start_digest(self, start: StartState) -> str:
        """Twelve digits for the recorded start and the recipe."""
        recipe = self._recipe(start)
        recorded = start_digest(self.world, recipe.recorded_start())
        return digests.of_json([recorded, recipe.to_json()])

    def close(self) -> None:
        self.world.close()

    @property
    def _most(self) -> int:
        """Frames by which it is stepped at a time."""
        return self.frames_per_step or self.robot.frames_per_chunk

    def _recipe(self, start: StartState) -> Recipe:
        if start.start_id not in self.recipes:
            raise StartStateError(
                f"start state {start.start_id!r} is none of the {len(self.recipes)} varied ones, "
                f"such as {next(iter(self.recipes), 'none')!r}; give the recipes that it is one of"
            )
        return self.recipes[start.start_id]

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began


def _moved(
    robot: RobotSpec, path: np.ndarray, joints: np.ndarray | None, rows: Sequence[int]
) -> ActionChunk:
    """Poses (B, T, P) as a chunk, with the joints that reach them. No actions lead there: worlds
    that imagine look at poses alone."""
    steps = path.shape[1] * robot.steps_per_frame
    followed = None
    if joints is not None:
        followed = _joints_along(robot, path, joints[list(rows), -1])
    return ActionChunk(
        actions=np.zeros((len(path), steps, robot.action_dim), np.float32),
        poses=path,
        joints=followed,
    )


def _joints_along(robot: RobotSpec, path: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Joints (B, T, J) at poses (B, T, P), from joints (B, J) on."""
    if robot.control_mode in PLAIN_JOINTS:
        return path.copy()
    found = [np.asarray(joints, np.float64)]
    for t in range(path.shape[1]):
        found.append(panda.joints_for_pose(path[:, t, :6], found[-1]))
    return np.stack(found[1:], axis=1).astype(np.float32)
