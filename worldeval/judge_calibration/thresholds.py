"""Where to cut a judge's probability: what each choice gives, and what it costs in abstentions.

Enters: one probability and one true label a rollout. Leaves: ``Threshold`` choices to compare:

- *precise*: both "success" and "failure" are right as often as asked for, whatever lies between is
  left undecided (``calibration.choose_band``);
- *steady*: one cut without abstentions, where the rate corrected for the judge's errors has the
  least standard error. With q the judged rate, theta the true one, J = sensitivity + specificity -
  1, m_1 and m_0 true successes and failures, and n rollouts to be judged (Rogan & Gladen 1978)::

    variance = [q (1 - q) / n + theta^2 se (1 - se) / m_1 + (1 - theta)^2 sp (1 - sp) / m_0] / J^2

  More of one error may be worth less of the other: the correction removes the bias of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from worldeval.errors import DataError
from worldeval.judging.probability import Calibration, Counts, choose_band, count

CUTS = 256  # distinct cuts tried for the steadiest one


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """One way to cut: success from ``upper`` on, failure below ``lower``, undecided between.

    lower and upper are None for the judge's own decisions, whose band only the judge knows.
    Rates are over the calibration rollouts, None where nothing could show them. precision: true
    successes among those called success; rejection: true failures among those called failure;
    standard_error: of a corrected rate over as many rollouts as were calibrated on, all of them
    decided in the same proportion. reached: False where what was asked for could not be had.
    """

    name: str
    lower: float | None
    upper: float | None
    precision: float | None
    rejection: float | None
    sensitivity: float | None
    specificity: float | None
    abstention: float
    standard_error: float | None
    reached: bool = True


def choose_thresholds(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    precision: float = 0.95,
    max_abstention: float = 0.25,
) -> tuple[Threshold, ...]:
    """*precise* and *steady* for probabilities (N,) in [0, 1] and labels (N,) bool.

    Raises DataError for probabilities outside [0, 1] or labels that are all the same.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels, bool)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise DataError(
            "some probabilities lie outside [0, 1] or are missing; leave these rollouts out"
        )
    lower, upper, reached = choose_band(
        probabilities, labels, target=precision, max_abstention=max_abstention
    )
    cut = steadiest_cut(probabilities, labels)
    return (
        measure("precise", lower, upper, probabilities, labels, reached=reached),
        measure("steady", cut, cut, probabilities, labels),
    )


def steadiest_cut(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The cut with the least standard error of a corrected rate; of equals, that nearest to 1/2."""
    distinct = np.unique(probabilities)
    cuts = (distinct[1:] + distinct[:-1]) / 2
    if not len(cuts):
        return 0.5
    if len(cuts) > CUTS:
        cuts = cuts[np.linspace(0, len(cuts) - 1, CUTS).round().astype(int)]
    called = (probabilities[None, :] >= cuts[:, None]).astype(np.int64)
    hit, alarm = called @ labels, called @ ~labels
    positives, negatives = int(labels.sum()), int((~labels).sum())
    errors = [
        _corrected_error(int(h), positives - int(h), negatives - int(a), int(a))
        for h, a in zip(hit, alarm, strict=True)
    ]
    ranked = sorted(zip(errors, np.abs(cuts - 0.5), cuts, strict=True))
    return float(ranked[0][2])


def measure(
    name: str,
    lower: float,
    upper: float,
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    reached: bool = True,
) -> Threshold:
    """What this band gives on these rollouts."""
    band = Calibration(lower=lower, upper=upper)
    counts = count([band.outcome(p) for p in probabilities], labels)
    return of_counts(name, lower, upper, counts, reached=reached)


def of_counts(
    name: str,
    lower: float | None,
    upper: float | None,
    counts: Counts,
    *,
    reached: bool = True,
) -> Threshold:
    """The same of verdicts that are counted already."""
    denied = counts.true_negative + counts.false_negative
    error = _corrected_error(
        counts.true_positive, counts.false_negative, counts.true_negative, counts.false_positive
    )
    return Threshold(
        name=name,
        lower=lower,
        upper=upper,
        precision=_known(counts.precision),
        rejection=counts.true_negative / denied if denied else None,
        sensitivity=_known(counts.sensitivity),
        specificity=_known(counts.specificity),
        abstention=counts.abstention,
        standard_error=_known(error),
        reached=reached,
    )


def _corrected_error(hit: int, missed: int, rejected: int, alarm: int) -> float:
    """Standard error of the corrected rate, n being the decided rollouts; inf for a coin.

    One success and one failure are added to each rate: none is certain after a few examples.
    """
    positives, negatives = hit + missed, rejected + alarm
    if not positives or not negatives:
        return math.inf
    sensitivity, specificity = (hit + 1) / (positives + 2), (rejected + 1) / (negatives + 2)
    skill = sensitivity + specificity - 1
    if skill <= 0:
        return math.inf
    n = positives + negatives
    true = positives / n
    judged = true * sensitivity + (1 - true) * (1 - specificity)
    variance = (
        judged * (1 - judged) / n
        + true**2 * sensitivity * (1 - sensitivity) / positives
        + (1 - true) ** 2 * specificity * (1 - specificity) / negatives
    )
    return math.sqrt(variance) / skill


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
