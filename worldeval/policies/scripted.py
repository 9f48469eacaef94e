"""Policies without eyes: smooth random motion, and no motion at all.

Enters: nothing but who the rollout is. Leaves: chunks of the robot's action space. They are the
floor of every leaderboard and the fakes of every test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from worldeval.errors import ConfigError, PolicyError
from worldeval.policies.checking import POSE
from worldeval.robots import ABSOLUTE_MOTIONS, RobotSpec
from worldeval.types import Observation, PolicySpec

ABSOLUTE = {
    "absolute_pose": (POSE,),
    "joint_position": ("joint_position", "gripper_position"),
    "joint_target": (POSE,),
}
"""Motions whose actions say where to be, and the states that say where one is."""


def blind_spec(
    name: str,
    robot: RobotSpec,
    *,
    cameras: tuple[str, ...] = (),
    state_keys: tuple[str, ...] = (),
) -> PolicySpec:
    """The spec of a policy that answers in the robot's own chunks; it sees nothing by default."""
    return PolicySpec(
        name=name,
        cameras=cameras,
        image_size=None,
        state_keys=state_keys,
        action_space=robot.action_space,
        action_dim=robot.action_dim,
        chunk=robot.chunk_steps,
        execute=robot.chunk_steps,
        rate_hz=robot.control_hz,
    )


class ZeroPolicy:
    """Stands still: with the gripper open where actions are motions, else where it is."""

    def __init__(self, robot: RobotSpec, *, name: str = "zero") -> None:
        self._where = ABSOLUTE.get(robot.control_mode, ())
        self.spec = blind_spec(name, robot, state_keys=self._where)
        self._robot = robot
        self._still = np.zeros(robot.action_dim, np.float32)
        self._still[list(robot.gripper_axes)] = robot.grippers_open

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Nothing to forget."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return np.stack([np.tile(self._held(o), (self.spec.chunk, 1)) for o in observations])

    def _held(self, observation: Observation) -> np.ndarray:
        if not self._where:
            return self._still
        if self._where == (POSE,):  # its numbers are those of the actions
            return observation.state[POSE]
        joints, grippers = (observation.state[key] for key in self._where)
        held = np.empty(self._robot.action_dim, np.float32)
        held[list(self._robot.moving_axes)] = joints
        held[list(self._robot.gripper_axes)] = grippers
        return held

    def close(self) -> None:
        """Nothing to release."""


class RandomPolicy:
    """Smooth random motion: each action is a sum of slow sine waves of random phase.

    A function of (seed, rollout id, step) alone, so the batch and its order do not matter. Waves
    cover far more of the workspace than independent noise, which would tremble about its start.
    """

    WAVES = 4

    def __init__(self, robot: RobotSpec, *, speed: float = 0.6, name: str = "random") -> None:
        if not 0 < speed <= 1:
            raise ConfigError(f"speed is {speed!r}, expected a number in (0, 1]")
        if robot.control_mode in ABSOLUTE_MOTIONS:
            remedy = (
                "choose an action space of velocities or differences"
                if robot.kinematics
                else "replay another episode's actions instead (replay-shuffled:STORE)"
            )
            raise ConfigError(
                f"robot {robot.name!r} is commanded by {robot.control_mode!r}, which says where "
                f"to be: random places are no motion; {remedy}"
            )
        self.spec = blind_spec(name, robot)
        self._robot = robot
        self._speed = speed
        self._waves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self._waves = {
            rollout: self._draw(rollout, seed)
            for rollout, seed in zip(rollout_ids, seeds, strict=True)
        }

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        chunks = []
        for observation in observations:
            if observation.rollout_id not in self._waves:
                raise PolicyError(
                    f"policy {self.spec.name!r} does not know rollout {observation.rollout_id!r}; "
                    "call reset with it before act"
                )
            chunks.append(self._motion(*self._waves[observation.rollout_id], observation.step))
        return np.stack(chunks)

    def close(self) -> None:
        """Nothing to release."""

    def _draw(self, rollout: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        digest = hashlib.sha256(f"{seed}/{rollout}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        shape = (self._robot.action_dim, self.WAVES)
        frequency_hz = rng.uniform(0.03, 0.4, shape)  # periods of 2.5 to 33 s
        phase_rad = rng.uniform(0, 2 * np.pi, shape)
        amplitude = rng.uniform(0.3, 1.0, shape)
        return frequency_hz, phase_rad, amplitude

    def _motion(
        self, frequency_hz: np.ndarray, phase_rad: np.ndarray, amplitude: np.ndarray, step: int
    ) -> np.ndarray:
        time_s = (step + np.arange(self.spec.chunk)) / self.spec.rate_hz
        angle = 2 * np.pi * frequency_hz * time_s[:, None, None] + phase_rad
        wave = (amplitude * np.sin(angle)).sum(-1) / amplitude.sum(-1)  # (K, A) in [-1, 1]
        low = np.asarray(self._robot.action_low)
        high = np.asarray(self._robot.action_high)
        reach = np.full(wave.shape[-1], self._speed)
        grippers = list(self._robot.gripper_axes)
        reach[grippers] = 1.0
        wave[:, grippers] = np.where(wave[:, grippers] > 0, 1.0, -1.0)  # open or closed
        return ((low + high) / 2 + wave * reach * (high - low) / 2).astype(np.float32)
