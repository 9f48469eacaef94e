"""Does a policy use what it should? Its rollouts in imagination with one thing changed at a time.

Enters: a policy, a dataset whose episodes begin where the rollouts do, a judge. Leaves: one row per
change: how far the path moves away from that of the unchanged rollout (beside how far it moves with
another seed alone), and how often the judge sees the task solved. Start states, seeds and noise are
the same in all of them, so what differs is the change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError
from worldeval.evaluation.opening import (
    ImaginationOptions,
    adapter_of,
    open_imagination,
    set_threads,
)
from worldeval.imagination.replay import suite_of
from worldeval.motion.faults import Fault
from worldeval.policies.faulty import FaultyPolicy
from worldeval.policies.loading import load_policy
from worldeval.synthesis.imagining import Imagining
from worldeval.synthesis.making import Making
from worldeval.synthesis.planning import frames_to, generator, reachable
from worldeval.synthesis.pool import start_poses
from worldeval.synthesis.recipe import Recipe
from worldeval.synthesis.tables import in_shares
from worldeval.types import Episode, Judge, Outcome, Policy, StartState

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.imagination.env import Imagination
    from worldeval.rollout.suite import Suite

AS_IT_IS, SEED, SWAPPED, MOVED = (
    "as it is", "another seed", "instruction swapped", "start changed",
)  # fmt: skip
HIDDEN = "{} hidden"
REACH = 0.15
"""How far the arm is moved for "start changed", in shares of its range."""
USED = 1.5
"""A change that moves the path less than so many times what another seed does is not noticed."""


@dataclass(frozen=True, kw_only=True)
class Counterfactuals:
    """table: change -> rollouts, path (mean distance from the unchanged rollout, in shares of the
    robot's range), times (of what another seed moves it), solved (share, of the task that it is
    about), other (share that solved the task whose words it was given; NaN but for swapped ones).
    stores: change -> its rollouts. findings: sentences."""

    policy: str
    table: pd.DataFrame
    stores: Mapping[str, Path]
    findings: tuple[str, ...]


def try_changes(
    policy: str,
    dataset: EpisodeStore,
    out: Path,
    judge: Judge,
    options: ImaginationOptions,
    *,
    per_task: int = 2,
    chunks: int = 8,
    batch: int = 16,
    threads: int = 2,
) -> Counterfactuals:
    """Roll ``policy`` out from ``per_task`` episodes of each task, once for each change.

    What ``out`` holds already is not imagined again. Raises MismatchError for a dataset of another
    robot or rate than the world model's.
    """
    set_threads(threads)
    options = replace(options, starts=dataset.root.absolute())
    world = open_imagination(options, dataset)
    try:
        suite = suite_of(dataset, chunks=chunks, name="counterfactuals").subset(per_task=per_task)
        stores: dict[str, Path] = {}
        with closing(load_policy(policy, world.robot)) as loaded:
            for change, acting, recipes, seed in _changes(loaded, suite, world, dataset):
                making = Making.of(
                    policy, options, replace(suite, seed=seed), threads=threads, but=out
                )
                imagining = Imagining(
                    world=world, policy=acting, adapter=adapter_of(world.robot, options),
                    making=making, robot_name=world.robot.name,
                )  # fmt: skip
                stores[change] = out / change.replace(" ", "-")
                imagining.into(stores[change], recipes, batch)
    finally:
        world.close()
    table = compare(stores, judge, low=world.robot.pose_low, high=world.robot.pose_high)
    return Counterfactuals(policy=policy, table=table, stores=stores, findings=findings_of(table))


def _changes(
    policy: Policy, suite: Suite, world: Imagination, dataset: EpisodeStore
) -> Iterator[tuple[str, Policy, list[Recipe], int]]:
    """(name, who acts, recipes, seed) of every change."""
    plain = [_recipe(start) for start in suite.starts]
    yield AS_IT_IS, policy, plain, suite.seed
    yield SEED, policy, plain, suite.seed + 1
    swapped = [
        replace(recipe, instruction=words)
        for recipe in plain
        if (words := other_words(recipe, suite.starts)) is not None
    ]
    if swapped:
        yield SWAPPED, policy, swapped, suite.seed
    if len(policy.spec.cameras) > 1:
        for view in policy.spec.cameras:
            blind = FaultyPolicy(policy, world.robot, Fault(), name=policy.spec.name, blind=(view,))
            yield HIDDEN.format(view), blind, plain, suite.seed
    poses, reached = start_poses(dataset)
    moved = []
    for recipe in plain:
        pose = poses[recipe.base]
        rng = generator(suite.seed, recipe.base, 0)
        arm = reachable(pose, world.robot, REACH, reached, rng)
        frames = frames_to(pose, arm, world.robot, world.frames_per_step)
        moved.append(replace(recipe, arm=tuple(map(float, arm)), arm_frames=frames))
    yield MOVED, policy, moved, suite.seed


def other_words(recipe: Recipe, starts: Sequence[StartState]) -> str | None:
    """The instruction of another task: of the same scene where there is one, so that it could be
    followed; else of the next task. None where there is no other."""
    others = [s for s in starts if s.task != recipe.task and s.instruction != recipe.instruction]
    same_scene = [s for s in others if s.seed == recipe.scene_seed]
    chosen = (same_scene or sorted(others, key=lambda s: (s.task <= recipe.task, s.task)))[:1]
    return chosen[0].instruction if chosen else None


def compare(
    stores: Mapping[str, Path], judge: Judge, *, low: Sequence[float], high: Sequence[float]
) -> pd.DataFrame:
    """One row per change; see ``Counterfactuals``."""
    import pandas as pd

    plain = {e.extra["start_id"]: e for e in EpisodeStore.open(stores[AS_IT_IS])}
    rows = {}
    for change, place in stores.items():
        episodes = [e for e in EpisodeStore.open(place) if e.extra["start_id"] in plain]
        paths = [
            path_distance(e, plain[e.extra["start_id"]], low, high)
            for e in episodes
            if change != AS_IT_IS
        ]
        asked = [replace(e, instruction=str(e.extra["asked"])) for e in episodes]
        rows[change] = {
            "rollouts": len(episodes),
            "path": float(np.mean(paths)) if paths else float("nan"),
            "solved": solved(judge, asked),
            "other": solved(judge, episodes) if change == SWAPPED else float("nan"),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.insert(2, "times", table["path"] / max(float(table.loc[SEED, "path"]), 1e-6))
    return table


def solved(judge: Judge, episodes: Sequence[Episode]) -> float:
    """Share of the rollouts that the judge decided and calls a success; NaN if it decided none."""
    verdicts = judge.judge(episodes)
    known = [v.outcome for v in verdicts if v.outcome.decided]
    return float(np.mean([o == Outcome.SUCCESS for o in known])) if known else float("nan")


def path_distance(
    one: Episode, other: Episode, low: Sequence[float], high: Sequence[float]
) -> float:
    """Root mean squared difference of two paths, in shares of the robot's range."""
    ours, theirs = (
        in_shares(e.poses, np.asarray(low, float), np.asarray(high, float)) for e in (one, other)
    )
    length = min(len(ours), len(theirs))
    return float(np.sqrt(((ours[:length] - theirs[:length]) ** 2).mean()))


