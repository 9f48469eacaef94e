"""``worldeval train path``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from worldeval.commands.train_judge import JudgeTraining
from worldeval.judging.path_training import PathTrainConfig, train_path

if TYPE_CHECKING:
    from worldeval.judging.network import JudgeConfig
    from worldeval.judging.validation import JudgeReport


@dataclass(frozen=True, kw_only=True)
class TrainPath(JudgeTraining):
    """Train the path judge: a margin judge that has watched the whole rollout and the hand's path.

    What a margin judge sees in single frames stays as it is; a recurrent network learns what the
    succession of them and the hand's motion tell beyond that. Imagined episodes with known outcome
    teach it most: there the motion is truer than the picture.

    For example:
      worldeval train path --margin runs/margin --store recordings/training \\
          --store runs/replays/labelled --validation recordings/validation --out runs/path
      worldeval judge runs/mine --judge runs/path
    """

    margin: Path
    """Checkpoint of `worldeval train margin`."""
    config: Annotated[PathTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=PathTrainConfig
    )

    def run(self) -> None:
        def train(
            network: JudgeConfig, out: Path, *, instructions: Any, opposed: Any, **rest: Any
        ) -> JudgeReport:
            return train_path(self.margin, out, **rest)

        self.train(train, "train path", self.config)
