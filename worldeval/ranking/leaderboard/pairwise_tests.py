"""Which policies can be told apart, and what it would take to tell the others.

In: the outcome of every policy at every start state, and its rate.
Out: ``Pairwise``: a test per pair, letters (policies that share one cannot be told apart), and
plans for neighbours in the ranking that share one.

Policies that were imagined from the same start states are compared start by start
(``comparisons.paired_test``): a start that is hard for all weighs on none. Others are compared by
their counts: Barnard's exact test, and beyond some hundreds of rollouts, where it takes long,
Fisher's, which is exact too and a little less sharp. Many pairs are tested at once, so p values
are corrected (Holm).

Where rollouts weigh differently, with weights v_s of a start state s, the paired test is of the
scores v_s a_s / max v: its sign flips are as valid for them, and its difference, times
n max v / sum v, is that of the weighted rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from worldeval.ranking.comparisons import barnard_test, difference_interval, paired_test
from worldeval.ranking.leaderboard.pairwise import POWER, Comparison, Pairwise, Plan
from worldeval.ranking.letters import adjust_p_values, compact_letters
from worldeval.ranking.outcome_counts import OutcomeCounts, Weights, task_weight
from worldeval.ranking.planning import rollouts_needed
from worldeval.ranking.verdict_table import Cell, Start, score_grid, starts_of
from worldeval.types import Outcome

BARNARD_TABLES = 250_000
"""Trials of a times trials of b up to which Barnard's test is worth its time (0.02 s)."""


@dataclass(frozen=True, kw_only=True)
class PairwiseTests:
    """Compares policies by their outcomes, over all tasks or in one.

    Policies are told apart where p, corrected for all pairs, is at most alpha.
    """

    outcomes: Mapping[Cell, Outcome]
    weights: Weights = "rollouts"
    alpha: float = 0.05
    correction: str = "holm"
    confidence: float = 0.95

    def over_tasks(self, counts: Mapping[str, OutcomeCounts]) -> Pairwise:
        """counts: of each policy over all tasks, with the weights."""
        names = _best_first(counts)
        pairs = len(names) * (len(names) - 1) // 2
        found = self._compare(names, counts, None)
        neighbours = [found.between(a, b) for a, b in zip(names, names[1:], strict=False)]
        same = [pair for pair in neighbours if pair is not None and not found.distinguishable(pair)]
        plans = [_plan(pair, counts, alpha=self.alpha, pairs=pairs) for pair in same]
        return replace(found, plans=tuple(plans))

    def in_task(self, task: str, counts: Mapping[str, OutcomeCounts]) -> Pairwise:
        """counts: of each policy in this task. There are no plans."""
        return self._compare(_best_first(counts), counts, task)

    def _compare(
        self, names: list[str], counts: Mapping[str, OutcomeCounts], task: str | None
    ) -> Pairwise:
        rows, columns, scores = self._grid
        chosen = [start for start in columns if task in (None, start[0])]
        places = [columns[start] for start in chosen]
        starts = {name: self._starts[name] & set(chosen) for name in names}
        weights = self.weights if task is None else "rollouts"
        tested = []
        for a, b in combinations(names, 2):
            if starts[a] == starts[b]:
                both = scores[[rows[a], rows[b]]][:, places]
                tested.append(_compare_starts(a, b, both, chosen, weights, self.confidence))
            else:
                tested.append(_compare_counts(a, b, counts[a], counts[b], self.confidence))
        p_values = {(pair["a"], pair["b"]): pair["p_value"] for pair in tested}
        adjusted = adjust_p_values(list(p_values.values()), self.correction)
        return Pairwise(
            comparisons=tuple(
                Comparison(adjusted=float(p), **pair)
                for pair, p in zip(tested, adjusted, strict=True)
            ),
            letters=compact_letters(p_values, self.alpha, self.correction, names=names),
            alpha=self.alpha,
            correction=self.correction,
        )

    @cached_property
    def _starts(self) -> dict[str, set[Start]]:
        return starts_of(self.outcomes)

    @cached_property
    def _grid(self) -> tuple[dict[str, int], dict[Start, int], np.ndarray]:
        """Row of each policy, column of each start state, and the scores."""
        names = list(self._starts)
        starts = sorted(set().union(*self._starts.values()))
        scores = score_grid(self.outcomes, names, starts)
        return (
            {name: i for i, name in enumerate(names)},
            {start: i for i, start in enumerate(starts)},
            scores,
        )


