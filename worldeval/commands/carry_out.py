"""``worldeval carry-out``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class CarryOut:
    """Carry the actions of imagined rollouts out in a true world, and label them by what comes.

    The labelled rollouts are what a judge of imagined rollouts is measured on (its verdict against
    what the imagined actions truly do) and trained on.

    For example:
      worldeval rollout --policy checkpoints/policies/full --out runs/mine
      worldeval carry-out runs/mine --out runs/carried
      worldeval train path --margin runs/margin --store runs/carried/labelled \\
          --validation runs/other/labelled --out runs/path
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder of imagined rollouts."""
    out: Path
    """Folder to write `carried` (what came of the actions) and `labelled` (the imagined rollouts
    with that as their outcome) to; the same command again goes on."""
    world: str = "metaworld"
    """World to carry them out in: a name or module:attr."""
    batch: int = 8
    """Rollouts at once."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.data import digests
        from worldeval.data.provenance import write_manifest
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.errors import ConfigError
        from worldeval.evaluation.opening import IMAGINATION, open_world, set_threads
        from worldeval.imagination.carrying import carry_out

        set_threads(self.threads)
        imagined = EpisodeStore.open(self.run_dir)
        if self.world == IMAGINATION:
            raise ConfigError("world is imagination, expected one that knows what comes of actions")
        world = open_world(self.world)
        write_manifest(
            self.out,
            command="carry-out",
            config={"run": self.run_dir, "world": self.world},
            seed=0,
            extra={"options": self},
            content=digests.of_inputs(self.run_dir),
        )
        labelled = carry_out(imagined, world, self.out, batch=self.batch)
        table = labelled.metadata()
        solved = int(table["success"].astype(bool).sum())
        print(f"{labelled.root}: {len(table)} imagined rollouts, {solved} truly succeed")
