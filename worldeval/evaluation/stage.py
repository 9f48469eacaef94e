"""Where policies act and from which start states: the options that all verbs with rollouts share.

Enters: options of the command line, URIs of policies, an output folder. Leaves: a ``Stage``, whose
world is open and whose policies are loaded and known to fit, and run.json in the folder, which
refuses to mix rollouts of different settings. Whoever rolls out, the folder looks the same.
"""

from __future__ import annotations

import os
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
    from worldeval.evaluation.controls import Controls
    from worldeval.evaluation.execution.parts import Planned
    from worldeval.evaluation.execution.worker import Recipe
    from worldeval.evaluation.given import Given, Opened
    from worldeval.motion.adapters import Adapter
    from worldeval.rollout.suite import Suite
    from worldeval.types import Policy, World


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Where to act, and from which start states."""

    world: str = IMAGINATION
    """Where to act: imagination (the world model), metaworld (the simulator), toy (a test),
    hybrid (the simulator acts, the world model draws), recorded:STORE (what was recorded),
    gym:ID?name=value (a gymnasium environment), ws://HOST:PORT (what `worldeval serve-world`
    serves), or a world of your own: the name of its entry point worldeval.worlds, or
    module:attr."""
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
    """Rollouts at once; changes the speed. In imagination another number may round otherwise in a
    few pixels."""
    threads: int = 2
    """Cores that torch may use. In imagination another number may round otherwise in a few
    pixels."""

    def open(
        self,
        out: Path,
        policies: Sequence[Given],
        verb: Any,
        *,
        controls: bool = False,
        seed: int | None = None,
        only_head: bool = False,
    ) -> Stage:
        """Open the world, load the policies, and begin or go on in ``out``.

        verb: the options as given, for run.json. controls: control policies too, where the world
        is imagined. seed: of all randomness; the suite's if None. only_head: workers will roll out,
        so no GPU is taken. Raises what does not fit together before anything is rolled out.
        """
        from worldeval.data.provenance import MANIFEST, read_manifest, write_manifest
        from worldeval.evaluation.opening import fingerprint, imagines, world_content

        stage, opened = self._opened(out, policies, controls, seed, only_head)
        suite, out = stage.suite, stage.folder
        imagined = imagines(self.world)
        try:
            config = {
                "world": self.world,
                "imagination": self.imagination if imagined else None,
                "world_model": fingerprint(str(self.imagination.folder)) if imagined else None,
                "suite": {"name": suite.name, "chunks": suite.chunks, "seed": suite.seed},
                "policies": {one.uri: one.fingerprint for one in opened},
                "policy_names": {one.policy.spec.name: one.uri for one in opened},
            }
            content = {f"policy {one.uri}": one.content(out) for one in opened}
            # Policies and start states may be added later. A folder that does not say which policy
            # had which name cannot tell a new one from an old one of the same name: it stays as it
            # is.
            began = read_manifest(out)["config"] if (out / MANIFEST).exists() else config
            named = "policy_names" in began
            write_manifest(
                out,
                command="rollout",
                config=config,
                seed=suite.seed,
                extra={
                    "options": verb,
                    "verb": type(verb).__name__.lower(),
                    "working_folder": os.getcwd(),
                    "starts": len(suite.starts),
                    "plan": stage.plan(),
                },
                content=content | world_content(self.world, self.imagination),
                allow_changes=("suite.name",) if named else ("suite.name", "policy_names"),
                grows={"policies": "policy ", "policy_names": "name "} if named else None,
                idle=_idle(out, began) if named else None,
            )
        except BaseException:
            stage.close()
            raise
        return stage

    def open_again(
        self, policies: Sequence[Given], out: Path, *, controls: bool, seed: int | None
    ) -> Stage:
        """The same as another process has opened and checked, for a worker of it."""
        return self._opened(out, policies, controls, seed, False)[0]

    def _opened(
        self,
        out: Path,
        policies: Sequence[Given],
        controls: bool,
        seed: int | None,
        only_head: bool,
    ) -> tuple[Stage, tuple[Opened, ...]]:
        from worldeval.evaluation.controls import open_controls
        from worldeval.evaluation.execution.worker import Recipe
        from worldeval.evaluation.given import open_policies
        from worldeval.evaluation.opening import adapter_of, open_world, set_threads
        from worldeval.rollout.fit import check_fit, check_names

        self.guard.check()
        set_threads(self.threads)
        out = out.absolute()  # whatever a policy does to the working folder
        here = replace(self.imagination, device="cpu") if only_head else self.imagination
        suite = None if self.suite is None else self.chosen_suite()  # before a world takes its time
        world = open_world(self.world, here)
        suite = suite or self.chosen_suite(world)
        if seed is not None:
            suite = replace(suite, seed=seed)
        adapter = adapter_of(world.robot, self.imagination)
        opened = open_policies(policies, world.robot, self.guard)
        stage = Stage(
            world=world,
            adapter=adapter,
            policies=tuple(one.policy for one in opened),
            suite=suite,
            folder=out,
            lent=frozenset(one.policy.spec.name for one in opened if one.lent),
        )
        if all(isinstance(one, (str, Path)) for one in policies):
            uris = tuple(map(str, policies))
            recipe = Recipe(options=self, policies=uris, folder=out, seed=seed, controls=controls)
            stage = replace(stage, recipe=recipe)
        try:
            for one in opened:  # all are checked before the first begins
                check_fit(world, one.policy, suite)
            check_names([one.uri for one in opened], stage.policies)
            if controls and self.world == IMAGINATION:
                names = [policy.spec.name for policy in stage.policies]
                beside = open_controls(world, suite, self._recorded(), names)
                opened += beside.opened
                stage = replace(stage, controls=beside)
        except BaseException:
            stage.close()
            raise
        return stage, opened

    def _recorded(self) -> EpisodeStore | None:
        """The store in which the start states lie, if there is one."""
        from worldeval.data.store.episodes import EpisodeStore

        place = self.imagination.starts or shipped.folder() / shipped.STARTS
        return EpisodeStore.open(place) if place.is_dir() else None

    def chosen_suite(self, world: World | None = None) -> Suite:
        """The start states and the length of rollouts that the options name; those of ``world``
        itself, if it has some and the options name none."""
        suite = self._suite(world).subset(self.task or None, self.per_task)
        return suite if self.chunks is None else replace(suite, chunks=self.chunks)

    def _suite(self, world: World | None) -> Suite:
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.imagination.replay import suite_of
        from worldeval.rollout.suite import Suite
        from worldeval.types import StartsWorld

        starts = self.imagination.starts
        if self.suite is None and isinstance(world, StartsWorld):
            return Suite(
                name=world.name,
                robot=world.robot.name,
                chunks=world.own_chunks,
                starts=world.own_starts(),
                seed=world.own_seed,
            )
        if self.suite is None and starts is not None:
            store = EpisodeStore.open(starts)
            return suite_of(store, chunks=10, name=store.root.name)
        return Suite.load(self.suite or shipped.path(shipped.SUITE))


def _idle(out: Path, began: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of the policies that a folder was begun with, those without a rollout there: they failed, and
    may be mended."""
    from worldeval.evaluation.execution.parts import held_keys

    made = {key.partition("/")[0] for key in held_keys(out)}
    names = [name for name in began.get("policy_names") or {} if name.partition("/")[0] not in made]
    return {"policy_names": names, "policies": [began["policy_names"][name] for name in names]}


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
    controls: Controls | None = None
    """Policies that are rolled out from a few start states, to see whom to believe."""
    lent: frozenset[str] = frozenset()
    """Names of policies that others made and will close."""
    recipe: Recipe | None = None
    """How a worker opens the same; None where a policy is an object of this process."""

    def plan(self) -> list[Planned]:
        """What will be rolled out, in its order."""
        from worldeval.evaluation.execution.parts import Planned

        few = self.controls
        both = [(self.policies, self.suite), *([(few.policies, few.suite)] if few else ())]
        return [
            Planned(
                policies=tuple(policy.spec.name for policy in policies),
                starts=tuple(start.start_id for start in suite.starts),
            )
            for policies, suite in both
        ]

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
        self.close()

    def close(self) -> None:
        """Close the world, and the policies but for those that were lent."""
        own = [policy for policy in self.policies if policy.spec.name not in self.lent]
        close_policies([*own, *(self.controls.policies if self.controls else ())])
        self.world.close()

    def keep_truth(self, table: pd.DataFrame) -> None:
        """Write what the world knows of its rollouts (``rollout_table``), if it knows anything:
        the table that `worldeval rank --truth` takes."""
        from worldeval.evaluation.folder import keep_truth

        keep_truth(table, self.folder)
