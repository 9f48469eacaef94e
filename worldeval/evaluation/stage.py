"""Where policies act and from which start states: the options that all verbs with rollouts share.

Enters: options of the command line, URIs of policies, an output folder. Leaves: a ``Stage``, whose
world is open and whose policies are loaded and known to fit, and run.json in the folder, which
refuses to mix rollouts of different settings. Whoever rolls out, the folder looks the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from worldeval import shipped
from worldeval.evaluation.opening import IMAGINATION, ImaginationOptions
from worldeval.evaluation.policy_options import PolicyOptions, close_policies

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.motion.adapters import Adapter
    from worldeval.rollout.suite import Suite
    from worldeval.types import Policy, World


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Where to act, and from which start states."""

    world: str = IMAGINATION
    """Where to act: imagination (the world model), metaworld (the simulator), toy (a test), or a
    world of your own: the name of its entry point worldeval.worlds, or module:attr."""
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
    guard: Annotated[PolicyOptions, tyro.conf.arg(name="")] = field(default_factory=PolicyOptions)
    batch: int = 8
    """Rollouts at once; changes the speed, not the results."""
    threads: int = 2
    """Cores that torch may use."""

    def open(self, out: Path, uris: Sequence[str], verb: Any) -> Stage:
        """Open the world, load the policies, and begin or go on in ``out``.

        verb: the options as given, for run.json. Raises what does not fit together before anything
        is rolled out.
        """
        from worldeval.data.provenance import MANIFEST, read_manifest, write_manifest
        from worldeval.evaluation.opening import (
            adapter_of,
            fingerprint,
            fingerprints,
            open_world,
            set_threads,
            world_content,
        )
        from worldeval.policies.content import policy_content
        from worldeval.rollout.fit import check_fit, check_names

        self.guard.check()
        set_threads(self.threads)
        out = out.absolute()  # whatever a policy does to the working folder
        suite = self._suite().subset(self.task or None, self.per_task)
        if self.chunks is not None:
            suite = replace(suite, chunks=self.chunks)
        world = open_world(self.world, self.imagination)
        adapter = adapter_of(world.robot, self.imagination)
        policies: list[Policy] = []
        try:
            for uri in uris:  # all are checked before the first begins
                policies.append(self.guard.open(uri, world.robot))
                check_fit(world, policies[-1], suite)
            check_names(uris, policies)
        except BaseException:
            close_policies(policies)
            raise
        imagined = self.world == IMAGINATION
        config = {
            "world": self.world,
            "imagination": self.imagination if imagined else None,
            "world_model": fingerprint(str(self.imagination.folder)) if imagined else None,
            "suite": {"name": suite.name, "chunks": suite.chunks, "seed": suite.seed},
            "policies": fingerprints(uris),
            "policy_names": {p.spec.name: uri for uri, p in zip(uris, policies, strict=True)},
        }
        content = {f"policy {uri}": policy_content(uri, but=out) for uri in uris}
        # Policies and start states may be added later. A folder that does not say which policy
        # had which name cannot tell a new one from an old one of the same name: it stays as it is.
        began = read_manifest(out)["config"] if (out / MANIFEST).exists() else config
        named = "policy_names" in began
        write_manifest(
            out,
            command="rollout",
            config=config,
            seed=suite.seed,
            extra={"options": verb, "starts": len(suite.starts)},
            content=content | world_content(self.world, self.imagination),
            allow_changes=("suite.name",) if named else ("suite.name", "policy_names"),
            grows={"policies": "policy ", "policy_names": "name "} if named else None,
        )
        return Stage(
            world=world, adapter=adapter, policies=tuple(policies), suite=suite, folder=out
        )

    def _suite(self) -> Suite:
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.imagination.replay import suite_of
        from worldeval.rollout.suite import Suite

        starts = self.imagination.starts
        if self.suite is None and starts is not None:
            store = EpisodeStore.open(starts)
            return suite_of(store, chunks=10, name=store.root.name)
        return Suite.load(self.suite or shipped.path(shipped.SUITE))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All that a rollout needs, ready."""

    world: World
    adapter: Adapter
    policies: tuple[Policy, ...]
    suite: Suite
    folder: Path
    places: Mapping[str, Path] = field(default_factory=dict)
    """Policy -> folder of its rollouts, where each has one of its own."""

    def place(self, policy: str) -> Path:
        """The folder of this policy's rollouts."""
        return self.places.get(policy, self.folder)

    def store(self, place: Path | None = None) -> EpisodeStore:
        """The store of rollouts in ``place`` (the stage's folder), opened for writing."""
        from worldeval.rollout.recording import open_rollouts

        return open_rollouts(place or self.folder, self.world.robot)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        close_policies(self.policies)
        self.world.close()

    def keep_truth(self, table: pd.DataFrame) -> None:
        """Write what the world knows of its rollouts (``rollout_table``), if it knows anything:
        the table that `worldeval rank --against` takes."""
        from worldeval.data.tables import DECIDED
        from worldeval.evaluation.folder import TRUTH, write_table

        known = int(table["outcome"].isin(DECIDED).sum())
        if known:
            write_table(table, self.folder / TRUTH)
            print(f"{known} outcomes in {self.folder / TRUTH}")
