"""People's labels as tables of outcomes, on the rollouts that a judge has judged.

Enters: labels (``human.read_labels``), which name a rollout by its key, its blind id or its cell,
and a verdict table of the rollouts. Leaves: one table a rater, or what most of them say, with the
columns policy, task, start_id and outcome, as ``assessing`` compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from worldeval.data.matching import such_as
from worldeval.data.tables import CELL
from worldeval.errors import MismatchError
from worldeval.judging.human import Label, Rollout, check_cell, names_of
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


def unplaced(labels: Sequence[Label], verdicts: pd.DataFrame) -> str:
    """A sentence on the labels that name none of the rollouts in ``verdicts``; empty if all do."""
    known = _known(verdicts)
    strange = list(dict.fromkeys(one.rollout for one in labels if one.rollout not in known))
    if not strange:
        return ""
    count = sum(label.rollout not in known for label in labels)
    return (
        f"{count} of {len(labels)} labels are of rollouts that were not judged, "
        f"{such_as(strange, list(known))}"
    )


def _placed(labels: Sequence[Label], verdicts: pd.DataFrame) -> list[tuple[Label, Rollout]]:
    """Each label with the cell of the judged rollout that it names."""
    names = _known(verdicts)
    placed = [(label, names[label.rollout]) for label in labels if label.rollout in names]
    for label, cell in placed:
        check_cell(label, cell)
    if not placed:
        ones = list(dict.fromkeys(label.rollout for label in labels))
        shown = f"but of others, {such_as(ones, list(names))}" if ones else "since there are none"
        raise MismatchError(
            f"the labels are of none of the {len(verdicts)} judged rollouts, {shown}; give "
            "labels of these rollouts (their key, blind id, or policy, task and start_id)"
        )
    return placed


def _known(verdicts: pd.DataFrame) -> dict[Rollout, Rollout]:
    """Every name of a judged rollout, and its cell."""
    rows = (names_of(row) for row in verdicts[["key", *CELL]].to_dict("records"))
    return {name: names[0] for names in rows for name in names}


def _table(outcomes: dict[Rollout, Outcome]) -> pd.DataFrame:
    import pandas as pd

    rows = [(*cell, outcome.value) for cell, outcome in outcomes.items()]
    return pd.DataFrame(rows, columns=[*CELL, "outcome"])
