"""Every policy of a stage from every start state, into the stage's folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import PolicyError
from worldeval.evaluation.policy_options import tell
from worldeval.evaluation.stage import Stage


def roll_out(stage: Stage, batch: int) -> None:
    """Make the rollouts that are missing, and write what the world itself knows of them.

    Raises PolicyError, after all others have been rolled out, if a policy never worked.
    """
    import pandas as pd

    from worldeval.rollout.engine import check_fit, run
    from worldeval.rollout.table import rollout_table

    failed: list[PolicyError] = []
    for policy in stage.policies:  # what does not fit is told before the first begins
        check_fit(stage.world, policy, stage.suite)
    with ExitStack() as opened:
        stores: dict[Path, EpisodeStore] = {}
        for number, policy in enumerate(stage.policies, start=1):
            if len(stage.policies) > 1:
                print(
                    f"policy {number} of {len(stage.policies)}: {policy.spec.name}, "
                    f"{len(stage.suite.starts)} start states",
                    flush=True,
                )
            place = stage.place(policy.spec.name)
            if place not in stores:
                stores[place] = opened.enter_context(stage.store(place))
            try:
                report = run(
                    stage.world,
                    policy,
                    stage.suite,
                    stores[place],
                    batch=batch,
                    adapter=stage.adapter,
                )
            except PolicyError as error:  # it never worked; the others still can
                failed.append(error)
                if len(stage.policies) > 1:
                    tell(str(error))
            else:
                print(report, flush=True)
        table = pd.concat([rollout_table(s) for s in stores.values()], ignore_index=True)
    stage.keep_truth(table)
    if failed:
        raise PolicyError(
            f"{len(failed)} of {len(stage.policies)} policies gave no rollouts, "
            f"the others are in {stage.folder}; the first said: {failed[0]}"
            if len(stage.policies) > 1
            else str(failed[0])
        )
