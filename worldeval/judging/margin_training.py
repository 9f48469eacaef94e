"""Trains a margin judge on frames of which the distance to success is known, or at least its sign.

Enters: episode stores with true outcomes, frame by frame. Leaves, in ``out``: the judge's
checkpoint, calibrated, with the files of ``training.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worldeval.data.store.episodes import EpisodeStore
from worldeval.judging.margin import MARGINS, SOFTNESS, MarginJudge
from worldeval.judging.network import JudgeConfig
from worldeval.judging.samples import Batch
from worldeval.judging.training import JudgeTrainConfig, train_learned
from worldeval.judging.validation import JudgeReport
from worldeval.robots import RobotSpec

HUBER_BETA = 0.1


@dataclass(frozen=True, kw_only=True)
class MarginTrainConfig(JudgeTrainConfig):
    """How a margin judge is trained: as a classifier, with more frames near the limit."""

    solved_share: float = 0.4
    border_share: float = 0.5
    """Draws from frames near the limit of success, on either side, where distances are known."""
    regression_weight: float = 2.0
    """Of the error of the margin against the logistic loss of its sign."""
    stride: int = 1
    smooth: int = 2


def train_margin(
    config: JudgeConfig,
    out: str | Path,
    *,
    training: MarginTrainConfig,
    stores: Sequence[EpisodeStore],
    validation: Sequence[EpisodeStore],
    instructions: Mapping[str, Sequence[str]] | None = None,
    opposed: Mapping[str, str] | None = None,
    robot: RobotSpec | None = None,
    progress: bool = True,
) -> JudgeReport:
    """Train (or go on training) the margin judge in ``out``; the rest as of ``train_judge``."""

    def loss(margin: Tensor, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        holds = torch.from_numpy(batch.holds).to(margin.device)
        value = F.binary_cross_entropy_with_logits(margin / SOFTNESS, holds)
        wanted = torch.from_numpy(np.clip(batch.margins, *MARGINS)).to(margin.device)
        known = torch.isfinite(wanted)
        report = {"accuracy": ((margin > 0) == (holds > 0.5)).float().mean().item()}
        if known.any():
            # Beyond the ends all margins are one and the same: no pull back from there.
            seen = margin[known].clamp(*MARGINS)
            off = F.smooth_l1_loss(seen, wanted[known], beta=HUBER_BETA)
            value = value + training.regression_weight * off
            report["margin_off"] = (seen - wanted[known]).abs().mean().item()
        return value, report

    return train_learned(
        MarginJudge,
        loss,
        replace(config, outputs=1),
        out,
        training=training,
        stores=stores,
        validation=validation,
        instructions=instructions,
        opposed=opposed,
        robot=robot,
        progress=progress,
    )
