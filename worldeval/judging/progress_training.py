"""Trains a ``ProgressJudge``: from frames to a distribution of the distance to success.

Enters: episode stores with true outcomes, recorded and imagined. Leaves what ``training.py`` leaves
for the classifier, whose samples, loop and calibration are used: the judge's checkpoint,
``validation.json`` and ``validation.parquet``, and a training that goes on where it was killed.
Frames of successful episodes know their distance; frames of failures, and frames shown with the
words of an opposed task, only that it is further (``survival.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from worldeval.data.store.episodes import EpisodeStore
from worldeval.judging.network import JudgeConfig
from worldeval.judging.progress import ProgressJudge
from worldeval.judging.samples import Batch
from worldeval.judging.survival import DistanceBins, expected_distance, log_likelihood
from worldeval.judging.training import JudgeTrainConfig, train_learned
from worldeval.judging.validation import JudgeReport
from worldeval.robots import RobotSpec


@dataclass(frozen=True, kw_only=True)
class ProgressTrainConfig(JudgeTrainConfig):
    """How a progress judge is trained: as a classifier, but all distances matter."""

    solved_share: float = 0.3
    near_share: float = 0.25
    bins: tuple[int, ...] = DistanceBins().starts
    """First distance of each bin of frames to go; they begin with 0, 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        DistanceBins(starts=self.bins)


def train_progress(
    config: JudgeConfig,
    out: str | Path,
    *,
    training: ProgressTrainConfig,
    stores: Sequence[EpisodeStore],
    validation: Sequence[EpisodeStore],
    instructions: Mapping[str, Sequence[str]] | None = None,
    opposed: Mapping[str, str] | None = None,
    robot: RobotSpec | None = None,
    progress: bool = True,
) -> JudgeReport:
    """Train (or go on training) the progress judge in ``out`` and calibrate it.

    config: of the network; the number of outputs is that of the bins. The rest is as of
    ``training.train_judge``.
    """
    bins = DistanceBins(starts=training.bins)

    def loss(logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        value = -log_likelihood(logits, batch.distances, batch.known, bins).mean()
        expected = expected_distance(logits.detach().cpu().numpy(), bins)
        off = np.abs(expected - np.minimum(batch.distances, bins.horizon))[batch.known]
        return value, {"frames_off": float(off.mean()) if len(off) else 0.0}

    return train_learned(
        partial(ProgressJudge, bins=training.bins),
        loss,
        replace(config, outputs=bins.count),
        out,
        training=training,
        stores=stores,
        validation=validation,
        instructions=instructions,
        opposed=opposed,
        robot=robot,
        progress=progress,
    )
