"""The truth beside each verdict: two tables joined by rollout.

Enters: a verdict table, and a table of what truly happened. Leaves: the verdicts whose truth is
decided, with it, and how many were left out. Rollouts are joined by (policy, task, start_id) where
the truth names them, else by key.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.data.matching import such_as
from worldeval.data.spreadsheet import tidy
from worldeval.data.tables import CELL, Name, Table
from worldeval.errors import DataError, MismatchError
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Verdicts beside the truth, row by row; only rollouts whose truth is decided.

    table: the verdict columns and ``true`` (bool). unmatched: rollouts without truth. unknown:
    rollouts whose truth is undecided or an error. unused: a sentence on true results that are of
    none of the rollouts, if there are any.
    """

    table: pd.DataFrame
    unmatched: int = 0
    unknown: int = 0
    unused: str = ""
    by: tuple[str, ...] = field(default=CELL)


def join(verdicts: pd.DataFrame, truth: pd.DataFrame) -> Joined:
    """Put the truth beside each verdict; see ``Joined`` for what is left out."""
    need(verdicts, ("key", *CELL, "outcome"), "the verdict table")
    by = join_columns(truth)
    true = outcomes_by(truth, by, "the truth")
    worlds = verdicts["world"] if "world" in verdicts else [""] * len(verdicts)
    judged = Table.of(verdicts, "the verdict table")
    items = judged.names(by)
    _refuse_twice(list(zip(worlds, items, strict=True)), "the verdict table")
    table = verdicts.assign(world=worlds).reset_index(drop=True)
    table["outcome"] = [outcome.value for outcome in judged.verdicts()]
    table["probability"] = judged.numbers("probability", 0, 1)
    for name in CELL:
        table[name] = [tidy(str(value)) for value in table[name]]
    found = [true.get(item) for item in items]
    matched = np.array([outcome is not None for outcome in found], bool)
    if not matched.any():
        raise MismatchError(
            f"the truth knows none of the {len(table)} judged rollouts: they are like "
            f"{first_of(items)}, the truth is of others, {such_as(list(true), items)}, compared by "
            f"{list(by)}; give the truth of these very start states and policies"
        )
    decided = [outcome if outcome and outcome.decided else None for outcome in found]
    known = np.array([outcome is not None for outcome in decided], bool)
    if not known.any():
        raise DataError(
            f"the truth is undecided for all {int(matched.sum())} judged rollouts that it has; "
            "give the results of a world that knows, or of people who decided"
        )
    table = table.loc[known].assign(
        true=[outcome == Outcome.SUCCESS for outcome in decided if outcome]
    )
    return Joined(
        table=table.reset_index(drop=True),
        unmatched=int((~matched).sum()),
        unknown=int((matched & ~known).sum()),
        unused=_unused(items, true),
        by=by,
    )


def join_columns(table: pd.DataFrame, what: str = "the truth") -> tuple[str, ...]:
    """By what a table of outcomes names its rollouts: the cell where it can, else the key."""
    return Table.of(table, what).named_by()


def outcomes_by(table: pd.DataFrame, by: Sequence[str], what: str) -> dict[Name, Outcome]:
    """The outcome of each rollout of a table, named by the columns ``by``."""
    need(table, (*by, "outcome"), what)
    found = Table.of(table, what)
    return found.once(found.outcomes(), by)


def _unused(items: Sequence[Name], true: Mapping[Name, Outcome]) -> str:
    known = set(items)
    strange = [item for item in true if item not in known]
    if not strange:
        return ""
    return (
        f"{len(strange)} of {len(true)} true results are of rollouts that were not judged, "
        f"{such_as(strange, items)}, and are not used."
    )


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
                f"{what} has {first_of([item])} more than once; keep one outcome per rollout"
            )
        seen.add(item)


def first_of(items: Sequence[Any]) -> str:
    """One of them, for a message."""
    return repr(items[0]) if items else "nothing"
