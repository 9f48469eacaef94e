"""Verdict tables, read strictly: one known outcome per (policy, task, start state).

In: pandas tables with at least the columns ``policy, task, start_id, outcome`` (of true trials
also ``success``, 0 or 1, in its place).
Out: mappings from cell to Outcome, in the order of the table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.errors import DataError, MismatchError
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("policy", "task", "start_id")
COLUMNS = (*NAMES, "outcome")

Cell = tuple[str, str, str]
"""(policy, task, start_id)"""
Start = tuple[str, str]
"""(task, start_id)"""


def read_outcomes(table: pd.DataFrame, side: str) -> dict[Cell, Outcome]:
    """The outcome of each cell; ``side`` (imagined or true) is for the messages."""
    cells = _cells(table, COLUMNS, side)
    known = {str(outcome): outcome for outcome in Outcome}
    # NaN and True are no outcomes; they become words that are none.
    words = [str(value) for value in table["outcome"].tolist()]
    for cell, word, value in zip(cells, words, table["outcome"].tolist(), strict=True):
        if word not in known:
            raise DataError(
                f"the {side} verdict of {spell(cell)} is {value!r}, expected one of {sorted(known)}"
            )
    return _unique(cells, [known[word] for word in words], side)


def read_trials(table: pd.DataFrame) -> dict[Cell, Outcome]:
    """The outcome of each true trial, from ``outcome`` or from ``success`` (0, 1 or empty)."""
    if "outcome" in table.columns or "success" not in table.columns:
        return read_outcomes(table, "true")
    cells = _cells(table, (*NAMES, "success"), "true")
    meanings = {1.0: Outcome.SUCCESS, 0.0: Outcome.FAILURE}
    outcomes = []
    for cell, value in zip(cells, table["success"].tolist(), strict=True):
        word = str(value).strip().lower()
        try:
            number = float({"true": 1, "false": 0, "": np.nan}.get(word, word))
        except ValueError:
            number = np.inf
        if number not in meanings and not np.isnan(number):
            raise DataError(
                f"the true trial of {spell(cell)} has success {value!r}, expected 0, 1, or nothing "
                f"where it was not decided"
            )
        outcomes.append(meanings.get(number, Outcome.UNDECIDED))
    return _unique(cells, outcomes, "true")


def pair_outcomes(
    said: Mapping[Cell, Outcome], true: Mapping[Cell, Outcome]
) -> dict[Cell, Outcome]:
    """True outcomes of the imagined cells, of those policies that have any."""
    with_truth = {cell[0] for cell in true}
    wanted = [cell for cell in said if cell[0] in with_truth]
    missing = [cell for cell in wanted if cell not in true]
    if missing:
        shown = "; ".join(spell(cell) for cell in missing[:5])
        more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise MismatchError(
            f"{len(missing)} of {len(wanted)} imagined rollouts have no true result: {shown}{more}."
            f" Imagine only start states that were carried out, or carry these out, or leave the "
            f"policy out of the true table altogether (a few trials are for --real)"
        )
    return {cell: true[cell] for cell in wanted}


def distrust(said: Mapping[Cell, Outcome], trust: pd.DataFrame) -> dict[Cell, Outcome]:
    """The outcomes, those of distrusted rollouts UNDECIDED.

    trust: columns policy, task, start_id and ``trusted`` (bool), with a row for every rollout.
    """
    cells = _cells(trust, (*NAMES, "trusted"), "trust")
    believed = _unique(cells, trust["trusted"].astype(bool).tolist(), "trust")
    missing = [cell for cell in said if cell not in believed]
    if missing:
        raise MismatchError(
            f"{len(missing)} of {len(said)} imagined rollouts have no trust, the first is "
            f"{spell(missing[0])}; run `worldeval trust` on the folder again"
        )
    decided = (Outcome.SUCCESS, Outcome.FAILURE)
    return {
        cell: Outcome.UNDECIDED if outcome in decided and not believed[cell] else outcome
        for cell, outcome in said.items()
    }


def read_column(table: pd.DataFrame, name: str) -> dict[Cell, float]:
    """The numbers of a column that may be absent (a judge's probability of success, distrust), of
    the cells that have one."""
    if name not in table.columns:
        return {}
    cells = _cells(table, NAMES, name)
    return {
        cell: float(value)
        for cell, value in zip(cells, table[name].tolist(), strict=True)
        if isinstance(value, int | float) and not math.isnan(value)
    }


def score_grid(
    outcomes: Mapping[Cell, Outcome], policies: Sequence[str], starts: Sequence[Start]
) -> np.ndarray:
    """(policies, starts): 1 success, 0 failure, NaN where nothing was decided."""
    row = {name: i for i, name in enumerate(policies)}
    column = {start: i for i, start in enumerate(starts)}
    grid = np.full((len(row), len(column)), np.nan)
    for (policy, task, start_id), outcome in outcomes.items():
        if outcome is Outcome.SUCCESS or outcome is Outcome.FAILURE:
            grid[row[policy], column[task, start_id]] = outcome is Outcome.SUCCESS
    return grid


def starts_of(outcomes: Mapping[Cell, Outcome]) -> dict[str, set[Start]]:
    """The (task, start_id) of each policy."""
    starts: dict[str, set[Start]] = {}
    for policy, task, start_id in outcomes:
        starts.setdefault(policy, set()).add((task, start_id))
    return starts


def check_same_starts(imagined_from: Mapping[str, set[Start]]) -> None:
    """Raise MismatchError unless every policy was imagined from the same start states."""
    every = set().union(*imagined_from.values())
    short = sorted(name for name, has in imagined_from.items() if has != every)
    if short:
        missing = sorted(every - imagined_from[short[0]])[0]
        raise MismatchError(
            f"not every policy was imagined from all {len(every)} start states "
            f"({', '.join(f'{name}: {len(imagined_from[name])}' for name in short[:10])}; "
            f"{short[0]!r} lacks {missing[1]!r} of task {missing[0]!r}), so they cannot be paired; "
            f"imagine the missing ones, or rank without --paired"
        )


def uneven_starts(imagined_from: Mapping[str, set[Start]]) -> list[str]:
    """A sentence if the policies were not all imagined from the same start states."""
    every = set().union(*imagined_from.values())
    short = sorted(name for name, has in imagined_from.items() if has != every)
    if not short:
        return []
    return [
        f"Not every policy was imagined from all {len(every)} start states "
        f"({', '.join(f'{name}: {len(imagined_from[name])}' for name in short)}); their rates are "
        f"not over the same tasks, and pairs without the same start states are compared by counts "
        f"alone, not start by start."
    ]


def column_names(table: pd.DataFrame | None, column: str) -> tuple[str, ...]:
    """The distinct values of a column that may be absent."""
    if table is None or column not in table.columns:
        return ()
    return tuple(sorted({str(value) for value in table[column].unique()}))


def spell(cell: Cell) -> str:
    return f"policy {cell[0]!r}, task {cell[1]!r}, start {cell[2]!r}"


def _cells(table: pd.DataFrame, columns: Sequence[str], side: str) -> list[Cell]:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"the {side} verdict table lacks the columns {missing}; it has {list(table.columns)}, "
            f"expected at least {list(columns)}"
        )
    empty = table[list(NAMES)].isna().any(axis=1).to_numpy()
    if empty.any():
        raise DataError(
            f"row {int(empty.argmax()) + 1} of the {side} table has no policy, task or start_id; "
            f"fill in all three"
        )
    words = ([str(value) for value in table[name].tolist()] for name in NAMES)
    return list(zip(*words, strict=True))


def _unique(cells: list[Cell], values: list[Any], side: str) -> dict[Cell, Any]:
    found = dict(zip(cells, values, strict=True))
    if len(found) < len(cells):
        twice = next(cell for cell, count in Counter(cells).items() if count > 1)
        raise DataError(
            f"the {side} verdict table has {spell(twice)} more than once; keep one verdict "
            f"per rollout (one judge, one attempt)"
        )
    return found
