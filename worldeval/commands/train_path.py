"""``worldeval train path``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from worldeval.judging.path_training import PathTrainConfig, train_path

if TYPE_CHECKING:
    from worldeval.judging.network import JudgeConfig
    from worldeval.judging.validation import JudgeReport


@dataclass(frozen=True, kw_only=True)
class TrainPath:
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
    store: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of episodes with known outcome; repeat it for several."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of other episodes, to calibrate on; repeat it for several."""
    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""
    config: Annotated[PathTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=PathTrainConfig
    )

    def run(self) -> None:
        from worldeval.commands.train_judge import train_on_stores

        def train(
            network: JudgeConfig, out: Path, *, instructions: Any, opposed: Any, **rest: Any
        ) -> JudgeReport:
            return train_path(self.margin, out, **rest)

        train_on_stores(
            train,
            command="train path",
            verb=self,
            stores=self.store,
            validation=self.validation,
            out=self.out,
            robot=self.robot,
            training=self.config,
        )
