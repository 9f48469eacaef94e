"""A few true trials and many imagined ones, joined into one rate.

In: true outcomes Y of n start states, imagined outcomes F of the same start states, and imagined
outcomes U of N other start states of the same kind. Out: ``PredictionPowered``.

Prediction-powered inference (Angelopoulos et al., Science 382, 2023; PPI++, arXiv 2311.01453)::

    estimate = lam mean(U) + mean(Y - lam F)

Imagination may be wrong as it likes: what it gets wrong on the true trials is subtracted again.
It helps only where its outcomes follow the true ones, and lam says how far it is believed: 0 is
the true trials alone, 1 takes imagination at its word. The interval shrinks by at most
1 - rho^2 N / (n + N), with rho the correlation of Y and F.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking.comparisons import square_and_add
from worldeval.ranking.intervals import Estimate, Interval, normal_quantile, wilson_interval
from worldeval.ranking.scores import scores_of

METHODS = ("normal", "control-variate", "wilson")


@dataclass(frozen=True, kw_only=True)
class PredictionPowered:
    """A rate with its interval.

    lam: the weight of imagination.
    real_only: the same from the true trials alone, to see what imagination added.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    lam: float
    real_only: Estimate


@dataclass(frozen=True, kw_only=True)
class PredictionPoweredDifference:
    """Rate of b minus rate of a with its interval; ``real_only`` from the true trials alone."""

    estimate: float
    low: float
    high: float
    standard_error: float
    a: PredictionPowered
    b: PredictionPowered
    real_only: Estimate


