"""``worldeval train progress``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.judging.progress_training import ProgressTrainConfig, train_progress


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Train the progress judge: at every frame, how many frames are missing to success.

    It learns from episodes of every outcome: of one that failed it is only known that the end was
    too early. It is calibrated on the validation stores and gives verdicts as `train judge`'s does.

    For example:
      worldeval train progress --store recordings/training --store runs/replays/labelled \\
          --validation recordings/validation --out runs/progress
      worldeval judge runs/mine --judge runs/progress
    """

    store: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of episodes with known outcome; repeat it for several."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of other episodes, to calibrate on; repeat it for several."""
    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""
    config: Annotated[ProgressTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=ProgressTrainConfig
    )

    def run(self) -> None:
        from worldeval.commands.train_judge import train_on_stores

        train_on_stores(
            train_progress,
            command="train progress",
            verb=self,
            stores=self.store,
            validation=self.validation,
            out=self.out,
            robot=self.robot,
            training=self.config,
        )
