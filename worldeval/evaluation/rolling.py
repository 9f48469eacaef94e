"""Every policy of a stage from every start state, into the stage's folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import PolicyError
from worldeval.evaluation.policy_options import tell
from worldeval.evaluation.stage import Stage
from worldeval.rollout.suite import Suite
from worldeval.types import Policy


def roll_out(stage: Stage, batch: int, *, then: str = "") -> None:
    """Make the rollouts that are missing, and write what the world itself knows of them.

    Tells how far it is, and at the end that ``then`` comes. Raises PolicyError, after all others
    have been rolled out, if a policy never worked.
    """
    from worldeval.rollout.engine import check_fit

    for policy in stage.policies:  # what does not fit is told before the first begins
        check_fit(stage.world, policy, stage.suite)
    failed = _roll(stage, [(policy, stage.suite) for policy in stage.policies], batch, then)
    if failed:
        raise PolicyError(
            f"{len(failed)} of {len(stage.policies)} policies gave no rollouts, "
            f"the others are in {stage.folder}; the first said: {failed[0]}"
            if len(stage.policies) > 1
            else str(failed[0])
        )


def roll_controls(stage: Stage, batch: int, *, then: str = "") -> None:
    """Roll out the controls of the stage from their few start states; one that fails is told."""
    few = stage.controls
    if few is not None and few.policies:
        _roll(stage, [(policy, few.suite) for policy in few.policies], batch, then)


def _roll(
    stage: Stage, parts: Sequence[tuple[Policy, Suite]], batch: int, then: str
) -> list[PolicyError]:
    """Roll out every policy from the start states beside it; what those said that never worked."""
    import pandas as pd

    from worldeval.rollout.engine import run
    from worldeval.rollout.progress import Progress
    from worldeval.rollout.table import rollout_table

    failed: list[PolicyError] = []
    names = [policy.spec.name for policy, _ in parts]
    with ExitStack() as opened:
        progress = Progress(sum(len(suite.starts) for _, suite in parts))
        opened.callback(progress.close)
        stores: dict[Path, EpisodeStore] = {}
        for (policy, suite), following in zip(parts, [*names[1:], then], strict=True):
            place = stage.place(policy.spec.name)
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
                )
            except PolicyError as error:  # it never worked; the others still can
                failed.append(error)
                if len(names) > 1:
                    tell(str(error))
            else:
                progress.say(f"{report} ({progress})" if len(names) > 1 else str(report))
        table = pd.concat([rollout_table(s) for s in stores.values()], ignore_index=True)
    stage.keep_truth(table)
    return failed
