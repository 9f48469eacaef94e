"""``worldeval train progress``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from worldeval.commands.train_judge import JudgeTraining
from worldeval.judging.progress_training import ProgressTrainConfig, train_progress


@dataclass(frozen=True, kw_only=True)
class TrainProgress(JudgeTraining):
    """Train the progress judge: at every frame, how many frames are missing to success.

    It learns from episodes of every outcome: of one that failed it is only known that the end was
    too early. It is calibrated on the validation stores and gives verdicts as `train judge`'s does.

    For example:
      worldeval train progress --store recordings/training --store runs/replays/labelled \\
          --validation recordings/validation --out runs/progress
      worldeval judge runs/mine --judge runs/progress
    """

    config: Annotated[ProgressTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=ProgressTrainConfig
    )

    def run(self) -> None:
        self.train(train_progress, "train progress", self.config)
