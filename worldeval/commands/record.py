"""``worldeval record``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.worlds.record import RecordConfig


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record episodes in Meta-World: experts, noisy and failing experts, random motion.

    Start states of the splits training, validation and evaluation are disjoint. An interrupted
    recording goes on where it stopped; a larger --episodes-per-task extends it.

    For example:
      worldeval record --out recordings/training
      worldeval record --split validation --episodes-per-task 10 --out recordings/validation
    """

    out: Path
    """Folder of the store to write (LeRobotDataset v3.0)."""
    config: Annotated[RecordConfig, tyro.conf.arg(name="")] = field(default_factory=RecordConfig)

    def run(self) -> None:
        from worldeval.data.bounds import outside_bounds
        from worldeval.data.provenance import write_manifest
        from worldeval.worlds.record import record
        from worldeval.worlds.sawyer import ROBOT

        growing = ("tasks", "episodes_per_task", "first_index", "workers")
        write_manifest(
            self.out,
            command="record",
            config=self.config,
            seed=self.config.seed,
            allow_changes=growing,
        )
        store = record(self.config, self.out)
        for told in outside_bounds(store, ROBOT) if len(store) else ():
            print(f"worldeval: {told}", file=sys.stderr)
        print(f"{self.out}: {len(store)} episodes")
