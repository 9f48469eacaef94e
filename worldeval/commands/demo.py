"""``worldeval demo``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.evaluation.opening import ImaginationOptions
from worldeval.evaluation.policy_options import PolicyOptions


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Rank the shipped policies inside the shipped world model, and compare with the truth.

    No policy is run on a robot or in a simulator; what truly happened was recorded beforehand.
    Writes leaderboard.json, videos (imagined above true) and report.html. An interrupted demo goes
    on when it is started again.

    For example:
      worldeval demo
      worldeval demo --policy python:my_policy.py:MyPolicy
      worldeval demo --full
    """

    out: Path = Path("runs/demo")
    """Folder to write to."""
    full: bool = False
    """All start states of the suite instead of a small selection; extends a short demo."""
    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A policy of yours to rank against the shipped ones; repeat it for several. A checkpoint
    folder, random, or python:FILE.py:CLASS?argument=value."""
    imagination: Annotated[ImaginationOptions, tyro.conf.arg(name="")] = field(
        default_factory=ImaginationOptions
    )
    guard: Annotated[PolicyOptions, tyro.conf.arg(name="")] = field(default_factory=PolicyOptions)
    batch: int = 8
    """Rollouts at once; changes the speed, not the results."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.evaluation.demo import DemoConfig, run_demo

        run_demo(
            DemoConfig(
                out=self.out,
                full=self.full,
                policies=self.policy,
                imagination=self.imagination,
                guard=self.guard,
                batch=self.batch,
                threads=self.threads,
            )
        )
