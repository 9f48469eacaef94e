"""Every policy of a stage from every start state, into the stage's folder."""

from __future__ import annotations

from worldeval.errors import PolicyError
from worldeval.evaluation.policy_options import tell
from worldeval.evaluation.stage import Stage


def roll_out(stage: Stage, batch: int) -> None:
    """Make the rollouts that are missing, and write what the world itself knows of them.

    Raises PolicyError, after all others have been rolled out, if a policy never worked.
    """
    from worldeval.rollout.engine import run
    from worldeval.rollout.table import rollout_table

    failed: list[PolicyError] = []
    with stage.store() as store:
        for number, policy in enumerate(stage.policies, start=1):
            if len(stage.policies) > 1:
                print(
                    f"policy {number} of {len(stage.policies)}: {policy.spec.name}, "
                    f"{len(stage.suite.starts)} start states",
                    flush=True,
                )
            try:
                report = run(
                    stage.world, policy, stage.suite, store, batch=batch, adapter=stage.adapter
                )
            except PolicyError as error:  # it never worked; the others still can
                failed.append(error)
                if len(stage.policies) > 1:
                    tell(str(error))
            else:
                print(report, flush=True)
        table = rollout_table(store)
    stage.keep_truth(table)
    if failed:
        raise PolicyError(
            f"{len(failed)} of {len(stage.policies)} policies gave no rollouts, "
            f"the others are in {stage.folder}; the first said: {failed[0]}"
            if len(stage.policies) > 1
            else str(failed[0])
        )
