"""Intervals for a success rate, and its correction for a judge that errs.

In: successes and trials (counts; half successes, as some tables print them, are allowed).
Out: ``Interval(low, high)`` in [0, 1].

Wilson 1927 (the default everywhere: honest at small n and at rates of 0 and 1),
Clopper & Pearson 1934 (never covers less than it says, wider), the Beta posterior, and
Rogan & Gladen 1978 with the interval of Lee et al. (arXiv 2511.21140) for judged rates.
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


@dataclass(frozen=True, kw_only=True)
class JudgeCalibration:
    """How often a judge is right, measured on rollouts whose true outcome is known.

    Calibrate on IMAGINED rollouts: a judge errs differently on imagined than on recorded video,
    and the correction assumes one error for both. Abstentions are left out on both sides.

    sensitivity: P(says success | is a success), over ``positives`` true successes.
    specificity: P(says failure | is a failure), over ``negatives`` true failures.
    """

    sensitivity: float
    specificity: float
    positives: int
    negatives: int

    def __post_init__(self) -> None:
        for name in ("sensitivity", "specificity"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"judge {name} is {value!r}, expected a number in [0, 1]")
        for name in ("positives", "negatives"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(
                    f"judge calibration has {value!r} {name}, expected at least 1; judge some "
                    f"rollouts whose true outcome is known"
                )
        if self.sensitivity + self.specificity <= 1:
            raise ConfigError(
                f"judge sensitivity {self.sensitivity:.3f} + specificity {self.specificity:.3f} "
                f"is not above 1: such a judge is no better than a coin and cannot be corrected; "
                f"retrain or replace it"
            )

    @classmethod
    def from_counts(
        cls, *, true_success: int, false_success: int, false_failure: int, true_failure: int
    ) -> JudgeCalibration:
        """From a confusion table of what the judge said against what was true."""
        positives = true_success + false_failure
        negatives = true_failure + false_success
        return cls(
            sensitivity=true_success / positives if positives else 0.0,
            specificity=true_failure / negatives if negatives else 0.0,
            positives=positives,
            negatives=negatives,
        )


def wilson_interval(successes: float, trials: float, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval. No trials say nothing: [0, 1]."""
    _check(successes, trials)
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


def clopper_pearson_interval(
    successes: float, trials: float, *, confidence: float = 0.95
) -> Interval:
    """The exact interval: Beta quantiles of (k, n-k+1) and (k+1, n-k)."""
    _check(successes, trials)
    tail = _tail(confidence)
    low = 0.0 if successes == 0 else _beta_quantile(successes, trials - successes + 1, tail)
    high = (
        1.0 if successes == trials else _beta_quantile(successes + 1, trials - successes, 1 - tail)
    )
    return Interval(low, high)


def beta_interval(
    successes: float,
    trials: float,
    *,
    confidence: float = 0.95,
    prior: tuple[float, float] = (1.0, 1.0),
) -> Interval:
    """Equal-tailed credible interval under a Beta prior, uniform unless told."""
    _check(successes, trials)
    if min(prior) <= 0:
        raise ConfigError(f"prior is {prior!r}, expected two numbers above 0")
    tail = _tail(confidence)
    a, b = prior[0] + successes, prior[1] + trials - successes
    return Interval(_beta_quantile(a, b, tail), _beta_quantile(a, b, 1 - tail))


def rogan_gladen(
    successes: float,
    trials: float,
    calibration: JudgeCalibration,
    *,
    confidence: float = 0.95,
) -> Estimate:
    """The true rate behind a judged one: (p + specificity - 1) / (sensitivity + specificity - 1).

    The interval carries the chance in the rollouts and in the calibration, adjusted as Lee et
    al. do (z^2/2 added to the judged counts, 1 in 2 to the calibration counts, and a shift).
    """
    _check(successes, trials)
    if trials == 0:
        raise DataError("cannot correct a rate over 0 decided rollouts; judge some first")
    z = normal_quantile(confidence)
    theta = _unmix(successes / trials, calibration.sensitivity, calibration.specificity)

    positives, negatives = calibration.positives + 2, calibration.negatives + 2
    sensitivity = (calibration.sensitivity * calibration.positives + 1) / positives
    specificity = (calibration.specificity * calibration.negatives + 1) / negatives
    judged = (successes + z**2 / 2) / (trials + z**2)
    if sensitivity + specificity <= 1:
        # The point estimate exists, but so few calibration rollouts bound nothing.
        return Estimate(rate=min(1.0, max(0.0, theta)), low=0.0, high=1.0)
    adjusted = _unmix(judged, sensitivity, specificity)
    of_specificity = specificity * (1 - specificity) / negatives
    of_sensitivity = sensitivity * (1 - sensitivity) / positives
    variance = (
        judged * (1 - judged) / (trials + z**2)
        + (1 - adjusted) ** 2 * of_specificity
        + adjusted**2 * of_sensitivity
    ) / (sensitivity + specificity - 1) ** 2
    shift = 2 * z**2 * (-(1 - adjusted) * of_specificity + adjusted * of_sensitivity)
    half = z * math.sqrt(variance)
    return Estimate(
        rate=min(1.0, max(0.0, theta)),
        low=min(1.0, max(0.0, adjusted + shift - half)),
        high=max(0.0, min(1.0, adjusted + shift + half)),
    )


@lru_cache(maxsize=16)
def normal_quantile(confidence: float) -> float:
    """z such that a standard normal lies in [-z, z] with this probability."""
    from scipy.special import ndtri

    return float(ndtri(1 - _tail(confidence)))


def _unmix(judged: float, sensitivity: float, specificity: float) -> float:
    return (judged + specificity - 1) / (sensitivity + specificity - 1)


def _beta_quantile(a: float, b: float, probability: float) -> float:
    # scipy.special, not scipy.stats: the latter alone takes longer to import than a ranking.
    from scipy.special import betaincinv

    return float(betaincinv(a, b, probability))


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence!r}, expected a number between 0 and 1")
    return (1 - confidence) / 2


def _check(successes: float, trials: float) -> None:
    if not (math.isfinite(trials) and trials >= 0 and 0 <= successes <= trials):
        raise DataError(
            f"{successes!r} successes of {trials!r} trials: expected 0 <= successes <= trials"
        )
