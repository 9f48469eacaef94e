"""A world for the tests of trust: both views show a bright square where the hand should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.world_model.test_model import robot
from worldeval.data.store.episodes import EpisodeStore
from worldeval.imagination.trust.inverse_dynamics import InverseDynamicsConfig
from worldeval.imagination.trust.inverse_dynamics_training import InverseDynamicsTrainConfig
from worldeval.judging.augmentation import AugmentConfig
from worldeval.learning.config import LoopConfig
from worldeval.rollout.recording import open_rollouts
from worldeval.types import Episode

CONFIG = InverseDynamicsConfig(
    robot="test",
    views=("top", "wrist"),
    pose_names=("x", "y", "z", "grip"),
    image_size=(16, 16),
    widths=(16, 16, 16),
    hidden=48,
)


def training(steps: int = 150) -> InverseDynamicsTrainConfig:
    loop = LoopConfig(
        steps=steps,
        batch=48,
        learning_rate=4e-3,
        warmup=10,
        schedule="cosine",
        threads=1,
        ema=0.0,
        device="cpu",
    )
    still = AugmentConfig(shift_px=0, colour=0.0, drift=0.0, blur=0.0, noise=0.01, chroma=0.0)
    return InverseDynamicsTrainConfig(loop=loop, augmentation=still)


def draw(poses: np.ndarray) -> np.ndarray:
    """Frames (T, 2, 16, 16, 3) of poses (T, 4): column from x, row from y, colour from z and grip;
    the second view is mirrored."""
    column, row = 8 + 20 * poses[:, 0], 8 + 20 * (poses[:, 1] - 0.6)
    grid = np.arange(16)
    across = np.clip(2.5 - np.abs(grid - column[:, None]), 0, 1)
    down = np.clip(2.5 - np.abs(grid - row[:, None]), 0, 1)
    blob = down[:, :, None] * across[:, None, :]
    colour = np.stack([np.ones(len(poses)), poses[:, 2] / 0.4, (poses[:, 3] + 1) / 2], -1)
    view = 40 + 180 * blob[..., None] * colour[:, None, None]
    return np.stack([view, view[:, :, ::-1]], 1).astype(np.uint8)


def walk(seed: int, frames: int = 17) -> tuple[np.ndarray, np.ndarray]:
    """Actions (T, S, A) and poses (T+1, P) of a hand that wanders smoothly."""
    rng = np.random.default_rng(seed)
    bends = rng.uniform(-1, 1, (-(-(frames - 1) // 4), 1, 4))
    actions = np.repeat(np.repeat(bends, 4, 0)[: frames - 1], 3, 1).astype(np.float32)
    start = rng.uniform([-0.2, 0.5, 0.1, -1], [0.2, 0.7, 0.3, 1]).astype(np.float32)
    poses = np.concatenate([start[None], robot(2).integrate(start, actions.reshape(-1, 4))])
    return actions, poses


def episode(number: int, *, name: str, poses_seen: np.ndarray | None = None, **extra) -> Episode:
    """poses_seen: where the square really is, if not where the hand is commanded to be."""
    actions, poses = walk(number)
    return Episode(
        key=name,
        task="t",
        instruction="go",
        views=("top", "wrist"),
        frames=draw(poses if poses_seen is None else poses_seen),
        poses=poses,
        actions=actions,
        extra=extra,
    )


def recorded(root: Path, seeds: range) -> EpisodeStore:
    with open_rollouts(root, robot(2), images="lossless") as store:
        for seed in seeds:
            name = f"s{seed}"
            store.append(episode(seed, name=name, start_id=name, seed=seed, split="x"))
    return EpisodeStore.open(root)
