"""Every policy of a stage from every start state, into the stage's folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import PolicyError
from worldeval.evaluation.policy_options import tell
from worldeval.evaluation.stage import Stage


def roll_out(stage: Stage, batch: int, *, then: str = "") -> None:
    """Make the rollouts that are missing, and write what the world itself knows of them.

    Tells how far it is, and at the end that ``then`` comes.

    Raises PolicyError, after all others have been rolled out, if a policy never worked.
    """
    import pandas as pd

    from worldeval.rollout.engine import check_fit, run
    from worldeval.rollout.progress import Progress
    from worldeval.rollout.table import rollout_table

    failed: list[PolicyError] = []
    for policy in stage.policies:  # what does not fit is told before the first begins
        check_fit(stage.world, policy, stage.suite)
    names = [policy.spec.name for policy in stage.policies]
    with ExitStack() as opened:
        progress = Progress(len(names) * len(stage.suite.starts))
        opened.callback(progress.close)
        stores: dict[Path, EpisodeStore] = {}
        for policy, following in zip(stage.policies, [*names[1:], then], strict=True):
            place = stage.place(policy.spec.name)
            if place not in stores:
                stores[place] = opened.enter_context(stage.store(place))
            progress.next = following
            try:
                report = run(
                    stage.world,
                    policy,
                    stage.suite,
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
    if failed:
        raise PolicyError(
            f"{len(failed)} of {len(stage.policies)} policies gave no rollouts, "
            f"the others are in {stage.folder}; the first said: {failed[0]}"
            if len(stage.policies) > 1
            else str(failed[0])
        )