def _best_first(counts: Mapping[str, OutcomeCounts]) -> list[str]:
    """The policies that have a rate."""
    rates = {name: tally.rate for name, tally in counts.items() if tally.rate is not None}
    return sorted(rates, key=lambda name: (-rates[name], name))


def _compare_starts(
    a: str,
    b: str,
    scores: np.ndarray,
    starts: Sequence[Start],
    weights: Weights,
    confidence: float,
) -> dict[str, Any]:
    both = np.isfinite(scores).all(axis=0)
    scale = np.ones(int(both.sum()))
    if weights != "rollouts" and both.any():
        tasks = [starts[k][0] for k in np.flatnonzero(both).tolist()]
        starts_in = {task: tasks.count(task) for task in set(tasks)}
        scale = np.array([task_weight(weights, task) / starts_in[task] for task in tasks])
    if not scale.any():
        return _nothing_known(a, b, paired=True)
    # Without the starts of weight 0, exact 0 and 1 where all weigh the same.
    counted = scale > 0
    kept, scale = scores[:, both][:, counted], scale[counted] / scale.max()
    test = paired_test(kept[0] * scale, kept[1] * scale, confidence=confidence)
    to_rate = len(scale) / scale.sum()
    return {
        "a": a,
        "b": b,
        "difference": test.difference * to_rate,
        "low": max(-1.0, test.low * to_rate),
        "high": min(1.0, test.high * to_rate),
        "p_value": test.p_value,
        "rollouts": test.pairs,
        "paired": True,
    }


def _compare_counts(
    a: str, b: str, of_a: OutcomeCounts, of_b: OutcomeCounts, confidence: float
) -> dict[str, Any]:
    (wins_a, trials_a), (wins_b, trials_b) = _whole_counts(of_a), _whole_counts(of_b)
    if not trials_a or not trials_b or of_a.rate is None or of_b.rate is None:
        return _nothing_known(a, b, paired=False)
    bounds = difference_interval(wins_a, trials_a, wins_b, trials_b, confidence=confidence)
    if trials_a * trials_b <= BARNARD_TABLES:
        p_value = barnard_test(wins_a, trials_a, wins_b, trials_b).p_value
    else:
        p_value = _fisher(wins_a, trials_a, wins_b, trials_b)
    return {
        "a": a,
        "b": b,
        "difference": of_b.rate - of_a.rate,
        "low": bounds.low,
        "high": bounds.high,
        "p_value": p_value,
        "rollouts": min(trials_a, trials_b),
        "paired": False,
    }


def _fisher(successes_a: int, trials_a: int, successes_b: int, trials_b: int) -> float:
    from scipy.stats import fisher_exact

    table = [[successes_a, successes_b], [trials_a - successes_a, trials_b - successes_b]]
    return min(1.0, float(fisher_exact(table).pvalue))


def _whole_counts(tally: OutcomeCounts) -> tuple[int, int]:
    """Successes and trials; of weighted ones as many as they are worth, rounded down."""
    if tally.weighted is None or tally.rate is None:
        return tally.successes, tally.decided
    trials = int(tally.effective)
    return round(tally.rate * trials), trials


def _nothing_known(a: str, b: str, *, paired: bool) -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "difference": None,
        "low": None,
        "high": None,
        "p_value": 1.0,
        "rollouts": 0,
        "paired": paired,
    }


def _plan(
    pair: Comparison, counts: Mapping[str, OutcomeCounts], *, alpha: float, pairs: int
) -> Plan:
    a, b = pair.a, pair.b
    rate_a, rate_b = counts[a].rate, counts[b].rate
    assert rate_a is not None and rate_b is not None
    alone = among_all = None
    if abs(rate_a - rate_b) > 1e-9:
        alone = rollouts_needed(rate_a, rate_b, power=POWER, alpha=alpha)
        among_all = rollouts_needed(rate_a, rate_b, power=POWER, alpha=alpha / pairs)
    return Plan(
        a=a,
        b=b,
        rate_a=rate_a,
        rate_b=rate_b,
        have=min(counts[a].decided, counts[b].decided),
        rollouts=alone,
        rollouts_among_all=among_all,
    )
