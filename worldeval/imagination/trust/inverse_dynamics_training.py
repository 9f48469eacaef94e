"""Training of the inverse dynamics on true frames.

Enters: stores of recorded episodes. Leaves: an ``InverseDynamics`` network, and metrics and a state
to go on from (``learning/loop.py``). Only true frames are learned from: a network that had seen
imagined ones would learn to excuse them. They are made a little noisy, blurred and poor in colour
instead (``judging/augmentation.py``), as any frame is that passed a codec.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import to_model
from worldeval.errors import DataError
from worldeval.imagination.trust.inverse_dynamics import (
    InverseDynamics,
    InverseDynamicsConfig,
    pose_difference,
)
from worldeval.judging.augmentation import AugmentConfig, augment
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.world_model.clips import load_frames


@dataclass(frozen=True, kw_only=True)
class InverseDynamicsTrainConfig:
    """How the inverse dynamics is trained."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1000,
            batch=64,
            learning_rate=2e-3,
            warmup=100,
            schedule="cosine",
            weight_decay=0.02,
            ema=0.0,
        )
    )
    augmentation: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            # A shifted picture would be of another pose.
            shift_px=0, colour=0.05, drift=0.02, blur=0.5, noise=0.02, chroma=0.7
        )
    )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """What must be equal for a training to be the same one."""
        values = json.loads(json.dumps(asdict(self)))
        del values["loop"]
        return {**values, **self.loop.identity()}


def train_inverse_dynamics(
    config: InverseDynamicsConfig,
    out: str | Path,
    *,
    training: InverseDynamicsTrainConfig,
    stores: Sequence[EpisodeStore],
    progress: bool = True,
) -> InverseDynamics:
    """Train (or go on training) with metrics and state in ``out``/training; the network.

    All decoded frames are held in memory (2 GB for 1400 episodes of 41 frames and three views of
    64 pixels). Raises DataError for stores without an episode of two frames.
    """
    draws = _Draws(stores, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.loop.seed)
        network = InverseDynamics(config)
    draws.fit_spread(network)
    settings = {**asdict(config), **training.identity()}
    loop = Loop(network, training.loop, Path(out) / "training", settings=settings)

    def loss(
        module: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([training.loop.seed, step])
        before, after = draws.pairs(training.loop.batch, rng)
        frames = np.stack([draws.frames(before), draws.frames(after)], 1)
        images = torch.from_numpy(to_model(frames)).to(loop.device)
        # ``augment`` spares the first moment (a rollout's true start), which no pair has.
        images = augment(torch.cat([images[:, :1], images], 1), training.augmentation, rng)[:, 1:]
        wanted = torch.from_numpy(network.targets(draws.poses[before], draws.poses[after]))
        answers = module(images).float()
        wanted = wanted.to(answers.device)[:, None].expand_as(answers)
        # Robust: an arm that hit its bound or a table is not where the command says.
        value = F.smooth_l1_loss(answers, wanted, beta=0.3)
        together = (answers[:, -1] - wanted[:, -1]).detach().abs().mean((0, 2))
        return value, {"pose_error": float(together[0]), "change_error": float(together[1])}

    loop.run(loss, title="inverse dynamics", progress=progress)
    network.load_state_dict(loop.averaged)
    return network.cpu().eval()


class _Draws:
    """Pairs of frames of one episode, 1 to a chunk apart, each distance equally often."""

    def __init__(self, stores: Sequence[EpisodeStore], config: InverseDynamicsConfig) -> None:
        tables = [load_frames(store) for store in stores if len(store)]
        lengths = np.concatenate([np.zeros(0, int), *(table.lengths for table in tables)])
        if not (lengths > 1).any():
            raise DataError(
                "there is no motion to read: the stores have no episode of two frames or more; "
                "record some"
            )
        self._most = config.most_frames
        self._first = (np.cumsum(lengths) - lengths)[lengths > 1]
        self._length = lengths[lengths > 1]
        self._orders = [
            [store.layout.views.index(view) for view in config.views]
            for store in stores
            if len(store)
        ]
        self._tables = [table.frames for table in tables]
        self._begins = np.cumsum([0, *(len(frames) for frames in self._tables)])
        self.poses = np.concatenate([table.poses for table in tables])

    def frames(self, rows: np.ndarray) -> np.ndarray:
        """Frames (N, V, H, W, C) of frame numbers (N,) over all stores."""
        of = np.searchsorted(self._begins, rows, side="right") - 1
        return np.stack(
            [
                self._tables[t][row - self._begins[t]][self._orders[t]]
                for t, row in zip(of, rows, strict=True)
            ]
        )

    def pairs(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (count,) of the earlier and the later frames."""
        episode = rng.integers(len(self._first), size=count)
        gap = rng.integers(1, np.minimum(self._most, self._length[episode] - 1) + 1)
        start = self._first[episode] + rng.integers(0, self._length[episode] - gap)
        return start, start + gap

    def fit_spread(self, network: InverseDynamics) -> None:
        """Centre and spread of the poses and their changes, over many draws."""
        names = network.config.pose_names
        before, after = self.pairs(20_000, np.random.default_rng(0))
        poses = self.poses[after].astype(np.float64)
        change = pose_difference(poses, self.poses[before], names)
        # Angles are averaged around one of them, lest those about half a turn cancel.
        around = pose_difference(poses, np.broadcast_to(poses[0], poses.shape), names)
        network.pose_centre.copy_(torch.from_numpy(poses[0] + around.mean(0)))
        network.pose_spread.copy_(torch.from_numpy(around.std(0).clip(1e-3)))
        network.change_spread.copy_(torch.from_numpy(change.std(0).clip(1e-4)))
