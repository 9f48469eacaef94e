"""``worldeval rollout``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from worldeval import shipped
from worldeval.commands.opening import ImaginationOptions, WorldName

if TYPE_CHECKING:
    from worldeval.rollout.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Run policies from a suite's start states in a world.

    Writes a store of episodes (LeRobotDataset v3.0) with run.json beside it; the same command again
    skips the rollouts that are there.

    For example:
      worldeval rollout --policy checkpoints/policies/expert --out runs/mine
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
    world: WorldName = "imagination"
    """Where to act: imagination (the world model), metaworld (the simulator), toy (a test)."""
    suite: Path | None = None
    """JSON file of the start states; if not given, every episode of --starts, or the shipped
    suite."""
    chunks: int | None = None
    """How many chunks long; as the suite says (10 without a suite), if not given."""
    task: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Only these tasks of the suite; repeat it for several. All, if not given."""
    per_task: int | None = None
    """Only the first so many start states of each task."""
    imagination: Annotated[ImaginationOptions, tyro.conf.arg(name="")] = field(
        default_factory=ImaginationOptions
    )
    batch: int = 8
    """Rollouts at once; changes the speed, not the results."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.commands.opening import (
            adapter_of,
            fingerprint,
            fingerprints,
            open_world,
            set_threads,
        )
        from worldeval.policies.loading import load_policy
        from worldeval.rollout.engine import check_fit, run
        from worldeval.rollout.provenance import write_manifest
        from worldeval.rollout.recording import open_rollouts
        from worldeval.rollout.table import rollout_table

        set_threads(self.threads)
        suite = self._suite().subset(self.task or None, self.per_task)
        if self.chunks is not None:
            suite = replace(suite, chunks=self.chunks)
        world = open_world(self.world, self.imagination)
        adapter = adapter_of(world.robot, self.imagination)
        policies = [load_policy(uri, world.robot) for uri in self.policy]
        for policy in policies:  # all are checked before the first begins
            check_fit(world, policy, suite)
        imagined = self.world == "imagination"
        config = {
            "world": self.world,
            "imagination": self.imagination if imagined else None,
            "world_model": fingerprint(str(self.imagination.folder)) if imagined else None,
            "suite": {"name": suite.name, "chunks": suite.chunks, "seed": suite.seed},
            "policies": fingerprints(self.policy),
        }
        write_manifest(
            self.out, command="rollout", config=config, seed=suite.seed, extra={"options": self}
        )
        with open_rollouts(self.out, world.robot) as store:
            for policy in policies:
                print(run(world, policy, suite, store, batch=self.batch, adapter=adapter))
                policy.close()
            table = rollout_table(store)
        world.close()
        known = int(table["outcome"].isin(["success", "failure"]).sum())
        if known:  # the world knows what happened: the table that `worldeval rank --real` takes
            from worldeval.commands.verdicts import TRUTH, write_table

            write_table(table, self.out / TRUTH)
            print(f"{known} outcomes in {self.out / TRUTH}")

    def _suite(self) -> Suite:
        from worldeval.data.episodes import EpisodeStore
        from worldeval.imagination.replay import suite_of
        from worldeval.rollout.suite import Suite

        starts = self.imagination.starts
        if self.suite is None and starts is not None:
            store = EpisodeStore.open(starts)
            return suite_of(store, chunks=10, name=store.root.name)
        return Suite.load(self.suite or shipped.path(shipped.SUITE))