def prediction_powered_mean(
    real: Iterable[Any],
    imagined_paired: Iterable[Any],
    imagined_only: Iterable[Any],
    confidence: float = 0.95,
    *,
    lam: float | None = None,
    method: str = "normal",
) -> PredictionPowered:
    """The true rate, from true trials and imagination.

    real: (n,) true outcomes or scores in [0, 1]. imagined_paired: (n,) the imagined ones of the
        same start states, in the same order. imagined_only: (N,) those of further start states,
        drawn like the others.
    lam: weight of imagination in [0, 1]; None chooses the one with the least variance, for
        "normal" clip(cov(Y, F) / ((1 + n/N) var(F and U)), 0, 1).
    method:
        "normal": PPI++ as published, estimate +- z sqrt(lam^2 var(U)/N + var(Y - lam F)/n). Too
            narrow below about 100 true trials, and of no width where all of them succeed.
        "control-variate": lam = N/(N + n) cov(Y, F)/var(F), and variances over n - 1.
        "wilson": lam of PPI++, and Wilson's interval at the estimate with as many trials as true
            ones alone would need for this variance (to which a quarter of a trial of each kind is
            added); the true trials alone where that is no gain. For few trials: from 20 on it
            covers 92 to 98 % (benchmarks/coverage.md), where "normal" covers 84 to 95 %.

    Raises DataError for fewer than two true trials and for undecided ones (leave the start state
    out of both), MismatchError for pairs that do not match.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, expected one of {list(METHODS)}")
    if lam is not None and not 0 <= lam <= 1:
        raise ConfigError(f"lam is {lam!r}, expected a number in [0, 1], or None to choose it")
    y, f, u = _samples(real, imagined_paired, imagined_only)
    chosen = lam is None
    if lam is None:
        lam = _best_lam(y, f, u, method)
    elif lam and not len(u):
        raise ConfigError(f"lam is {lam!r}, but there is no imagined-only outcome to weigh")
    alone, variance_alone = _combine(y, f, u, 0.0, method)
    estimate, variance = _combine(y, f, u, lam, method)
    worth = float(len(y))
    if method == "wilson" and lam:
        worth = _worth(y, f, u, lam)
        if chosen and worth <= len(y):
            lam, worth, estimate, variance = 0.0, float(len(y)), alone, variance_alone
    of_alone = _interval(alone, variance_alone, len(y), confidence, method)
    return PredictionPowered(
        estimate=estimate,
        standard_error=math.sqrt(variance),
        lam=lam,
        real_only=Estimate(rate=alone, low=of_alone.low, high=of_alone.high),
        **_interval(estimate, variance, worth, confidence, method)._asdict(),
    )


def prediction_powered_difference(
    a: tuple[Iterable[Any], Iterable[Any], Iterable[Any]],
    b: tuple[Iterable[Any], Iterable[Any], Iterable[Any]],
    confidence: float = 0.95,
    *,
    lam: float | None = None,
    method: str = "normal",
) -> PredictionPoweredDifference:
    """The rate of b minus the rate of a, each (real, imagined_paired, imagined_only).

    The two are taken as independent, and their intervals squared and added (Newcombe 1998), which
    for "normal" is to add the variances. Policies that share start states, which are hard or easy
    for both, differ by less randomness than that: the interval is then on the safe side.
    """
    of_a = prediction_powered_mean(*a, confidence, lam=lam, method=method)
    of_b = prediction_powered_mean(*b, confidence, lam=lam, method=method)
    low, high = square_and_add(
        of_a.estimate, Interval(of_a.low, of_a.high), of_b.estimate, Interval(of_b.low, of_b.high)
    )
    alone_a, alone_b = of_a.real_only, of_b.real_only
    alone = square_and_add(
        alone_a.rate,
        Interval(alone_a.low, alone_a.high),
        alone_b.rate,
        Interval(alone_b.low, alone_b.high),
    )
    return PredictionPoweredDifference(
        estimate=of_b.estimate - of_a.estimate,
        low=low,
        high=high,
        standard_error=math.hypot(of_a.standard_error, of_b.standard_error),
        a=of_a,
        b=of_b,
        real_only=Estimate(rate=alone_b.rate - alone_a.rate, low=alone.low, high=alone.high),
    )


def _samples(real: Any, paired: Any, only: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = scores_of(real, "real")
    f = scores_of(paired, "imagined_paired")
    u = scores_of(only, "imagined_only")
    if len(y) != len(f):
        raise MismatchError(
            f"{len(y)} true trials but {len(f)} imagined ones of the same start states; expected "
            f"one of each"
        )
    if len(y) < 2:
        raise DataError(f"{len(y)} true trials: a spread needs at least 2; run more true trials")
    for side, values in (("real", y), ("imagined_paired", f), ("imagined_only", u)):
        if np.isnan(values).any():
            raise DataError(
                f"{int(np.isnan(values).sum())} of {len(values)} outcomes of {side} are undecided; "
                f"leave these start states out"
            )
    return y, f, u


def _best_lam(y: np.ndarray, f: np.ndarray, u: np.ndarray, method: str) -> float:
    if not len(u):
        return 0.0
    if method == "control-variate":
        covariance, variance = _covariance(y, f, 1), (1 + len(y) / len(u)) * f.var(ddof=1)
    else:
        # Divided by n and by n + N - 1, as in the published code.
        covariance = _covariance(y, f, 0)
        variance = (1 + len(y) / len(u)) * np.concatenate([f, u]).var(ddof=1)
    return float(np.clip(covariance / variance, 0.0, 1.0)) if variance > 0 else 0.0


def _worth(y: np.ndarray, f: np.ndarray, u: np.ndarray, lam: float) -> float:
    """How many true trials alone would have the variance of those joined with imagination.

    A quarter of a trial is added at each corner (0, 0), (0, 1), (1, 0) and (1, 1) of (Y, F): that
    few trials went as imagined does not prove that all would.
    """
    corner_y, corner_f = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    weights = np.concatenate([np.ones(len(y)), np.full(4, 0.25)])

    def spread(of_trials: np.ndarray, of_corners: np.ndarray) -> float:
        values = np.concatenate([of_trials, of_corners])
        mean = np.average(values, weights=weights)
        return float(np.average((values - mean) ** 2, weights=weights))

    rest = spread(y - lam * f, corner_y - lam * corner_f) + lam**2 * u.var() * len(y) / len(u)
    return len(y) * spread(y, corner_y) / rest


def _covariance(x: np.ndarray, y: np.ndarray, ddof: int) -> float:
    return float(((x - x.mean()) * (y - y.mean())).sum() / (len(x) - ddof))


def _combine(
    y: np.ndarray, f: np.ndarray, u: np.ndarray, lam: float, method: str
) -> tuple[float, float]:
    """The estimate and its variance."""
    ddof = 1 if method == "control-variate" else 0
    rest = y - lam * f
    estimate, variance = float(rest.mean()), float(rest.var(ddof=ddof)) / len(y)
    if lam:
        estimate += lam * float(u.mean())
        variance += lam**2 * float(u.var(ddof=ddof if len(u) > 1 else 0)) / len(u)
    return estimate, variance


def _interval(
    estimate: float, variance: float, worth: float, confidence: float, method: str
) -> Interval:
    """worth: how many true trials alone would have this variance."""
    if method == "wilson":
        return wilson_interval(min(1.0, max(0.0, estimate)) * worth, worth, confidence)
    half = normal_quantile(confidence) * math.sqrt(variance)
    return Interval(estimate - half, estimate + half)
