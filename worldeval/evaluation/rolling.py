"""Every policy of a stage from every start state, into the stage's folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import PolicyError, WorldEvalError
from worldeval.evaluation.execution.options import ExecutionOptions, Shard
from worldeval.evaluation.policy_options import tell
from worldeval.evaluation.stage import Stage
from worldeval.rollout.progress import Progress
from worldeval.rollout.suite import Suite
from worldeval.rollout.summary import RunSummary
from worldeval.types import Policy

Parts = Sequence[tuple[Policy, Suite]]
"""Policies, and from where each is rolled out."""


def roll_out(
    stage: Stage, batch: int, *, then: str = "", execution: ExecutionOptions | None = None
) -> None:
    """Make the rollouts that are missing, and write what the world itself knows of them.

    execution: who makes them; this process, all of them, if None. Tells how far it is, and at the
    end that ``then`` comes. Raises PolicyError, after all others have been rolled out, if a policy
    never worked.
    """
    from worldeval.rollout.engine import check_fit

    for policy in stage.policies:  # what does not fit is told before the first begins
        check_fit(stage.world, policy, stage.suite)
    parts = [(policy, stage.suite) for policy in stage.policies]
    failed = _roll(stage, parts, batch, then, execution or ExecutionOptions())
    if failed:
        raise PolicyError(
            f"{len(failed)} of {len(stage.policies)} policies gave no rollouts, "
            f"the others are in {stage.folder}; the first said: {failed[0]}"
            if len(stage.policies) > 1
            else str(failed[0])
        )


def roll_controls(
    stage: Stage, batch: int, *, then: str = "", execution: ExecutionOptions | None = None
) -> None:
    """Roll out the controls of the stage from their few start states; one that fails is told."""
    few = stage.controls
    if few is not None and few.policies:
        parts = [(policy, few.suite) for policy in few.policies]
        _roll(stage, parts, batch, then, execution or ExecutionOptions())


def _roll(
    stage: Stage, parts: Parts, batch: int, then: str, execution: ExecutionOptions
) -> Sequence[Exception]:
    """Roll out every policy from the start states beside it; what those said that never worked."""
    from worldeval.evaluation.execution import timing
    from worldeval.evaluation.execution.heartbeat import Heart
    from worldeval.evaluation.execution.parts import Order, gather

    execution.check()
    shard = execution.part()
    name = "all" if shard is None else shard.name
    if shard is not None:
        parts = _of_shard(parts, shard, batch)
        if not parts:
            print(f"{shard.name} has no rollouts: there are fewer than shards")
            return []
    order = Order.of_plan(stage.plan())
    began_s = time.perf_counter()
    timing.keep_killed(stage.folder, name)
    heart = Heart(stage.folder, name, execution.workers, execution.price_per_hour)
    progress = Progress(sum(len(suite.starts) for _, suite in parts), on_change=heart.beat)
    try:
        if execution.alone:
            if shard is None:
                gather(stage.folder, order)
            made, failed = _here(stage, parts, batch, then, execution, progress, shard)
        else:
            made, failed = _by_workers(stage, parts, batch, execution, progress, shard)
            if shard is None:
                gather(stage.folder, order)
    except BaseException:  # what was made until Ctrl-C was paid for too
        with suppress(WorldEvalError):
            timing.keep(stage.folder, timing.of_beat(heart.last(progress)))
        raise
    finally:
        progress.close()
        heart.beat(progress, ended=True)
    wall_s = time.perf_counter() - began_s
    spent = timing.spent_of(name, made, wall_s, execution, heart.last(progress).id)
    if spent.rollouts:
        timing.keep(stage.folder, spent)
        print(spent)
    if shard is None:
        _keep_truth(stage, parts)
    return failed


def _of_shard(parts: Parts, shard: Shard, batch: int) -> Parts:
    found = []
    for turn, (policy, suite) in enumerate(parts):
        starts = tuple(shard.of(suite.starts, batch, turn))
        if starts:
            found.append((policy, replace(suite, starts=starts)))
    return found


def _here(
    stage: Stage,
    parts: Parts,
    batch: int,
    then: str,
    execution: ExecutionOptions,
    progress: Progress,
    shard: Shard | None,
) -> tuple[list[RunSummary], list[Exception]]:
    """Roll out in this process, one policy after the other."""
    from worldeval.evaluation.execution.parts import PARTS, at_work, held_keys
    from worldeval.rollout.engine import run

    made: list[RunSummary] = []
    failed: list[Exception] = []
    names = [policy.spec.name for policy, _ in parts]
    with ExitStack() as opened:
        held: set[str] = set()
        if shard is not None:
            opened.enter_context(at_work(stage.folder, shard.name))
            held = held_keys(stage.folder)
        stores: dict[Path, EpisodeStore] = {}
        for (policy, suite), following in zip(parts, [*names[1:], then], strict=True):
            place = stage.place(policy.spec.name)
            if shard is not None:
                place = stage.folder / PARTS / shard.name
            if place not in stores:
                stores[place] = opened.enter_context(stage.store(place))
            progress.next = following
            try:
                report = run(
                    stage.world,
                    policy,
                    suite,
                    stores[place],
                    batch=batch,
                    adapter=stage.adapter,
                    progress=progress,
                    skip=held,
                    retries=execution.retries,
                    disk_wait_s=execution.disk_wait,
                )
            except PolicyError as error:  # it never worked; the others still can
                failed.append(error)
                if len(names) > 1:
                    tell(str(error))
            else:
                made.append(report)
                progress.say(f"{report} ({progress})" if len(names) > 1 else str(report))
    return made, failed


def _by_workers(
    stage: Stage,
    parts: Parts,
    batch: int,
    execution: ExecutionOptions,
    progress: Progress,
    shard: Shard | None,
) -> tuple[list[RunSummary], list[Exception]]:
    """Roll out in other processes, all policies at once."""
    from worldeval.evaluation.execution.execute import Execution
    from worldeval.evaluation.execution.parts import at_work, held_keys

    name, prefix = ("all", "") if shard is None else (shard.name, f"{shard.name}-")
    with at_work(stage.folder, name):
        work = Execution(stage, parts, batch, execution, progress, prefix)
        made, failed = work.run(held_keys(stage.folder))
    for report in made:
        progress.say(str(report))
    return made, list(failed.values())


def _keep_truth(stage: Stage, parts: Parts) -> None:
    """Write what the world knows of all rollouts of these policies."""
    import pandas as pd

    from worldeval.rollout.table import rollout_table

    places = dict.fromkeys(stage.place(policy.spec.name) for policy, _ in parts)
    tables = []
    for place in places:
        with stage.store(place) as store:
            tables.append(rollout_table(store))
    stage.keep_truth(pd.concat(tables, ignore_index=True))
