"""A human at the keys as a policy.

Enters: for each chunk, a string of keys from ``keys(observation)``; by default a line typed at the
terminal. Leaves: a chunk in which all keys of the string act at once.

    l r   left, right (-x, +x)      u d   up, down (+z, -z)
    f b   forward, back (+y, -y)    o c   open, close the gripper (stays so until told otherwise)

A repeated key is faster ("ll"), an empty line stands still, "q" ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from worldeval.errors import ConfigError, PolicyError
from worldeval.policies.scripted import blind_spec
from worldeval.robots import RobotSpec
from worldeval.types import Observation

KEYS: dict[str, tuple[int, float]] = {
    "l": (0, -1.0),
    "r": (0, 1.0),
    "b": (1, -1.0),
    "f": (1, 1.0),
    "d": (2, -1.0),
    "u": (2, 1.0),
}
GRIPPER = {"o": 0, "c": 1}
QUIT = "q"


def read_line(observation: Observation) -> str:
    """Ask at the terminal; the end of the input (Ctrl-D) quits."""
    try:
        return input(
            f"[{observation.rollout_id} step {observation.step}] "
            f"{observation.instruction} (l r f b u d o c, q quits): "
        )
    except EOFError:
        return QUIT


class KeyboardPolicy:
    """Turns keys into chunks; see the module docstring for the keys."""

    def __init__(
        self,
        robot: RobotSpec,
        *,
        keys: Callable[[Observation], str] = read_line,
        speed: float = 0.5,
        name: str = "keyboard",
    ) -> None:
        if not 0 < speed <= 1:
            raise ConfigError(f"speed is {speed!r}, expected a number in (0, 1]")
        if robot.action_dim != 4:
            raise ConfigError(
                f"robot {robot.name!r} has {robot.action_dim} actions, expected 4 (x, y, z, "
                "gripper); the keyboard drives no other"
            )
        self.spec = blind_spec(name, robot)
        self._keys = keys
        self._speed = speed
        self._low = np.asarray(robot.action_low, np.float32)
        self._high = np.asarray(robot.action_high, np.float32)
        sense = (robot.action_low[-1], robot.action_high[-1])
        self._open, self._closed = sense if robot.gripper_sense == "close_positive" else sense[::-1]
        self._gripper: dict[str, float] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self._gripper = dict.fromkeys(rollout_ids, self._open)

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return np.stack([self._chunk(o.rollout_id, self._keys(o)) for o in observations])

    def close(self) -> None:
        """Nothing to release."""

    def _chunk(self, rollout: str, typed: str) -> np.ndarray:
        action = np.zeros(4, np.float32)
        for key in typed.strip().lower():
            if key == QUIT:
                raise KeyboardInterrupt("the keyboard policy was asked to quit")
            if key in GRIPPER:
                self._gripper[rollout] = self._closed if GRIPPER[key] else self._open
            elif key in KEYS:
                axis, sign = KEYS[key]
                action[axis] += sign * self._speed
            elif not key.isspace():
                raise PolicyError(
                    f"key {key!r} has no meaning; type some of {' '.join([*KEYS, *GRIPPER])}, or "
                    f"{QUIT} to quit"
                )
        action[3] = self._gripper.get(rollout, self._open)
        return np.tile(np.clip(action, self._low, self._high), (self.spec.chunk, 1))
