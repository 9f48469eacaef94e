"""The truth beside each verdict: two tables joined by rollout.

Enters: a verdict table, and a table of what truly happened. Leaves: the verdicts whose truth is
decided, with it, and how many were left out. Rollouts are joined by (policy, task, start_id) where
the truth names them, else by key.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.errors import DataError, MismatchError
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

CELL = ("policy", "task", "start_id")
DECIDED = (Outcome.SUCCESS, Outcome.FAILURE)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Verdicts beside the truth, row by row; only rollouts whose truth is decided.

    table: the verdict columns and ``true`` (bool). unmatched: rollouts without truth. unknown:
    rollouts whose truth is undecided or an error.
    """

    table: pd.DataFrame
    unmatched: int = 0
    unknown: int = 0
    by: tuple[str, ...] = field(default=CELL)


def join(verdicts: pd.DataFrame, truth: pd.DataFrame) -> Joined:
    """Put the truth beside each verdict; see ``Joined`` for what is left out."""
    need(verdicts, ("key", *CELL, "outcome"), "the verdict table")
    by = join_columns(truth)
    true = outcomes_by(truth, by, "the truth")
    worlds = verdicts["world"] if "world" in verdicts else [""] * len(verdicts)
    items = items_of(verdicts, by)
    _refuse_twice(list(zip(worlds, items, strict=True)), "the verdict table")
    table = verdicts.assign(world=worlds).reset_index(drop=True)
    table["probability"] = _probabilities(verdicts)
    found = [true.get(item) for item in items]
    matched = np.array([outcome is not None for outcome in found], bool)
    if not matched.any():
        raise MismatchError(
            f"the truth knows none of the {len(table)} judged rollouts: they are like "
            f"{first_of(items)} and the truth like {first_of(list(true))}, compared by {list(by)}; "
            "give the truth of these very start states and policies"
        )
    known = np.array([outcome in DECIDED for outcome in found], bool)
    if not known.any():
        raise DataError(
            f"the truth is undecided for all {int(matched.sum())} judged rollouts that it has; "
            "give the results of a world that knows, or of people who decided"
        )
    table = table.loc[known].assign(
        true=[outcome == Outcome.SUCCESS for outcome in found if outcome in DECIDED]
    )
    return Joined(
        table=table.reset_index(drop=True),
        unmatched=int((~matched).sum()),
        unknown=int((matched & ~known).sum()),
        by=by,
    )


def join_columns(table: pd.DataFrame) -> tuple[str, ...]:
    """By what a table of outcomes names its rollouts: the cell where it can, else the key."""
    for columns in (CELL, ("key",)):
        if set(columns) <= set(table.columns) and (table[list(columns)].notna() & (
            table[list(columns)] != "")).to_numpy().all():  # fmt: skip
            return columns
    raise DataError(
        f"the truth has the columns {list(table.columns)}, expected policy, task and start_id, or "
        "key, filled in every row, and outcome"
    )


def outcomes_by(table: pd.DataFrame, by: Sequence[str], what: str) -> dict[Hashable, Outcome]:
    """The outcome of each rollout of a table, named by the columns ``by``."""
    need(table, (*by, "outcome"), what)
    items = items_of(table, by)
    _refuse_twice(items, what)
    known = {outcome.value for outcome in Outcome}
    strange = [word for word in table["outcome"] if word not in known]
    if strange:
        raise DataError(
            f"{what} has outcome {strange[0]!r}, expected one of {sorted(known)}; correct it"
        )
    return {item: Outcome(word) for item, word in zip(items, table["outcome"], strict=True)}


def items_of(table: pd.DataFrame, by: Sequence[str]) -> list[Hashable]:
    """What names each row."""
    return list(zip(*(table[column].astype(str) for column in by), strict=True))


def _probabilities(verdicts: pd.DataFrame) -> Any:
    import pandas as pd

    if "probability" not in verdicts.columns:
        return np.nan
    try:
        values = pd.to_numeric(verdicts["probability"]).to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"the column probability has no numbers ({error}); correct it") from error
    strange = values[(values < 0) | (values > 1)]
    if len(strange):
        raise DataError(
            f"a verdict has probability {strange[0]}, expected a number in [0, 1]; judge again"
        )
    return values


def need(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Raise DataError unless the table has these columns and a row."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(f"{what} has the columns {list(table.columns)}, it lacks {missing}")
    if not len(table):
        raise DataError(f"{what} is empty; judge or label some rollouts first")


def _refuse_twice(items: Sequence[Hashable], what: str) -> None:
    seen: set[Hashable] = set()
    for item in items:
        if item in seen:
            raise DataError(
                f"{what} has {first_of([item])} more than once; keep one outcome a rollout"
            )
        seen.add(item)


def first_of(items: Sequence[Any]) -> str:
    """One of them, for a message."""
    return repr(items[0]) if items else "nothing"
