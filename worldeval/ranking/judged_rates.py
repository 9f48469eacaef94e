"""The true success rate behind one that a fallible judge reports.

In: the share of successes the judge said, and how often it errs, measured on rollouts whose true
outcome is known. Out: ``Estimate`` of the true rate in [0, 1].

Rogan & Gladen (Am. J. Epidemiol. 107, 1978), with p the judged rate::

    rate = (p + specificity - 1) / (sensitivity + specificity - 1)

and the interval of Lee et al. (arXiv 2511.21140), which carries the randomness of the rollouts and
of the calibration. For a policy on which the judge was not measured see peer_rates.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from worldeval.errors import ConfigError, DataError
from worldeval.ranking.intervals import Estimate, check_counts, normal_quantile

MeasuredOn = Literal["given", "own", "others", "pooled"]
"""On whose rollouts errors were seen: ``corrections.MEASURED_ON`` says it; ``given``: not known."""


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
    positives: float
    negatives: float
    errors_of: MeasuredOn = "given"

    def __post_init__(self) -> None:
        for name in ("positives", "negatives"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 1):
                raise ConfigError(
                    f"judge calibration has {value!r} {name}, expected at least 1; judge some "
                    f"rollouts whose true outcome is known"
                )
        _check_judge(self.sensitivity, self.specificity)

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

    def correct(self, successes: float, trials: float, confidence: float = 0.95) -> Estimate:
        """``rogan_gladen`` of this judge's ``successes`` in ``trials`` decided rollouts."""
        check_counts(successes, trials)
        if trials == 0:
            raise DataError("cannot correct a rate over 0 decided rollouts; judge some first")
        return rogan_gladen(
            successes / trials,
            self.sensitivity,
            self.specificity,
            trials=trials,
            positives=self.positives,
            negatives=self.negatives,
            confidence=confidence,
        )


def rogan_gladen(
    observed: float,
    sensitivity: float,
    specificity: float,
    *,
    trials: float | None = None,
    positives: float | None = None,
    negatives: float | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """The true rate behind a judged one, clipped to [0, 1].

    observed: the share of rollouts that the judge called a success.
    trials: how many rollouts it is a share of. positives, negatives: how many true successes and
        failures sensitivity and specificity were measured on. Without these three there is no
        telling how sure the rate is: the interval is [0, 1].

    The interval (Lee et al., arXiv 2511.21140) adds z^2/2 successes in z^2 rollouts to the judged
    counts and 1 in 2 to the calibration counts, recomputes the rate as t, and is::

        t + 2 z^2 (-(1 - t) sp (1 - sp)/m0 + t se (1 - se)/m1)
          +- z sqrt(p (1 - p)/n + (1 - t)^2 sp (1 - sp)/m0 + t^2 se (1 - se)/m1) / (se + sp - 1)

    Raises ConfigError for a judge no better than a coin (sensitivity + specificity <= 1) and for
    numbers that cannot be.

    >>> round(rogan_gladen(0.4, sensitivity=0.9, specificity=0.7).rate, 6)
    0.166667
    """
    if not 0 <= observed <= 1:
        raise DataError(f"the judged rate is {observed!r}, expected a number in [0, 1]")
    _check_judge(sensitivity, specificity)
    rate = min(1.0, max(0.0, unmix(observed, sensitivity, specificity)))
    counts = {"trials": trials, "positives": positives, "negatives": negatives}
    missing = [name for name, count in counts.items() if count is None]
    if missing and len(missing) < len(counts):
        raise ConfigError(f"an interval needs {missing} too; give all of {list(counts)} or none")
    if trials is None or positives is None or negatives is None:
        return Estimate(rate=rate, low=0.0, high=1.0)
    for name, count in counts.items():
        if count is None or not (math.isfinite(count) and count > 0):
            raise ConfigError(f"{name} is {count!r}, expected a count above 0")

    z = normal_quantile(confidence)
    p, n = (observed * trials + z**2 / 2) / (trials + z**2), trials + z**2
    m1, m0 = positives + 2, negatives + 2
    se, sp = (sensitivity * positives + 1) / m1, (specificity * negatives + 1) / m0
    if se + sp <= 1:
        # The rate exists, but so few calibration rollouts bound nothing.
        return Estimate(rate=rate, low=0.0, high=1.0)
    t = unmix(p, se, sp)
    of_sensitivity, of_specificity = se * (1 - se) / m1, sp * (1 - sp) / m0
    variance = p * (1 - p) / n + (1 - t) ** 2 * of_specificity + t**2 * of_sensitivity
    centre = t + 2 * z**2 * (t * of_sensitivity - (1 - t) * of_specificity)
    half = z * math.sqrt(variance) / (se + sp - 1)
    return Estimate(
        rate=rate,
        low=min(1.0, max(0.0, centre - half)),
        high=max(0.0, min(1.0, centre + half)),
    )


def unmix(judged: float, sensitivity: float, specificity: float) -> float:
    """Rogan & Gladen's rate, wherever it may lie; for a judge better than a coin."""
    return (judged + specificity - 1) / (sensitivity + specificity - 1)


def _check_judge(sensitivity: float, specificity: float) -> None:
    for name, value in (("sensitivity", sensitivity), ("specificity", specificity)):
        if not 0 <= value <= 1:
            raise ConfigError(f"judge {name} is {value!r}, expected a number in [0, 1]")
    if sensitivity + specificity <= 1:
        raise ConfigError(
            f"judge sensitivity {sensitivity:.3f} + specificity {specificity:.3f} is not above 1: "
            f"such a judge is no better than a coin and cannot be corrected; retrain or replace it"
        )
