"""``worldeval diagnose``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.evaluation.opening import ImaginationOptions


@dataclass(frozen=True, kw_only=True)
class Diagnose:
    """How diverse a dataset is, how fragmented its sources, and what a policy makes of it.

    Works on any store of episodes, recorded, rolled out or synthetic. With --policy the policy is
    rolled out in imagination from the dataset's start states with the instruction swapped, each
    view hidden, the arm moved: what it should notice, and may not. Writes diagnosis.json and
    report.html.

    For example:
      worldeval diagnose recordings/training --out runs/diagnosis
      worldeval diagnose runs/synthetic/dataset --policy runs/mine --out runs/diagnosis
    """

    dataset: tyro.conf.Positional[Path]
    """The store of episodes to look at."""
    out: Path
    """Folder to write to."""
    policy: str | None = None
    """A policy, as for `worldeval rollout`, to be tried with one thing changed at a time."""
    judge: str | None = None
    """Who judges these rollouts, as for `worldeval judge`; the shipped judge, if not given."""
    per_task: int = 2
    """Start states of each task for them."""
    chunks: int = 8
    """How long they are."""
    imagination: Annotated[ImaginationOptions, tyro.conf.arg(name="")] = field(
        default_factory=ImaginationOptions
    )
    batch: int = 16
    """Rollouts at once."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.synthesis.diagnosis.diagnose import diagnose

        report = diagnose(
            self.dataset,
            out=self.out,
            policy=self.policy,
            judge=self.judge,
            options=self.imagination,
            per_task=self.per_task,
            chunks=self.chunks,
            batch=self.batch,
            threads=self.threads,
        )
        print(f"{report!r}\n\n{self.out / 'report.html'}")
