"""Pose-conditioned memory: which past frames the world model looks at.

In: the commanded poses of everything seen so far and of the frames to come. Out: indices into the
past, one row per rollout, and which of them are real. Ctrl-World (arXiv 2510.10125, section 3.2)
takes fixed strided offsets and lets attention match poses; ``PoseRetrieval`` picks by pose, so that
a place that was left long ago is found again however long ago it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from worldeval.errors import ConfigError
from worldeval.robots import RobotSpec

Strategy = Callable[[np.ndarray, np.ndarray, int], list[int]]
"""(past poses (n, P) normalised, the last being the current frame; future poses (T, P); slots)
-> at most ``slots`` indices into the past, oldest first (the published ones may repeat, and begin
with the current frame's own index while it is the only one)."""


def nothing(past: np.ndarray, future: np.ndarray, slots: int) -> list[int]:
    """No memory: the current frame alone."""
    return []


@dataclass(frozen=True, kw_only=True)
class StridedOffsets:
    """The published scheme: fixed offsets back from the current frame, clamped to the first.

    Ctrl-World's policy rollouts use frame 0 and -12, -9, -6, -3 (in units of its frames).
    ``stride`` frames lie between the slots; the first frame always fills one.
    """

    stride: int = 4

    def __call__(self, past: np.ndarray, future: np.ndarray, slots: int) -> list[int]:
        current = len(past) - 1
        offsets = [max(current - self.stride * k, 0) for k in range(slots - 1, 0, -1)]
        return [i for i in sorted({0, *offsets}) if i < current][:slots]


@dataclass(frozen=True, kw_only=True)
class PublishedOffsets:
    """Ctrl-World's memory to the letter: a list that grows by one frame an interaction.

    offsets: as the release indexes that list. 0 is the first frame; -1 would be the current one,
        -2 the current frame one interaction ago. The list begins as 24 copies of the first frame,
        so offsets that reach further back show the first frame, more than once if need be.
    every: frames an interaction.
    """

    offsets: tuple[int, ...] = (0, 0, -8, -6, -4, -2)
    every: int = 4

    def __post_init__(self) -> None:
        if self.every < 1 or any(offset > 0 for offset in self.offsets):
            raise ConfigError(
                f"offsets are {self.offsets} and every is {self.every}; expected offsets of 0 or "
                "less and every of 1 or more"
            )

    def __call__(self, past: np.ndarray, future: np.ndarray, slots: int) -> list[int]:
        current = len(past) - 1
        return [
            max(current + (offset + 1) * self.every, 0) if offset else 0
            for offset in self.offsets[-slots:]
        ]


@dataclass(frozen=True, kw_only=True)
class PoseRetrieval:
    """The first frame, some recency, and past frames whose poses are nearest to those to come.

    recent: how many frames back the one recency slot looks.
    min_gap: nearest frames must be at least this many frames older than the current one (closer
        ones add nothing to the current frame) and this far from each other.
    gripper_weight: weight of each gripper in the distance.
    grippers: places of the grippers in the pose.
    """

    recent: int = 4
    min_gap: int = 4
    gripper_weight: float = 0.15
    grippers: tuple[int, ...] = (-1,)

    def __call__(self, past: np.ndarray, future: np.ndarray, slots: int) -> list[int]:
        current = len(past) - 1
        if current < 1 or slots < 1:
            return []
        chosen = [0]
        recent = current - self.recent
        if slots > 1 and recent > 0:
            chosen.append(recent)
        weight = np.ones(past.shape[1])
        weight[list(self.grippers)] = self.gripper_weight
        # distance to the nearest of the poses to come, (n,)
        distance = (np.abs(past[:, None] - future[None]) ** 2 @ weight).min(axis=1)
        for candidate in np.argsort(distance, kind="stable"):
            if len(chosen) >= slots:
                break
            index = int(candidate)
            if index > current - self.min_gap:
                continue
            if all(abs(index - other) >= self.min_gap for other in chosen):
                chosen.append(index)
        return sorted(chosen)


STRATEGIES: dict[str, Strategy] = {
    "none": nothing,
    "strided": StridedOffsets(),
    "pose": PoseRetrieval(),
    "published": PublishedOffsets(),
    "published-policy": PublishedOffsets(offsets=(0, 0, -12, -9, -6, -3)),
}


def strategy(name: str, robot: RobotSpec | None = None) -> Strategy:
    """A strategy by name, for the poses of ``robot``; None: of one whose gripper is the last
    number. Raises ConfigError naming the known ones."""
    if name not in STRATEGIES:
        raise ConfigError(
            f"memory strategy {name!r} is unknown, expected one of {list(STRATEGIES)}"
        )
    found = STRATEGIES[name]
    if robot is not None and isinstance(found, PoseRetrieval):
        return replace(found, grippers=robot.pose_grippers)
    return found


def retrieve(
    choose: Strategy, past: np.ndarray, future: np.ndarray, slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (M,) int64 into ``past`` and validity (M,) bool; empty slots point at 0.

    past: (n, P) normalised poses, the last one current. future: (T, P).
    """
    chosen = choose(past, future, slots)
    indices = np.zeros(slots, np.int64)
    valid = np.zeros(slots, bool)
    start = slots - len(chosen)  # right-aligned: the most recent memory sits beside the present
    indices[start:] = chosen
    valid[start:] = True
    return indices, valid


class MemoryBank:
    """Everything one rollout has seen, as latents with their poses.

    Latents are (V, C, h, w) tensors in float32 (6 KiB per frame in the embedded world, 135 KiB at
    full size), in one block that doubles when it is full: thousands of small pieces would fragment
    the heap. Rounding them would come back at every chunk of a long rollout.
    """

    def __init__(self) -> None:
        self._count = 0
        self._latents = torch.empty(0)
        self._poses = np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return self._count

    def add(self, latent: torch.Tensor, pose: np.ndarray) -> None:
        """Append one frame: its latent and its physical pose (P,)."""
        n = self._count
        if n == len(self._poses):
            room = max(64, 2 * n)
            latents = torch.empty((room, *latent.shape))
            poses = np.empty((room, len(pose)), np.float32)
            if n:
                latents[:n], poses[:n] = self._latents, self._poses
            self._latents, self._poses = latents, poses
        self._latents[n], self._poses[n] = latent, pose
        self._count = n + 1

    def upto(self, count: int) -> MemoryBank:
        """A bank of its own with the first ``count`` frames. It shares their block, which is only
        ever written behind them, and moves to one of its own with the first frame that it adds."""
        bank = MemoryBank()
        bank._count = count
        bank._latents, bank._poses = self._latents[:count], self._poses[:count]
        return bank

    @property
    def poses(self) -> np.ndarray:
        """(n, P) physical poses, the last one current."""
        return self._poses[: self._count]

    def latent(self, index: int) -> torch.Tensor:
        return self._latents[: self._count][index]
