"""``worldeval train population``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class TrainPopulation:
    """Make a population of truly different policies to train and to test a ranking on.

    Networks of several families (policies/cloning/families.py), with little and much data, and
    faults of them: half speed, a weak grip, late or missing pictures ... Whole families have one
    role each: training, validation or reported. Writes population.json with the name, family, role
    and URI of each. An interrupted training goes on where it stopped.

    For example:
      worldeval train population --store recordings/training --out runs/population
      worldeval train population --store recordings/training --out runs/look --steps-factor 0.05
    """

    store: Path
    """Store of demonstrations with experts' actions (worldeval record)."""
    out: Path
    """Folder of the population."""
    role: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """training, validation or reported; repeat it for several. All, if it is not given."""
    steps_factor: float = 1.0
    """Factor on every training length, for a quick look."""
    threads: int = 1
    """Threads that train."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""

    def run(self) -> None:
        from worldeval.data import origin
        from worldeval.data.provenance import write_manifest
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.policies.population import ROLES, train_population
        from worldeval.worlds.named import robot_of_store

        robot = robot_of_store(EpisodeStore.open(self.store), self.robot)
        write_manifest(
            self.out,
            command="train population",
            config=self,
            seed=None,
            content=origin.told_inputs(self.store),
            allow_changes=("role", "threads"),
        )
        for member in train_population(
            self.store,
            self.out,
            robot,
            roles=self.role or ROLES,
            steps_factor=self.steps_factor,
            threads=self.threads,
        ):
            print(f"{member.role:10} {member.family:18} {member.name:26} {member.uri}")
