"""A policy whose actions depend on every byte that it is shown since its reset, and on its seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec


class HashPolicy:
    def __init__(
        self,
        robot: RobotSpec,
        *,
        chunk: int = 4,
        size: int | None = 20,
        forgets: bool = False,
        cameras: int = 2,
    ) -> None:
        self.robot, self.forgets = robot, forgets
        self.spec = PolicySpec(
            name="hashed",
            cameras=robot.views[:cameras],
            image_size=(size, size + 4) if size else None,
            state_keys=("joint_position", "gripper_position") if robot.joint_names else ("pose",),
            action_space=robot.action_space,
            action_dim=robot.action_dim,
            chunk=chunk,
            execute=max(1, chunk - 1),
            rate_hz=robot.control_hz,
        )
        self.past: dict[str, hashlib._Hash] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self.past = {
            name: hashlib.sha256(f"{name} {words} {seed}".encode())
            for name, words, seed in zip(rollout_ids, instructions, seeds, strict=True)
        }

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return np.stack([self._one(o) for o in observations])

    def _one(self, o: Observation) -> np.ndarray:
        seen = hashlib.sha256() if self.forgets else self.past[o.rollout_id]
        for name in self.spec.cameras:
            seen.update(o.images[name].tobytes() + str(o.images[name].shape).encode())
        for name in self.spec.state_keys:
            seen.update(np.asarray(o.state[name], np.float32).tobytes())
        seen.update(o.instruction.encode() + (b"" if self.forgets else str(o.step).encode()))
        rng = np.random.default_rng(int.from_bytes(seen.digest()[:8], "big"))
        low, high = (np.asarray(b) for b in (self.robot.action_low, self.robot.action_high))
        return rng.uniform(low, high, (self.spec.chunk, len(low))).astype(np.float32)

    def close(self) -> None:
        """Nothing to release."""
