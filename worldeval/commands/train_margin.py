"""``worldeval train margin``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.judging.margin import MarginTrainConfig, train_margin


@dataclass(frozen=True, kw_only=True)
class TrainMargin:
    """Train the margin judge: how near each frame is to success, in units of its limit.

    It learns from the distance behind the flag of success, where a world knows it (episodes of
    `worldeval record`, rollouts in Meta-World), and elsewhere from the flag alone. It is calibrated
    on the validation stores and gives verdicts as `train judge`'s does.

    For example:
      worldeval train margin --store recordings/training --store runs/replays/labelled \\
          --validation recordings/validation --out runs/margin
      worldeval judge runs/mine --judge runs/margin
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
    config: Annotated[MarginTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=MarginTrainConfig
    )

    def run(self) -> None:
        from worldeval.commands.train_judge import train_on_stores

        train_on_stores(
            train_margin,
            command="train margin",
            verb=self,
            stores=self.store,
            validation=self.validation,
            out=self.out,
            robot=self.robot,
            training=self.config,
        )
