"""Verdict tables, read strictly: one known outcome per (policy, task, start state).

In: pandas tables with at least the columns ``policy, task, start_id, outcome`` (of what truly
happened also ``success`` in its place), read by ``data.tables``.
Out: mappings from cell to Outcome, in the order of the table.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data.matching import spell, such_as
from worldeval.data.spreadsheet import tidy
from worldeval.data.tables import CELL, SUCCESS, TRUSTED, Table
from worldeval.errors import MismatchError
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

Cell = tuple[str, str, str]
"""(policy, task, start_id)"""
Start = tuple[str, str]
"""(task, start_id)"""


def read_outcomes(table: pd.DataFrame, side: str) -> dict[Cell, Outcome]:
    """The verdict on each cell; ``side`` (imagined or true) is for the messages."""
    found = Table.of(table, f"the {side} verdict table")
    found.need((*CELL, "outcome"))
    return found.once(found.verdicts())  # type: ignore[return-value]


def read_cells(table: pd.DataFrame, what: str) -> dict[Cell, None]:
    """The cells that a table names, in its order."""
    return dict.fromkeys(Table.of(table, what).names())  # type: ignore[arg-type]


def read_trials(table: pd.DataFrame, what: str = "the table of true trials") -> dict[Cell, Outcome]:
    """What truly happened in each cell, from ``outcome``, ``success`` or both of them."""
    found = Table.of(table, what)
    found.need((*CELL, *(() if "outcome" in found.columns else (SUCCESS,))))
    return found.once(found.outcomes())  # type: ignore[return-value]


def pair_outcomes(
    verdicts: Mapping[Cell, Outcome], true: Mapping[Cell, Outcome]
) -> dict[Cell, Outcome]:
    """True outcomes of the imagined cells, of those policies that have any.

    Raises MismatchError if a policy has some but not all of them, or if no policy has any.
    """
    with_truth = {cell[0] for cell in true}
    wanted = [cell for cell in verdicts if cell[0] in with_truth]
    if not wanted:
        shown = such_as(list(true), verdicts) if true else "since it is empty"
        raise MismatchError(
            f"the {len(true)} true results are of none of the imagined policies, {shown}; give "
            "what truly happened to these policies from these start states"
        )
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


def unmatched(
    verdicts: Collection[Cell], others: Collection[Cell], one: str, several: str
) -> list[str]:
    """A sentence on the rows of another table that name no imagined rollout, if there are any.

    one, several: what such a row is called, with its verb ("true result is").
    """
    strange = [cell for cell in others if cell not in verdicts]
    if not strange:
        return []
    return [
        f"{len(strange)} of {len(others)} {one if len(strange) == 1 else several} of no imagined "
        f"rollout, {such_as(strange, verdicts)}, and not used."
    ]


def distrust(verdicts: Mapping[Cell, Outcome], trust: pd.DataFrame) -> dict[Cell, Outcome]:
    """The outcomes, those of distrusted rollouts UNDECIDED.

    trust: columns policy, task, start_id and ``trusted`` (bool), with a row for every rollout.
    """
    table = Table.of(trust, "the trust table")
    believed = table.once(table.flags(TRUSTED))
    missing = [cell for cell in verdicts if believed.get(cell) is None]
    if missing:
        raise MismatchError(
            f"{len(missing)} of {len(verdicts)} imagined rollouts have no trust, "
            f"{such_as(missing, believed)}; run `worldeval trust` on the folder again"
        )
    return {
        cell: Outcome.UNDECIDED if outcome.decided and not believed[cell] else outcome
        for cell, outcome in verdicts.items()
    }


def read_column(table: pd.DataFrame, name: str) -> dict[Cell, float]:
    """The numbers of a column that may be absent (a judge's probability of success, distrust), of
    the cells that have one."""
    if name not in table.columns:
        return {}
    found = Table.of(table, f"the table with {name}")
    limits = (0.0, 1.0) if name == "probability" else (-math.inf, math.inf)
    pairs = zip(found.names(), found.numbers(name, *limits), strict=True)
    return {cell: number for cell, number in pairs if not math.isnan(number)}  # type: ignore[misc]


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
    return tuple(sorted({tidy(str(value)) for value in table[column].unique()}))
