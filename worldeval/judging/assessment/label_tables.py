"""People's labels as tables of outcomes, on the rollouts that a judge has judged.

Enters: labels (``human.read_labels``), which name a rollout by its key, its blind id or its cell,
and a verdict table of the rollouts. Leaves: one table a rater, or what most of them say, with the
columns policy, task, start_id and outcome, as ``assessing`` compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from worldeval.errors import MismatchError
from worldeval.judging.human import CELL, Label, Rollout, blind_id
from worldeval.judging.panel import majority
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd


def tables_by_rater(labels: Sequence[Label], verdicts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rater -> what this one said of the rollouts in ``verdicts``; the last label counts.

    Labels on other rollouts are left out. Raises MismatchError if all are.
    """
    said: dict[str, dict[Rollout, Outcome]] = {}
    for label, cell in _placed(labels, verdicts):
        said.setdefault(label.rater, {})[cell] = label.outcome
    return {rater: _table(outcomes) for rater, outcomes in said.items()}


def majority_table(labels: Sequence[Label], verdicts: pd.DataFrame) -> pd.DataFrame:
    """What most raters say of each labelled rollout in ``verdicts``; undecided on a tie."""
    said: dict[Rollout, dict[str, Outcome]] = {}
    for label, cell in _placed(labels, verdicts):
        said.setdefault(cell, {})[label.rater] = label.outcome
    return _table({cell: majority(list(votes.values()))[0] for cell, votes in said.items()})


def _placed(labels: Sequence[Label], verdicts: pd.DataFrame) -> list[tuple[Label, Rollout]]:
    """Each label with the cell of the judged rollout that it names."""
    columns = (verdicts[name].astype(str) for name in ("key", *CELL))
    names: dict[Rollout, Rollout] = {}
    for key, *rest in zip(*columns, strict=True):
        cell = tuple(rest)
        names |= {(key,): cell, (blind_id(key),): cell, cell: cell}
    placed = [(label, names[label.rollout]) for label in labels if label.rollout in names]
    if not placed:
        one = repr(labels[0].rollout) if labels else "none at all"
        raise MismatchError(
            f"the labels are of none of the {len(verdicts)} judged rollouts, but of {one}; give "
            "labels of these rollouts (their key, blind id, or policy, task and start_id)"
        )
    return placed


def _table(outcomes: dict[Rollout, Outcome]) -> pd.DataFrame:
    import pandas as pd

    rows = [(*cell, outcome.value) for cell, outcome in outcomes.items()]
    return pd.DataFrame(rows, columns=[*CELL, "outcome"])
