"""Intervals on simulated experiments: how often they hold the true value.

Draws are vectorised; a function is called once for each different result (an experiment of 50
trials has 51). Tables are made of them by ``coverage.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from simulated_tests import DEPENDENCES, Row, draw_pairs, stops

from worldeval.ranking.comparisons import difference_interval
from worldeval.ranking.intervals import wilson_interval
from worldeval.ranking.judged_rates import rogan_gladen
from worldeval.ranking.prediction_powered import (
    prediction_powered_difference,
    prediction_powered_mean,
)
from worldeval.ranking.sequential_order import difference_sequence


def share_covered(
    results: np.ndarray, truth: float, interval: Callable[..., tuple[float, float]]
) -> float:
    """Share of experiments whose interval holds ``truth``.

    results: (experiments, numbers) counts; ``interval`` is called once for each different row.
    """
    different, times = np.unique(results, axis=0, return_counts=True)
    bounds = np.array([interval(*(int(count) for count in row)) for row in different])
    held = (bounds[:, 0] - 1e-12 <= truth) & (truth <= bounds[:, 1] + 1e-12)
    return float(times[held].sum() / times.sum())


def wilson(rng: np.random.Generator, draws: int) -> list[Row]:
    rows = []
    for trials in (10, 20, 25, 50, 100, 200):
        for rate in (0.05, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
            successes = rng.binomial(trials, rate, (draws, 1))
            share = share_covered(successes, rate, lambda k, n=trials: wilson_interval(k, n))
            rows.append(Row(f"n {trials}, rate {rate}", share))
    return rows


def newcombe(rng: np.random.Generator, draws: int) -> list[Row]:
    rows = []
    for trials_a, trials_b in ((10, 10), (20, 20), (50, 50), (100, 100), (20, 200)):
        for a, b in ((0.5, 0.5), (0.5, 0.7), (0.2, 0.4), (0.8, 0.9), (0.9, 0.95), (0.1, 0.9)):
            counts = np.stack(
                [rng.binomial(trials_a, a, draws), rng.binomial(trials_b, b, draws)], axis=1
            )
            share = share_covered(
                counts,
                b - a,
                lambda i, j, n=trials_a, m=trials_b: difference_interval(i, n, j, m),
            )
            rows.append(Row(f"n {trials_a} and {trials_b}, rates {a} and {b}", share))
    return rows


class Imagined(NamedTuple):
    """How a policy does truly, how it does in imagination, and how the two go together."""

    rate: float
    imagined: float
    correlation: float

    def joint(self) -> np.ndarray:
        """Probabilities of (true, imagined) = (0, 0), (0, 1), (1, 0), (1, 1)."""
        p, q = self.rate, self.imagined
        both = p * q + self.correlation * np.sqrt(p * (1 - p) * q * (1 - q))
        cells = np.array([1 - p - q + both, q - both, p - both, both])
        if cells.min() < -1e-12:
            raise ValueError(f"no two coins are like {self}")
        return np.clip(cells, 0, 1)

    def draw(self, rng: np.random.Generator, trials: int, imagined: int, draws: int) -> np.ndarray:
        """Counts (draws, 5): the four of the joint trials, and successes of imagination alone."""
        paired = rng.multinomial(trials, self.joint(), draws)
        only = rng.binomial(imagined, self.imagined, (draws, 1))
        return np.concatenate([paired, only], axis=1)


IMAGINED = (
    Imagined(0.25, 0.2, 0.7),  # SureSim, table 1: a diffusion policy; a better one
    Imagined(0.82, 0.82, 0.6),
    Imagined(0.5, 0.6, 0.4),
    Imagined(0.5, 0.5, 0.9),
    Imagined(0.7, 0.5, 0.0),  # imagination says nothing
)
FEW_AND_MANY = ((20, 200), (30, 700), (60, 700), (100, 2000))


def arrays(n00: int, n01: int, n10: int, n11: int, solved: int, imagined: int) -> tuple:
    """True outcomes, imagined ones of the same starts, and imagined ones alone, from counts."""
    real = np.repeat([0.0, 0.0, 1.0, 1.0], [n00, n01, n10, n11])
    paired = np.repeat([0.0, 1.0, 0.0, 1.0], [n00, n01, n10, n11])
    return real, paired, np.repeat([1.0, 0.0], [solved, imagined - solved])


def powered_mean(rng: np.random.Generator, draws: int, method: str) -> list[Row]:
    rows = []
    for trials, imagined in FEW_AND_MANY:
        for kind in IMAGINED:

            def interval(*counts: int, many: int = imagined) -> tuple[float, float]:
                answer = prediction_powered_mean(*arrays(*counts, many), method=method)
                return answer.low, answer.high

            counts = kind.draw(rng, trials, imagined, draws)
            rows.append(
                Row(
                    f"{trials} + {imagined}, {spell(kind)}",
                    share_covered(counts, kind.rate, interval),
                )
            )
    return rows


def powered_difference(rng: np.random.Generator, draws: int, method: str) -> list[Row]:
    pairs = ((IMAGINED[0], IMAGINED[1]), (IMAGINED[2], IMAGINED[3]), (IMAGINED[3], IMAGINED[4]))
    rows = []
    for trials, imagined in FEW_AND_MANY:
        for a, b in pairs:

            def interval(*counts: int, many: int = imagined) -> tuple[float, float]:
                answer = prediction_powered_difference(
                    arrays(*counts[:5], many), arrays(*counts[5:], many), method=method
                )
                return answer.low, answer.high

            counts = np.concatenate([d.draw(rng, trials, imagined, draws) for d in (a, b)], axis=1)
            share = share_covered(counts, b.rate - a.rate, interval)
            rows.append(Row(f"{trials} + {imagined}, {spell(a)} and {spell(b)}", share))
    return rows


def spell(kind: Imagined) -> str:
    return f"rate {kind.rate} (imagined {kind.imagined}, correlation {kind.correlation})"


def judged(rng: np.random.Generator, draws: int) -> list[Row]:
    rows = []
    for sensitivity, specificity in ((0.95, 0.95), (0.9, 0.85), (0.8, 0.8)):
        for positives, negatives in ((25, 25), (60, 60), (200, 200)):
            for trials, rate in ((50, 0.5), (100, 0.2), (100, 0.8), (400, 0.5), (400, 0.9)):
                says = rate * sensitivity + (1 - rate) * (1 - specificity)
                counts = np.stack(
                    [
                        rng.binomial(trials, says, draws),
                        rng.binomial(positives, sensitivity, draws),
                        rng.binomial(negatives, specificity, draws),
                    ],
                    axis=1,
                )

                def interval(
                    k: int, hits: int, rejected: int, n=trials, m1=positives, m0=negatives
                ) -> tuple[float, float]:
                    answer = rogan_gladen(
                        k / n, hits / m1, rejected / m0, trials=n, positives=m1, negatives=m0
                    )
                    return answer.low, answer.high

                share = share_covered(counts, rate, interval)
                rows.append(
                    Row(
                        f"n {trials}, rate {rate}, judge {sensitivity}/{specificity} "
                        f"on {positives}+{negatives}",
                        share,
                    )
                )
    return rows


def stopped_difference(rng: np.random.Generator, draws: int) -> list[Row]:
    """The confidence sequence at the moment at which the pair was decided, or the suite ended."""
    rows = []
    for a, b in ((0.5, 0.5), (0.5, 0.7), (0.8, 0.9), (0.2, 0.6)):
        for dependence in DEPENDENCES:
            pairs = draw_pairs(rng, a, b, dependence, draws, 200)
            ends = stops(pairs)
            ends[ends == 0] = 200
            seen = np.arange(200)[None] < ends[:, None]
            only_a = ((pairs[..., 0] > pairs[..., 1]) & seen).sum(1)
            only_b = ((pairs[..., 1] > pairs[..., 0]) & seen).sum(1)
            counts = np.stack([only_a, only_b, ends - only_a - only_b], axis=1)
            share = share_covered(counts, b - a, difference_sequence)
            rows.append(Row(f"at most 200 pairs, rates {a} and {b}, {dependence}", share))
    return rows
