"""Which rollouts a report shows: the best and the worst of the imagination.

In: verdict tables. Out: ``ChosenRollout`` (which episodes to make videos of); the caller writes
the videos and hands ``Clip`` to ``report.write_report``.

Best: imagined and true outcome are the same and the judge was sure of it. Worst: they differ,
the surest first, for these are the mistakes that move a ranking. Without true results: the
surest success and the surest failure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.errors import ConfigError
from worldeval.ranking.leaderboard.controls import split_controls
from worldeval.ranking.verdict_table import (
    Cell,
    pair_outcomes,
    read_column,
    read_outcomes,
)
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

BEST = "Best: imagined as it truly went"
WORST = "Worst: imagined otherwise than it truly went"
SUREST_SUCCESSES = "Surest imagined successes"
SUREST_FAILURES = "Surest imagined failures"


@dataclass(frozen=True, kw_only=True)
class ChosenRollout:
    """A rollout worth watching. ``group`` is the heading that it stands under."""

    group: str
    policy: str
    task: str
    start_id: str
    imagined_outcome: Outcome
    true_outcome: Outcome | None
    probability: float | None


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A rollout as video files (mp4, H.264), the imagined one and, if there, the true one."""

    group: str
    policy: str
    task: str
    imagined: Path
    imagined_outcome: Outcome
    true: Path | None = None
    true_outcome: Outcome | None = None
    probability: float | None = None
    """Of success, as the judge of the imagined rollout sees it."""
    start_id: str = ""
    note: str = ""


def choose_rollouts(
    imagined: pd.DataFrame, against: pd.DataFrame | None = None, *, per_group: int = 4
) -> list[ChosenRollout]:
    """The ``per_group`` best and worst rollouts, spread over policies and tasks.

    against: what truly happened from the same start states.
    """
    if per_group < 1:
        raise ConfigError(f"per_group is {per_group!r}, expected at least 1")
    said, _ = split_controls(read_outcomes(imagined, "imagined"))
    true = {} if against is None else pair_outcomes(said, read_outcomes(against, "true"))
    sure = read_column(imagined, "probability")

    def chosen(cell: Cell, group: str) -> ChosenRollout:
        return ChosenRollout(
            group=group,
            policy=cell[0],
            task=cell[1],
            start_id=cell[2],
            imagined_outcome=said[cell],
            true_outcome=true.get(cell),
            probability=sure.get(cell),
        )

    # Successes first among the equally sure: they show more than a hand that misses.
    order = sorted(
        said,
        key=lambda c: (
            -abs(sure.get(c, 0.5) - 0.5),
            said[c] is not Outcome.SUCCESS,
            c,
        ),
    )
    groups: dict[str, list[Cell]]
    if true:
        known = [c for c in order if said[c].decided and c in true and true[c].decided]
        groups = {
            BEST: [c for c in known if said[c] is true[c]],
            WORST: [c for c in known if said[c] is not true[c]],
        }
    else:
        groups = {
            SUREST_SUCCESSES: [c for c in order if said[c] is Outcome.SUCCESS],
            SUREST_FAILURES: [c for c in order if said[c] is Outcome.FAILURE],
        }
    return [
        chosen(cell, group)
        for group, cells in groups.items()
        for cell in _spread(cells, said, per_group)
    ]


def _spread(cells: Iterable[Cell], said: dict[Cell, Outcome], count: int) -> list[Cell]:
    """The first ones, but a policy, task or outcome shown already waits for those that were not."""
    left = list(cells)
    taken: list[Cell] = []
    while left and len(taken) < count:

        def seen(cell: Cell, taken: list[Cell] = taken) -> int:
            return sum(
                (cell[0] == t[0]) + (cell[1] == t[1]) + (said[cell] is said[t]) for t in taken
            )

        taken.append(min(left, key=seen))
        left.remove(taken[-1])
    return taken
