"""``worldeval rollout``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.errors import PolicyError
from worldeval.evaluation.policy_options import tell
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
      worldeval rollout --world-model runs/ctrl-world --starts recordings/droid \\
          --action-space joint_velocity --policy openpi://localhost:8000 --out runs/pi
    """

    policy: tyro.conf.UseAppendAction[tuple[str, ...]]
    """What acts; repeat it for several. A checkpoint folder, random, zero, keyboard,
    replay:STORE, openpi://HOST:PORT, roboarena://HOST:PORT, or
    python:FILE.py:CLASS?argument=value."""
    out: Path
    """Folder to write the rollouts to."""
    stage: Annotated[StageOptions, tyro.conf.arg(name="")] = field(default_factory=StageOptions)

    def run(self) -> None:
        from worldeval.rollout.engine import run
        from worldeval.rollout.table import rollout_table

        batch = self.stage.batch
        failed: list[PolicyError] = []
        with self.stage.open(self.out, self.policy, self) as stage, stage.store() as store:
            for policy in stage.policies:
                try:
                    report = run(
                        stage.world,
                        policy,
                        stage.suite,
                        store,
                        batch=batch,
                        adapter=stage.adapter,
                    )
                except PolicyError as error:  # it never worked; the others still can
                    failed.append(error)
                    if len(stage.policies) > 1:
                        tell(str(error))
                else:
                    print(report, flush=True)
            table = rollout_table(store)
        stage.keep_truth(table)
        if failed:
            raise PolicyError(
                f"{len(failed)} of {len(stage.policies)} policies gave no rollouts, "
                f"the others are in {self.out}; the first said: {failed[0]}"
                if len(stage.policies) > 1
                else str(failed[0])
            )