def findings_of(table: pd.DataFrame) -> tuple[str, ...]:
    """What the table says, in sentences."""
    said = []
    if SWAPPED in table.index:
        row = table.loc[SWAPPED]
        if row["times"] < USED:
            said.append(
                f"The policy hardly hears the instruction: with another task's words its path "
                f"moves {row['times']:.1f} times as far as with another seed."
            )
        elif row["solved"] > row["other"]:
            said.append(
                f"Told another task the policy moves otherwise, but still solves the old one "
                f"more often ({_percent(row['solved'])} against {_percent(row['other'])})."
            )
    for change in table.index:
        if not change.endswith(" hidden"):
            continue
        row = table.loc[change]
        if row["times"] < USED:
            said.append(
                f"The policy hardly uses the view {change.removesuffix(' hidden')}: without it its "
                f"path moves {row['times']:.1f} times as far as with another seed."
            )
    before, after = table.loc[AS_IT_IS, "solved"], table.loc[MOVED, "solved"]
    if before - after > 0.2:
        said.append(
            f"From another pose of the arm it solves {_percent(after)} instead of "
            f"{_percent(before)}: it has learned where the arm begins."
        )
    return tuple(said) or ("Every change is noticed, as it should be.",)


def _recipe(start: StartState) -> Recipe:
    if not start.instruction.strip():
        raise ConfigError(
            f"start state {start.start_id!r} has no instruction, so none can be swapped; diagnose "
            "the dataset without --policy"
        )
    return Recipe(
        start_id=start.start_id, base=start.start_id, task=start.task, split=start.split,
        scene_seed=start.seed, instruction=start.instruction, meaning=start.instruction,
        group=start.start_id,
    )  # fmt: skip


def _percent(share: float) -> str:
    return "unknown" if share != share else f"{100 * share:.0f} %"
