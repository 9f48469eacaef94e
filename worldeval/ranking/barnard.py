"""The p-value of Barnard's unconditional exact test.

In: the counts of two samples. Out: Wald's statistic and the p-value

    p = max over pi of P(statistic at least as extreme | both rates are pi)

Written here, since ``scipy.stats.barnard_exact`` (1.17) loses outcomes whose statistic equals the
observed one but for rounding: of 7 in 19 against 13 in 19 it says 0.065, with fractions in place of
floats it is 0.073. It is also ten times slower, which a leaderboard of twenty policies feels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

_GRID = 129
_PEAKS = 3
"""So many of the highest grid points are searched around: there are several maxima in pi."""

_ROUNDING = 1e-9


@lru_cache(maxsize=4096)
def barnard(
    successes_a: int, trials_a: int, successes_b: int, trials_b: int, alternative: str
) -> tuple[float, float]:
    """(statistic, p). alternative: "two-sided", "less" (a below b) or "greater"."""
    statistics = _statistics(trials_a, trials_b)
    observed = float(statistics[successes_a, successes_b])
    if alternative == "two-sided":
        extreme = np.abs(statistics) >= abs(observed) - _ROUNDING
    elif alternative == "less":
        extreme = statistics <= observed + _ROUNDING
    else:
        extreme = statistics >= observed - _ROUNDING
    region = extreme.astype(np.float64)

    def probability(angle: np.ndarray) -> np.ndarray:
        return ((_chances(trials_a, angle) @ region) * _chances(trials_b, angle)).sum(axis=1)

    # On this scale a binomial is as wide everywhere, so that an even grid misses no maximum.
    grid = np.linspace(0, math.pi / 2, _GRID)
    found = probability(grid)
    best = float(found.max())
    peaks, width = grid[np.argsort(found)[-_PEAKS:]], float(grid[1])
    for _ in range(4):
        near = peaks[:, None] + np.linspace(-width, width, 17)
        near = np.clip(near, 0, math.pi / 2)
        found = probability(near.ravel()).reshape(near.shape)
        peaks, width = near[np.arange(_PEAKS), found.argmax(axis=1)], width / 8
        best = max(best, float(found.max()))
    return observed, min(1.0, best)


@lru_cache(maxsize=4)
def _statistics(trials_a: int, trials_b: int) -> np.ndarray:
    """(trials_a + 1, trials_b + 1): (p_a - p_b) / se of every outcome, 0 where the rates agree.

    The variance is pooled for equal trials only, as is customary.
    """
    a, b = np.arange(trials_a + 1)[:, None], np.arange(trials_b + 1)[None]
    p_a, p_b = a / trials_a, b / trials_b
    if trials_a == trials_b:
        pooled = (a + b) / (trials_a + trials_b)
        variance = pooled * (1 - pooled) * (1 / trials_a + 1 / trials_b)
    else:
        variance = p_a * (1 - p_a) / trials_a + p_b * (1 - p_b) / trials_b
    difference = np.where(a * trials_b == b * trials_a, 0.0, p_a - p_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 against 1 has no variance and is infinitely far apart; 0 against 0 is no difference.
        return np.where(difference == 0, 0.0, difference / np.sqrt(variance))


def _chances(trials: int, angle: np.ndarray) -> np.ndarray:
    """(angles, trials + 1) chances of each number of successes at the rate sin(angle)^2."""
    from scipy.special import xlog1py, xlogy

    rate = np.sin(angle)[:, None] ** 2
    successes = np.arange(trials + 1)
    return np.exp(_log_choose(trials) + xlogy(successes, rate) + xlog1py(trials - successes, -rate))


@lru_cache(maxsize=16)
def _log_choose(trials: int) -> np.ndarray:
    from scipy.special import gammaln

    k = np.arange(trials + 1)
    return gammaln(trials + 1) - gammaln(k + 1) - gammaln(trials - k + 1)
