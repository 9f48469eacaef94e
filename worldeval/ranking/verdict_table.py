"""Verdict tables, read strictly: one known outcome per (policy, task, start state).

In: pandas tables with at least the columns ``policy, task, start_id, outcome``.
Out: mappings from cell to Outcome; the true ones restricted to the imagined cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from worldeval.errors import DataError, MismatchError
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("policy", "task", "start_id", "outcome")

Cell = tuple[str, str, str]
"""(policy, task, start_id)"""


def read_outcomes(table: pd.DataFrame, side: str) -> dict[Cell, Outcome]:
    """The outcome of each cell; ``side`` (imagined or real) is for the messages."""
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(
            f"the {side} verdict table lacks the columns {missing}; it has {list(table.columns)}, "
            f"expected at least {list(COLUMNS)}"
        )
    outcomes: dict[Cell, Outcome] = {}
    known = {str(outcome) for outcome in Outcome}
    for policy, task, start_id, outcome in zip(*(table[c] for c in COLUMNS), strict=True):
        cell = (str(policy), str(task), str(start_id))
        if str(outcome) not in known:
            raise DataError(
                f"the {side} verdict of {_spell(cell)} is {outcome!r}, expected one of "
                f"{sorted(known)}"
            )
        if cell in outcomes:
            raise DataError(
                f"the {side} verdict table has {_spell(cell)} more than once; keep one verdict "
                f"per rollout (one judge, one attempt)"
            )
        outcomes[cell] = Outcome(str(outcome))
    return outcomes


def pair_outcomes(
    said: Mapping[Cell, Outcome], true: Mapping[Cell, Outcome]
) -> dict[Cell, Outcome]:
    """True outcomes of the imagined cells, of those policies that have any."""
    with_truth = {cell[0] for cell in true}
    wanted = [cell for cell in said if cell[0] in with_truth]
    missing = [cell for cell in wanted if cell not in true]
    if missing:
        shown = "; ".join(_spell(cell) for cell in missing[:5])
        more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise MismatchError(
            f"{len(missing)} of {len(wanted)} imagined rollouts have no real result: {shown}{more}."
            f" Imagine only start states that were carried out, or carry these out, or leave the "
            f"policy out of the real table altogether"
        )
    return {cell: true[cell] for cell in wanted}


def uneven_starts(said: Mapping[Cell, Outcome]) -> list[str]:
    """A sentence if the policies were not all imagined from the same start states."""
    starts: dict[str, set[tuple[str, str]]] = {}
    for policy, task, start_id in said:
        starts.setdefault(policy, set()).add((task, start_id))
    every = set().union(*starts.values())
    short = sorted(name for name, has in starts.items() if has != every)
    if not short:
        return []
    return [
        f"Not every policy was imagined from all {len(every)} start states "
        f"({', '.join(f'{name}: {len(starts[name])}' for name in short)}); "
        f"their rates are not over the same tasks."
    ]


def column_names(table: pd.DataFrame | None, column: str) -> tuple[str, ...]:
    """The distinct values of a column that may be absent."""
    if table is None or column not in table.columns:
        return ()
    return tuple(sorted({str(value) for value in table[column]}))


def _spell(cell: Cell) -> str:
    return f"policy {cell[0]!r}, task {cell[1]!r}, start {cell[2]!r}"
