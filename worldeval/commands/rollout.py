"""``worldeval rollout``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.evaluation.execution.options import ExecutionOptions
from worldeval.evaluation.stage import StageOptions


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Run policies from a suite's start states in a world.

    Writes a store of episodes (LeRobotDataset v3.0) with run.json beside it; the same command again
    skips the rollouts that are there.

    For example:
      worldeval rollout --policy checkpoints/policies/full --out runs/mine
      worldeval rollout --policy random --policy python:mine.py:Mine?speed=2 \\
          --world metaworld --per-task 5 --out runs/truth
      worldeval rollout --policy checkpoints/policies/full --workers 4 --out runs/mine
      worldeval rollout --world-model runs/ctrl-world --starts recordings/droid \\
          --action-space joint_velocity --policy openpi://localhost:8000 --out runs/pi
    """

    policy: tyro.conf.UseAppendAction[tuple[str, ...]]
    """What acts; repeat it for several. A checkpoint folder, random, zero, keyboard,
    replay:STORE, lerobot:FOLDER, openpi://, roboarena://, groot:// or http://HOST:PORT, or
    python:FILE.py:CLASS?argument=value."""
    out: Path
    """Folder to write the rollouts to."""
    config: Path | None = None
    """A run.json, whose options are taken where this command line gives none; what may be given
    several times is added to what stands there."""
    execution: Annotated[ExecutionOptions, tyro.conf.arg(name="")] = field(
        default_factory=ExecutionOptions
    )
    stage: Annotated[StageOptions, tyro.conf.arg(name="")] = field(default_factory=StageOptions)

    def run(self) -> None:
        from worldeval.evaluation.execution.mirroring import mirrored
        from worldeval.evaluation.rolling import roll_out
        from worldeval.evaluation.tracked import tracked

        self.execution.check()
        head = not self.execution.alone
        with (
            mirrored(self.out, self.execution.mirror),
            self.stage.open(self.out, self.policy, self, only_head=head) as stage,
            tracked(self.out, self.execution) as shown,
        ):
            roll_out(stage, self.stage.batch, execution=self.execution)
            shown.show_rates()
