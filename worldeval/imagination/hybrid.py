"""Where does a rollout go wrong, in its pictures or in its motion? A world with the two apart.

Enters: a world that knows the state, such as a simulator, and an imagined one of the same robot.
Leaves: a ``types.World`` whose poses and success are the simulator's while a policy sees what the
world model draws. Both carry out the same actions. A policy that truly succeeds here but not in
imagination was misjudged; one that fails here but not in the simulator was misled by the pictures.
``info["psnr_db"]`` tells at each frame how far the pictures are from the simulator's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldeval.errors import MismatchError
from worldeval.imagination.env import Imagination
from worldeval.metrics.psnr import psnr_of_mse
from worldeval.types import ActionChunk, StartState, World, WorldStep


class Hybrid:
    """``state`` acts, ``pictures`` draws. Raises MismatchError for worlds of two robots."""

    def __init__(self, state: World, pictures: Imagination) -> None:
        for what, a, b in (
            ("robot", state.robot.name, pictures.robot.name),
            ("views", state.robot.views, pictures.robot.views),
            ("image size", state.robot.image_size, pictures.robot.image_size),
            ("frame rate in Hz", state.robot.frame_hz, pictures.robot.frame_hz),
            ("pose", state.robot.pose_names, pictures.robot.pose_names),
        ):
            if a != b:
                raise MismatchError(
                    f"world {state.name!r} has {what} {a}, the world model {b}; a hybrid needs a "
                    "simulator of the robot that the world model was trained for"
                )
        self.name = f"hybrid:{state.name}"
        self.robot = state.robot
        self.frames_per_step = pictures.frames_per_step
        self._state, self._pictures = state, pictures

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        return self._both(self._state.reset(starts, seeds), self._pictures.reset(starts, seeds))

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        return self._both(self._state.step(chunk, rows), self._pictures.step(chunk, rows))

    def start_digest(self, start: StartState) -> str:
        """Of what the pictures begin with."""
        return self._pictures.start_digest(start)

    def close(self) -> None:
        self._state.close()
        self._pictures.close()

    @staticmethod
    def _both(true: WorldStep, drawn: WorldStep) -> WorldStep:
        errors = np.square(true.frames.astype(np.float32) - drawn.frames).mean(axis=(2, 3, 4, 5))
        apart = psnr_of_mse(errors, peak=255, most=100.0).round(2).tolist()  # (B, T), views pooled
        return WorldStep(
            frames=drawn.frames,
            poses=np.asarray(true.poses),
            success=true.success,
            info=[
                {**a, **b, "psnr_db": c}
                for a, b, c in zip(true.info, drawn.info, apart, strict=True)
            ],
            joints=true.joints,
        )
