"""Rolling out a folder until the order of its policies is sure, and what a reader must know of it.

Enters: an open stage, a judge, a rule. Leaves, in the folder: what `worldeval rollout` and
`worldeval judge` would leave there (run.json, the store, verdicts.parquet), of fewer rollouts, and
until-sure.json: what was decided when. Whoever ranks the folder later is told of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.data.files import load_json
from worldeval.errors import ConfigError, DataError
from worldeval.ranking.leaderboard.controls import CONTROLS

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.evaluation.stage import Stage
    from worldeval.evaluation.stopping import Decision, Stopping, StoppingRule
    from worldeval.evaluation.until_sure import SureReport
    from worldeval.rollout.progress import Progress
    from worldeval.types import Judge

RECORD = "until-sure.json"


def check_enough(policies: Sequence[object]) -> None:
    """Raise ConfigError for fewer policies than can be put in order."""
    if len(policies) < 2:
        raise ConfigError(
            f"--until-sure was given {len(policies)} policies, expected two or more to put in "
            "order: --policy URI --policy URI"
        )


def roll_until_sure(
    stage: Stage, judge: Judge | None, rule: StoppingRule, batch: int, *, then: str = ""
) -> SureReport:
    """Roll out into the stage's folder until the rule says stop. Without a judge, the world's own
    outcomes decide."""
    from worldeval.data.provenance import write_atomically
    from worldeval.evaluation.folder import VERDICTS, check_labels, write_table
    from worldeval.evaluation.until_sure import run_until_sure
    from worldeval.judging.tables import kept_verdicts
    from worldeval.rollout.progress import Progress
    from worldeval.rollout.table import rollout_table

    def verdicts(store: EpisodeStore) -> pd.DataFrame:
        if judge is not None and len(store):
            check_labels([judge], [store], stage.folder)
        table = rollout_table(store) if judge is None else kept_verdicts(judge, store)
        write_table(table, stage.folder / VERDICTS)
        return table

    possible = len(stage.policies) * len(stage.suite.starts)
    progress = Progress(possible, at_most=True)
    progress.next = then

    def told(plan: Stopping, made: Sequence[Decision]) -> None:
        _tell(plan, made, progress)

    with closing(progress), stage.store() as store:
        report = run_until_sure(
            stage.world,
            stage.policies,
            stage.suite,
            store,
            rule=rule,
            verdicts=verdicts,
            batch=batch,
            adapter=stage.adapter,
            progress=progress,
            on_round=told,
        )
        table = rollout_table(store)
    stage.keep_truth(table)
    write_atomically(stage.folder / RECORD, json.dumps(report.to_json(), indent=1) + "\n")
    print(f"{report}\n")
    return report


def stopping_notes(folder: Path, table: pd.DataFrame) -> tuple[str, ...]:
    """What a reader of a ranking must know of rollouts that were stopped when sure.

    Nothing where they were not, or where the rest has been rolled out since.
    """
    path = folder / RECORD
    if not path.is_file():
        return ()
    try:
        record = load_json(path)
        starts, notes = int(record["starts"]), tuple(map(str, record["notes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error!r}); run the same `worldeval evaluate --until-sure` "
            "again to make it anew"
        ) from error
    ranked = table[~table["policy"].isin(CONTROLS)]
    whole = bool((ranked.groupby("policy")["start_id"].nunique() >= starts).all())
    return () if whole else notes


def _tell(plan: Stopping, made: Sequence[Decision], progress: Progress) -> None:
    """A line a round, and one a decision."""
    if not plan.done:
        return
    going = f", {', '.join(plan.state.active)} go on" if not plan.finished else ""
    progress.say(
        f"round {plan.done} of at most {len(plan.rounds)}: {sum(plan.used.values())} rollouts"
        f"{going}"
    )
    for decision in made:
        progress.say(f"  {decision}")
