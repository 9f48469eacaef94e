"""Recipes rolled out by the one loop, in batches that never change, into the one store.

Enters: a stage whose world is varied, recipes, what makes them. Leaves: episodes in a store, each
with its recipe, those of its batch and a digest of its exact frames, so that it can be made again.
A batch of which a kill left a part is made again wholly and only what is missing is kept: so
killed and continued runs end with the same episodes to the last bit.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from worldeval.data import digests
from worldeval.data.fit import robot_extra, store_fields
from worldeval.data.store.episodes import EpisodeStore
from worldeval.motion.adapters import Adapter
from worldeval.rollout.engine import run
from worldeval.rollout.recording import rollout_key
from worldeval.rollout.suite import Suite
from worldeval.rollout.summary import ChunkEvent, RunInterrupted, RunSummary
from worldeval.rollout.writing import Writing
from worldeval.synthesis.exploring import ExploringPolicy
from worldeval.synthesis.making import Making
from worldeval.synthesis.recipe import Recipe, as_text
from worldeval.synthesis.world import VariedWorld
from worldeval.terminal import printable
from worldeval.types import Episode, Policy, World

RECIPE, BATCH, MADE_BY, EXACTLY = "recipe", "batch", "made_by", "exactly"
"""Facts of an episode: its recipe, those that were imagined beside it, its ``Making``, and the
digest of its frames before they were coded, of its poses and actions."""


@dataclass(kw_only=True)
class Imagining:
    """One policy in one world, by recipes. seconds: by part, of what was done here."""

    world: World
    policy: Policy
    adapter: Adapter
    making: Making
    robot_name: str
    seconds: dict[str, float] = field(default_factory=dict)
    frames: int = 0

    def into(
        self,
        root: Path,
        recipes: Sequence[Recipe],
        batch: int,
        *,
        extra: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        """Imagine what the store at ``root`` lacks. extra: facts about the whole store.

        Raises what ``rollout.engine.run`` raises.
        """
        store = self._store(root, "video", extra or {})
        with store, self._writing_into(store) as writing:
            groups = [recipes[i : i + batch] for i in range(0, len(recipes), batch)]
            total = len(recipes) * self.making.chunks * self.world.robot.frames_per_chunk
            with tqdm(
                total=total,
                unit="frame",
                desc=printable(f"{self.policy.spec.name} in {self.world.name}"),
                disable=None if progress else True,
                dynamic_ncols=True,
            ) as bar:
                for number, group in enumerate(groups, start=1):
                    try:
                        self._group(store, group, writing, bar)
                    except RunInterrupted as stop:
                        raise RunInterrupted(
                            f"interrupted: {len(store)} of {len(recipes)} rollouts are kept; run "
                            "the same command again to continue",
                            stop.report,
                        ) from stop
                    done = min(number * batch, len(recipes)) * total // len(recipes)
                    bar.update(done - bar.n)

    def again(self, recipes: Sequence[Recipe], folder: Path) -> EpisodeStore:
        """A batch, wholly, in a lossless store below ``folder``."""
        store = self._store(folder / "again", "lossless", {})
        with store:
            self._run(store, recipes, None, None)
        return store

    @contextmanager
    def _writing_into(self, store: EpisodeStore) -> Iterator[Writing]:
        """Batches are written while the next ones are imagined; all are when this ends."""
        writing = Writing(store)
        try:
            yield writing
            began = time.perf_counter()
            writing.finish()
            self._add("writing", time.perf_counter() - began)
        except BaseException:
            writing.stop()
            raise

    def _group(
        self, store: EpisodeStore, group: Sequence[Recipe], writing: Writing, bar: Any
    ) -> None:
        keys = [rollout_key(self.policy.spec.name, recipe.start_id) for recipe in group]
        missing = [key for key in keys if key not in store]
        if not missing:
            return
        if len(missing) == len(keys):
            self._run(store, group, writing, bar)
            return
        writing.finish()
        with tempfile.TemporaryDirectory(dir=store.root.parent, prefix=".again-") as folder:
            made = self.again(group, Path(folder))
            for key in missing:
                store.append(made.by_key(key))

    def _run(
        self, store: EpisodeStore, group: Sequence[Recipe], writing: Writing | None, bar: Any
    ) -> None:
        world = VariedWorld(self.world, {recipe.start_id: recipe for recipe in group})
        noise = {recipe.start_id: recipe.noise for recipe in group if recipe.noise}
        policy = ExploringPolicy(self.policy, self.world.robot, noise)
        suite = Suite(
            name="synthesis",
            robot=self.robot_name,
            chunks=self.making.chunks,
            starts=tuple(recipe.start() for recipe in group),
            seed=self.making.seed,
        )

        def shown(event: ChunkEvent) -> None:
            bar.update(event.frames.shape[0] * event.frames.shape[1])

        summary = run(
            world,
            policy,
            suite,
            store,
            batch=len(group),
            progress=False,
            adapter=self.adapter,
            on_chunk=None if bar is None else shown,
            facts=_Marks(world, self.making),
            writing=writing,
        )
        self._count(summary, world.seconds)

    def _count(self, summary: RunSummary, world_s: float) -> None:
        self.frames += summary.frames
        parts = {
            "world model": world_s,
            "policy": summary.seconds["policy"],
            "writing": summary.seconds["write"],
        }
        parts["engine"] = max(0.0, summary.wall_s - sum(parts.values()))
        for name, seconds in parts.items():
            self._add(name, seconds)

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _store(self, root: Path, images: str, extra: Mapping[str, Any]) -> EpisodeStore:
        robot = self.world.robot
        return EpisodeStore.open_or_create(
            root,
            **store_fields(robot),
            images=images,
            extra={"kind": "rollouts", **robot_extra(robot), **extra},
        )


@dataclass(frozen=True)
class _Marks:
    """What is written into each episode; the batch is the one that the world began with last."""

    world: VariedWorld
    making: Making

    def __call__(self, episode: Episode) -> dict[str, Any]:
        recipe = self.world.recipes[str(episode.extra["start_id"])]
        return {
            "base_start": recipe.base,
            "group": recipe.group,
            "asked": recipe.meaning,
            "words": recipe.words,
            "moved": recipe.moved,
            "noise": recipe.noise,
            "near_failure": recipe.path_of,
            RECIPE: as_text([recipe]),
            BATCH: as_text(self.world.beside),
            MADE_BY: self.making.to_text(),
            EXACTLY: exactly(episode),
        }


def exactly(episode: Episode) -> str:
    """Twelve digits for every bit of the frames, poses, joints and actions of an episode."""
    return digests.of_arrays(episode.frames, episode.poses, episode.joints, episode.actions)
