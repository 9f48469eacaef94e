"""``MarginJudge``: how near each frame is to success, in units of what still counts as success.

Enters: episodes. Leaves: a graded score for every frame and verdicts. The network (``network.py``)
answers one number per frame, the margin::

    m = log(limit / distance)      (0: exactly at the limit; positive: success; -0.7: twice too far)

learned from worlds that know the distance behind their flag (of a handle, a puck, the fingertips
to where they should be), and, where only the flag is known, from its sign alone, by logistic
regression on m / SOFTNESS. A picture that is a centimetre from success is then something else than
one that is far from it, which a flag does not teach. The score of a rollout is the highest moving
average of m / SOFTNESS; it is calibrated as the classifier's.
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
from worldeval.judging.learned import LearnedJudge, rollout_score
from worldeval.judging.network import JudgeConfig
from worldeval.judging.samples import Batch
from worldeval.judging.training import JudgeTrainConfig, train_learned
from worldeval.judging.validation import JudgeReport
from worldeval.robots import RobotSpec
from worldeval.types import Episode

SOFTNESS = 0.25
"""Margin at which the odds are e to 1."""
MARGINS = (-1.6, 0.8)
"""Margins beyond these are all the same: five times too far is far."""
HUBER_BETA = 0.1


class MarginJudge(LearnedJudge):
    """A judge of the checkpoint kind "margin-judge", which ``train_margin`` makes."""

    kind = "margin-judge"
    title = "margin-judge"

    def margins(self, episode: Episode) -> np.ndarray:
        """log(limit / distance) as seen in every frame, (T+1,) float32."""
        return self.outputs(episode, np.arange(episode.length)).astype(np.float32)

    def score_of(self, outputs: np.ndarray) -> float:
        return rollout_score(outputs / SOFTNESS, self.smooth)

    def note(self, outputs: np.ndarray, times: np.ndarray) -> str:
        best = int(np.argmax(outputs))
        ratio = float(np.exp(-np.clip(outputs[best], *MARGINS)))
        return f"nearest at frame {times[best]}: {ratio:.2f} of the distance that is a success"


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
