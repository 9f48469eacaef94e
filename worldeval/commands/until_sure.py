"""``worldeval rank --stop-when-sure``: rolls out before it ranks, for as long as that is of use.

Enters: policies, a stage, a judge. Leaves, in the folder: what `worldeval rollout` and `worldeval
judge` would leave there (run.json, the store, verdicts.parquet), of fewer rollouts, and
until-sure.json: what was decided when. Whoever ranks the folder later is told of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from worldeval import shipped
from worldeval.data.files import load_json
from worldeval.errors import ConfigError, DataError
from worldeval.evaluation.stage import StageOptions

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.evaluation.stopping import Decision, Stopping
    from worldeval.evaluation.until_sure import SureReport

RECORD = "until-sure.json"


@dataclass(frozen=True, kw_only=True)
class UntilSureOptions:
    """With --stop-when-sure: what to roll out, and where."""

    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """With --stop-when-sure: what acts, as for `worldeval rollout`; give it twice or more."""
    judge: str | None = None
    """With --stop-when-sure: who judges, as for `worldeval judge`. If not given: the shipped judge
    in imagination, elsewhere the world itself."""
    goal: Literal["order", "best"] = "order"
    """With --stop-when-sure: what is to be decided; best takes far fewer rollouts, since policies
    that cannot be the best drop out."""
    round: int = 8
    """With --stop-when-sure: start states before each look at the order, rounded up until every
    task has had its turn."""
    stage: Annotated[StageOptions, tyro.conf.arg(name="")] = field(default_factory=StageOptions)

    def run(self, folder: Path, *, alpha: float, verb: Any) -> SureReport:
        """Roll out into ``folder`` until the order is decided with a chance of error of alpha."""
        from worldeval.data.provenance import write_atomically
        from worldeval.evaluation.folder import VERDICTS, check_labels, write_table
        from worldeval.evaluation.stopping import StoppingRule
        from worldeval.evaluation.until_sure import run_until_sure
        from worldeval.judging.loading import load_judge
        from worldeval.judging.tables import kept_verdicts
        from worldeval.rollout.table import rollout_table

        if len(self.policy) < 2:
            raise ConfigError(
                f"--stop-when-sure was given {len(self.policy)} policies, expected two or more to "
                "put in order: --policy URI --policy URI"
            )
        with self.stage.open(folder, self.policy, verb) as stage:
            rule = StoppingRule(
                goal=self.goal, alpha=alpha, round_starts=self.round, seed=stage.suite.seed
            )
            judge = None
            if self.judge is not None or self.stage.world == "imagination":
                judge = load_judge(self.judge or shipped.path(shipped.JUDGE))

            def verdicts(store: EpisodeStore) -> pd.DataFrame:
                if judge is not None and len(store):
                    check_labels([judge], [store], stage.folder)
                table = rollout_table(store) if judge is None else kept_verdicts(judge, store)
                write_table(table, stage.folder / VERDICTS)
                return table

            with stage.store() as store:
                report = run_until_sure(
                    stage.world,
                    stage.policies,
                    stage.suite,
                    store,
                    rule=rule,
                    verdicts=verdicts,
                    batch=self.stage.batch,
                    adapter=stage.adapter,
                    on_round=_tell,
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
            f"{path} cannot be read ({error!r}); run the same `worldeval rank --stop-when-sure` "
            "again to make it anew"
        ) from error
    whole = bool((table.groupby("policy")["start_id"].nunique() >= starts).all())
    return () if whole else notes


def _tell(plan: Stopping, made: Sequence[Decision]) -> None:
    """A line a round, and one a decision."""
    if not plan.done:
        return
    going = f", {', '.join(plan.state.active)} go on" if not plan.finished else ""
    print(
        f"round {plan.done} of at most {len(plan.rounds)}: {sum(plan.used.values())} rollouts"
        f"{going}",
        flush=True,
    )
    for decision in made:
        print(f"  {decision}", flush=True)
