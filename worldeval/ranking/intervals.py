"""Intervals for a success rate.

In: successes and trials (counts; half successes, as some tables print them, are allowed).
Out: ``Interval(low, high)`` in [0, 1].

Wilson 1927 (the default everywhere: honest at small n and at rates of 0 and 1),
Clopper & Pearson 1934 (never covers less than it says, wider), and the Beta posterior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from worldeval.errors import ConfigError, DataError


class Interval(NamedTuple):
    """A closed interval; unpacks as ``low, high``."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A rate with its interval."""

    rate: float
    low: float
    high: float


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval (JASA 22, 1927), with p = k/n and z the normal quantile::

        (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    No trials say nothing: [0, 1]. Raises DataError for counts that cannot be.
    """
    check_counts(successes, trials)
    if trials == 0:
        return Interval(0.0, 1.0)
    z = normal_quantile(confidence)
    rate = successes / trials
    centre = rate + z**2 / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    # At 0 and n successes the bound is 0 or 1 exactly; rounding would leave 1e-17 of it.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == trials else min(1.0, (centre + half) / scale)
    return Interval(low, high)


def clopper_pearson_interval(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """The exact interval (Biometrika 26, 1934): quantiles of Beta(k, n-k+1) and Beta(k+1, n-k).

    It covers at least as often as it says at every rate, and is wider than Wilson's for it.
    """
    check_counts(successes, trials)
    tail = tail_of(confidence)
    low = 0.0 if successes == 0 else _beta_quantile(successes, trials - successes + 1, tail)
    high = (
        1.0 if successes == trials else _beta_quantile(successes + 1, trials - successes, 1 - tail)
    )
    return Interval(low, high)


def beta_interval(
    successes: float,
    trials: float,
    confidence: float = 0.95,
    *,
    prior: tuple[float, float] = (1.0, 1.0),
) -> Interval:
    """Equal-tailed credible interval of Beta(a + k, b + n - k); (a, b) is uniform unless told."""
    check_counts(successes, trials)
    if min(prior) <= 0:
        raise ConfigError(f"prior is {prior!r}, expected two numbers above 0")
    tail = tail_of(confidence)
    a, b = prior[0] + successes, prior[1] + trials - successes
    return Interval(_beta_quantile(a, b, tail), _beta_quantile(a, b, 1 - tail))


@lru_cache(maxsize=16)
def normal_quantile(confidence: float) -> float:
    """z such that a standard normal lies in [-z, z] with this probability."""
    from scipy.special import ndtri

    return float(ndtri(1 - tail_of(confidence)))


def _beta_quantile(a: float, b: float, probability: float) -> float:
    # scipy.special, not scipy.stats: the latter alone takes longer to import than a ranking.
    from scipy.special import betaincinv

    return float(betaincinv(a, b, probability))


def tail_of(confidence: float) -> float:
    """The probability on either side of a central interval."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence!r}, expected a number between 0 and 1")
    return (1 - confidence) / 2


def check_counts(successes: float, trials: float) -> None:
    """Raise DataError unless 0 <= successes <= trials."""
    if not (math.isfinite(trials) and trials >= 0 and 0 <= successes <= trials):
        raise DataError(
            f"{successes!r} successes of {trials!r} trials: expected 0 <= successes <= trials"
        )
