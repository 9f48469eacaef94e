"""The threshold of a judge, as its verdicts show it, and the verdicts with it moved.

In: outcomes and probabilities of success by (policy, task, start_id). Out: outcomes.
A judge that abstains has two edges, both of which move.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from worldeval.ranking.verdict_table import Cell
from worldeval.types import Outcome

Edges = tuple[float, float]
"""(failures end here, successes begin here); the same without abstaining."""

_ORDER = (Outcome.FAILURE, Outcome.UNDECIDED, Outcome.SUCCESS)


def moved_threshold(
    outcomes: Mapping[Cell, Outcome], probabilities: Mapping[Cell, float], move: float
) -> tuple[dict[Cell, Outcome], str]:
    """Outcomes with the threshold higher by ``move``; or a reason why there is none to move.

    One threshold for all tasks where that explains the verdicts, else one for each task. Rollouts
    that ended in an error, and undecided ones without a probability, stay as they are.
    """
    if not probabilities:
        return {}, "the judge gives no probability"
    if any(o.decided and c not in probabilities for c, o in outcomes.items()):
        return {}, "the judge gives no probability for some of its verdicts"
    known = {c: p for c, p in probabilities.items() if outcomes.get(c) in _ORDER}
    tasks = {cell[1] for cell in known}
    edges: dict[str, Edges | None]
    together = _edges([(outcomes[c], p) for c, p in known.items()])
    if together is not None:
        edges = dict.fromkeys(tasks, together)
    else:
        edges = {
            task: _edges([(outcomes[c], p) for c, p in known.items() if c[1] == task])
            for task in tasks
        }
    moved = dict(outcomes)
    for cell, probability in known.items():
        own = edges[cell[1]]
        if own is None:
            return {}, "the judge does not decide by a threshold on its probability"
        low, high = own
        if probability - move >= high:
            moved[cell] = Outcome.SUCCESS
        else:
            moved[cell] = Outcome.FAILURE if probability - move < low else Outcome.UNDECIDED
    return moved, ""


def _edges(verdicts: list[tuple[Outcome, float]]) -> Edges | None:
    """None where the verdicts are not in the order of the probabilities."""
    kinds = {kind: [p for outcome, p in verdicts if outcome is kind] for kind in _ORDER}
    there = [kind for kind in _ORDER if kinds[kind]]
    for below, above in itertools.pairwise(there):
        if max(kinds[below]) > min(kinds[above]) or set(kinds[below]) & set(kinds[above]):
            return None
    ends = {Outcome.FAILURE: 0.0, Outcome.SUCCESS: 1.0}
    if Outcome.UNDECIDED not in there:
        middle = _between(
            max(kinds[Outcome.FAILURE], default=ends[Outcome.FAILURE]),
            min(kinds[Outcome.SUCCESS], default=ends[Outcome.SUCCESS]),
        )
        return middle, middle
    unsure = kinds[Outcome.UNDECIDED]
    low = (max(kinds[Outcome.FAILURE], default=min(unsure)) + min(unsure)) / 2
    high = (max(unsure) + min(kinds[Outcome.SUCCESS], default=max(unsure) + 1e-9)) / 2
    return low, high


def _between(low: float, high: float) -> float:
    """One half if it lies there, as it does for most judges, else the middle."""
    return 0.5 if low < 0.5 <= high else (low + high) / 2
