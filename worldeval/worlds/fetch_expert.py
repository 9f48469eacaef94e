"""Who solves gymnasium-robotics' Fetch tasks in our loop: a scripted policy that knows the truth.

Enters: a ``GymnasiumWorld`` of FetchReach, FetchPush or FetchPickAndPlace, whose state it reads.
Leaves: single actions. Proportional: to the goal; to behind the block, then through it; above the
block, down, closed, to the goal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldeval.errors import ConfigError
from worldeval.types import Observation, PolicySpec
from worldeval.worlds.environment import GymnasiumWorld

GAIN = 12.0
"""Share of the largest action for each metre to go."""
NEAR_M = 0.02
BEHIND_M = 0.08
"""How far behind the block the hand begins to push."""
ABOVE_M = 0.1


class FetchExpert:
    """A ``types.Policy`` for one world of Fetch; of pictures it needs none."""

    def __init__(self, world: GymnasiumWorld) -> None:
        moves = {
            "FetchReach": self._reach,
            "FetchPush": self._push,
            "FetchPickAndPlace": self._place,
        }
        if world.task not in moves:
            raise ConfigError(f"there is no expert for {world.task!r}; there is for {list(moves)}")
        self._move, self._world = moves[world.task], world
        robot = world.robot
        self.spec = PolicySpec(
            name="expert",
            cameras=robot.views[:1],
            image_size=None,
            state_keys=("pose",),
            action_space=robot.action_space,
            action_dim=robot.action_dim,
            chunk=1,
            execute=1,
            rate_hz=robot.control_hz,
        )

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Nothing is remembered."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return np.stack([self._action(o.rollout_id) for o in observations])

    def close(self) -> None:
        """Nothing is held."""

    def _action(self, start_id: str) -> np.ndarray:
        seen = self._world.row_of(start_id).observation
        step_m, gripper = self._move(seen["observation"], seen["desired_goal"])
        action = np.clip([*(GAIN * step_m), gripper], -1, 1)
        return action.astype(np.float32)[None]

    @staticmethod
    def _reach(state: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, float]:
        return goal - state[:3], 0.0

    @staticmethod
    def _push(state: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, float]:
        hand, block = state[:3], state[3:6]
        way = (goal - block)[:2]
        far_m = float(np.linalg.norm(way))
        if far_m < NEAR_M:
            return np.array([0.0, 0.0, 0.1]), -1.0
        along = way / max(far_m, 1e-9)
        behind = block.copy()
        behind[:2] -= BEHIND_M * along
        off = (block - hand)[:2]
        aside_m = float(abs(off[0] * along[1] - off[1] * along[0]))
        if aside_m > NEAR_M or off @ along < 0:  # not behind it: over it, then down
            level = float(np.linalg.norm((behind - hand)[:2]))
            height = block[2] + (ABOVE_M if level > NEAR_M else 0.0)
            return np.array([*(behind - hand)[:2], height - hand[2]]), -1.0
        if hand[2] - block[2] > NEAR_M:
            return np.array([*(behind - hand)[:2], block[2] - hand[2]]), -1.0
        return np.array([*(0.5 * way + 0.02 * along), block[2] - hand[2]]), -1.0

    @staticmethod
    def _place(state: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, float]:
        hand, block, fingers = state[:3], state[3:6], state[9:11]
        off = block - hand
        if np.linalg.norm(off[:2]) > NEAR_M:
            return np.array([*off[:2], off[2] + ABOVE_M]), 1.0
        if off[2] < -0.01:
            return off, 1.0
        if fingers.sum() > 0.055:
            return off, -1.0
        return goal - block, -1.0
