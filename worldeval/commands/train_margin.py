"""``worldeval train margin``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from worldeval.commands.train_judge import JudgeTraining
from worldeval.judging.margin_training import MarginTrainConfig, train_margin


@dataclass(frozen=True, kw_only=True)
class TrainMargin(JudgeTraining):
    """Train the margin judge: how near each frame is to success, in units of its limit.

    It learns from the distance behind the flag of success, where a world knows it (episodes of
    `worldeval record`, rollouts in Meta-World), and elsewhere from the flag alone. It is calibrated
    on the validation stores and gives verdicts as `train judge`'s does.

    For example:
      worldeval train margin --store recordings/training --store runs/replays/labelled \\
          --validation recordings/validation --out runs/margin
      worldeval judge runs/mine --judge runs/margin
    """

    config: Annotated[MarginTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=MarginTrainConfig
    )

    def run(self) -> None:
        self.train(train_margin, "train margin", self.config)
