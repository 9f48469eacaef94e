"""Tests on simulated experiments: how often they speak though there is nothing to see, and how many
rollouts it takes them to see what there is. Tables are made of them by ``coverage.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from worldeval.ranking.comparisons import paired_test
from worldeval.ranking.planning import rollouts_needed
from worldeval.ranking.sequential import e_values
from worldeval.ranking.sequential_order import SequentialOrder

ALPHA = 0.05


class Row(NamedTuple):
    """One setting: what it was, and the share of experiments (coverage or false alarms)."""

    setting: str
    share: float


DEPENDENCES = ("independent", "positive", "negative")


def draw_pairs(
    rng: np.random.Generator, a: float, b: float, dependence: str, draws: int, length: int
) -> np.ndarray:
    """(draws, length, 2) outcomes 0/1 of two policies of rates a and b on the same start states.

    positive: what one solves the other tends to solve (half of the starts share their luck);
    negative: what one solves the other tends to fail, as far as the rates allow.
    """
    luck_a = rng.random((draws, length))
    luck_b = rng.random((draws, length))
    if dependence == "positive":
        luck_b = np.where(rng.random((draws, length)) < 0.5, luck_a, luck_b)
    elif dependence == "negative":
        luck_b = 1 - luck_a
    return np.stack([luck_a < a, luck_b < b], axis=-1).astype(np.float64)


def stops(pairs: np.ndarray, method: str = "betting") -> np.ndarray:
    """Pairs after which one of two claims is made, each at alpha / 2; 0 where never.

    pairs: (draws, n, 2). Looks after every pair, as a reader does who cannot wait.
    """
    a_better, b_better = (e_values(p, method=method) for p in (pairs[..., ::-1], pairs))
    crossed = np.maximum(a_better, b_better) >= 2 / ALPHA
    return np.where(crossed.any(1), crossed.argmax(1) + 1, 0)


def paired_alarms(rng: np.random.Generator, draws: int) -> list[Row]:
    rows = []
    for length in (20, 50, 100):
        for rate in (0.2, 0.5, 0.9):
            for dependence in DEPENDENCES:
                pairs = draw_pairs(rng, rate, rate, dependence, draws, length)
                share = share_significant(pairs)
                rows.append(Row(f"n {length}, rates {rate}, {dependence}", share))
    return rows


def sequential_alarms(
    rng: np.random.Generator, draws: int, method: str = "betting", length: int = 500
) -> list[Row]:
    """Equal rates, a look after every pair, stopped at the first claim."""
    rows = []
    for rate in (0.1, 0.5, 0.8, 0.95):
        for dependence in DEPENDENCES:
            pairs = draw_pairs(rng, rate, rate, dependence, draws, length)
            alarms = float((stops(pairs, method) > 0).mean())
            rows.append(Row(f"rates {rate}, {dependence}, {length} looks", alarms))
    return rows


FIELDS = {
    "4 equal policies": (0.5,) * 4,
    "6 equal policies": (0.7,) * 6,
    "two equal between two others": (0.1, 0.5, 0.5, 0.9),
    "three pairs of equals": (0.2, 0.2, 0.5, 0.5, 0.8, 0.8),
}


LOOKS = np.arange(9, 100, 10)
"""Start states, counted from 0, after which an order of several policies is looked at."""


def draw_field(rng: np.random.Generator, rates: Sequence[float], draws: int) -> np.ndarray:
    """(draws, start states, policies) outcomes; policies share the luck of half the starts."""
    shape = (draws, LOOKS[-1] + 1, len(rates))
    luck = np.where(rng.random(shape) < 0.5, rng.random((*shape[:2], 1)), rng.random(shape))
    return (luck < np.asarray(rates)).astype(float)


def evidence_in(outcomes: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """(better, worse) -> (draws, looks) e-values; policies are called p0, p1, ..."""
    return {
        (f"p{i}", f"p{j}"): e_values(outcomes[..., [j, i]], method="betting")[:, LOOKS]
        for i in range(outcomes.shape[2])
        for j in range(outcomes.shape[2])
        if i != j
    }


def order_alarms(rng: np.random.Generator, draws: int) -> list[Row]:
    """Several policies at once: how often any decision of the order is wrong (family-wise)."""
    rows = []
    for name, rates in FIELDS.items():
        evidence = evidence_in(draw_field(rng, rates, draws))
        # No claim can be made before an e-value has reached 1/alpha: most draws need no look.
        highest = np.max([e.max(1) for e in evidence.values()], axis=0)
        rate = {f"p{i}": value for i, value in enumerate(rates)}
        wrong = 0
        for draw in np.flatnonzero(highest >= 1 / ALPHA):
            order = SequentialOrder(rate, alpha=ALPHA)
            for look in range(len(LOOKS)):
                order.decide({claim: float(e[draw, look]) for claim, e in evidence.items()})
            wrong += any(rate[d.better] <= rate[d.worse] for d in order.decisions)
        rows.append(Row(f"{name}, {LOOKS[-1] + 1} start states", wrong / draws))
    return rows


def best_alarms(rng: np.random.Generator, draws: int) -> list[Row]:
    """How often the best policy (one of them, if several are) drops out of a search for it."""
    rows = []
    for name, rates in FIELDS.items():
        best = f"p{int(np.argmax(rates))}"
        evidence = evidence_in(draw_field(rng, rates, draws))
        against = np.mean([e for (_, worse), e in evidence.items() if worse == best], axis=0)
        share = float((against >= 1 / ALPHA).any(1).mean())
        rows.append(Row(f"{name}, {LOOKS[-1] + 1} start states", share))
    return rows


@dataclass(frozen=True, kw_only=True)
class Saving:
    """A pair of policies, compared by a fixed number of rollouts or by looking after each."""

    rates: tuple[float, float]
    dependence: str
    formula: int
    """``rollouts_needed`` for 80 % power, of independent rollouts."""
    fixed: int
    """Start states with which the exact paired test has this power: for this very difference."""
    mean: float
    """Start states that the sequential test takes on average if it gives up where it, too, has
    this power (``cap``)."""
    cap: int
    open_mean: float
    """Start states that it takes on average if it gives up at UNSURE only, ..."""
    open_power: float
    """... and how often it has decided by then."""


CONTRASTS = ((0.5, 0.6), (0.5, 0.7), (0.5, 0.8), (0.8, 0.9), (0.1, 0.9))
UNSURE = 388
"""Rollouts per policy that the smallest of these differences needs (.5 v .6): what one plans for
who does not know the difference beforehand."""


def savings(rng: np.random.Generator, draws: int, power: float = 0.8) -> list[Saving]:
    rows = []
    for a, b in CONTRASTS:
        formula = rollouts_needed(a, b, power=power, alpha=ALPHA)
        length = max(UNSURE, 3 * formula)
        for dependence in ("independent", "positive"):
            pairs = draw_pairs(rng, a, b, dependence, draws, length)
            ends = stops(pairs)
            ends = np.sort(np.where(ends == 0, length, ends))
            cap = int(ends[int(np.ceil(power * draws)) - 1])
            rows.append(
                Saving(
                    rates=(a, b),
                    dependence=dependence,
                    formula=formula,
                    fixed=least_trials(pairs, power),
                    mean=float(np.minimum(ends, cap).mean()),
                    cap=cap,
                    open_mean=float(np.minimum(ends, UNSURE).mean()),
                    open_power=float((ends <= UNSURE).mean()),
                )
            )
    return rows


def least_trials(pairs: np.ndarray, power: float) -> int:
    """The fewest start states with which the paired test speaks in ``power`` of experiments."""
    low, high = 0, pairs.shape[1]
    while high - low > 1:
        middle = (low + high) // 2
        enough = share_significant(pairs[:, :middle]) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def share_significant(pairs: np.ndarray) -> float:
    """Share of experiments (draws, n, 2) in which the paired test speaks."""
    trials = pairs.shape[1]
    only_a = (pairs[..., 0] > pairs[..., 1]).sum(1)
    only_b = (pairs[..., 1] > pairs[..., 0]).sum(1)
    kinds, times = np.unique(np.stack([only_a, only_b], 1), axis=0, return_counts=True)
    found = 0
    for (i, j), count in zip(kinds, times, strict=True):
        a = np.repeat([1.0, 0.0, 0.0], [i, j, trials - i - j])
        b = np.repeat([0.0, 1.0, 0.0], [i, j, trials - i - j])
        found += int(count) * bool(paired_test(a, b).p_value <= ALPHA)
    return found / len(pairs)
