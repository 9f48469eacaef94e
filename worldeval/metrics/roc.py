"""How well does a number tell wrong verdicts from right ones? The area under the ROC curve.

In: scores, and which of what they score is wrong. Out: the area, with an interval::

    AUROC = P(score of a wrong one > score of a right one) + P(equal) / 2

(Mann and Whitney 1947): 1 tells them apart always, 0.5 is a coin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 500
FEWEST = 10
"""Wrong and right verdicts, each, under which a signal is not measured."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """AUROC with its interval; NaN where there are fewer than ``FEWEST`` of a kind."""

    value: float
    low: float
    high: float


def auroc(scores: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the ROC curve of ``scores`` (N,) for ``wrong`` (N,) bool, ties counted half; NaN
    unless there are both kinds. Scores that are NaN are left out."""
    known = np.isfinite(scores)
    weights = np.ones((1, int(known.sum())))
    return float(_areas(scores[known], wrong[known], weights)[0])


def area(
    scores: np.ndarray,
    wrong: np.ndarray,
    clusters: np.ndarray,
    *,
    draws: int = DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Area:
    """AUROC with a percentile interval over ``draws`` resamples of whole ``clusters`` (N,)."""
    known = np.isfinite(scores)
    scores, wrong, clusters = scores[known], wrong[known], clusters[known]
    if min(wrong.sum(), (~wrong).sum()) < FEWEST:
        return Area(value=float("nan"), low=float("nan"), high=float("nan"))
    names, owner = np.unique(clusters, return_inverse=True)
    # To draw clusters with replacement is to count each so many times.
    shares = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(seed).multinomial(len(names), shares, size=draws)
    drawn = _areas(scores, wrong, times[:, owner].astype(float))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Area(value=auroc(scores, wrong), low=float(low), high=float(high))


def _areas(scores: np.ndarray, wrong: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of (N,) scores under each row of ``weights`` (D, N); (D,), NaN without both kinds."""
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    ties = np.flatnonzero(np.append(True, np.diff(scores[order]) > 0))  # first of each value
    wrong, weights = wrong[order], weights[:, order]
    above = np.add.reduceat(weights * wrong, ties, axis=1)
    equal = np.add.reduceat(weights * ~wrong, ties, axis=1)
    below = np.cumsum(equal, axis=1) - equal
    pairs = above.sum(1) * equal.sum(1)
    won = (above * (below + equal / 2)).sum(1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
