"""Sensitivity, specificity and reliability: what is said of a judge's errors, as values.

Enters: ``calibration.Counts`` and the rows of ``calibration.reliability``. Leaves: rates with
Wilson intervals, None where nothing could show them, in a form that goes to JSON and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from worldeval.errors import ConfigError
from worldeval.judging.probability import Counts
from worldeval.ranking.intervals import Estimate, wilson_interval
from worldeval.settings import settings_from


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Does it happen as often as the judge says? Means over bins of the probability.

    bins: rows of ``calibration.reliability``: from, to, count, mean_probability, success_rate.
    brier: mean squared error of the probability. ece: mean gap between probability and rate.
    """

    bins: tuple[Mapping[str, float | int | None], ...]
    brier: float
    ece: float
    rollouts: int

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Reliability:
        """The inverse of ``dataclasses.asdict``."""
        found = settings_from(cls, content)
        if not all(0 <= value <= 1 for value in (found.brier, found.ece)) or found.rollouts < 0:
            raise ConfigError(
                f"brier is {found.brier}, ece {found.ece} and rollouts {found.rollouts}, expected "
                "0 to 1, 0 to 1, and 0 or more"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class ErrorRates:
    """Sensitivity and specificity with Wilson intervals; None where nothing could show it."""

    counts: Counts
    sensitivity: Estimate | None
    specificity: Estimate | None

    @classmethod
    def of(cls, counts: Counts, confidence: float = 0.95) -> ErrorRates:
        right = (counts.true_positive, counts.true_negative)
        wrong = (counts.false_negative, counts.false_positive)
        sensitivity, specificity = (
            _estimate(r, r + w, confidence) for r, w in zip(right, wrong, strict=True)
        )
        return cls(counts=counts, sensitivity=sensitivity, specificity=specificity)

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self.counts),
            "sensitivity": None if self.sensitivity is None else asdict(self.sensitivity),
            "specificity": None if self.specificity is None else asdict(self.specificity),
        }


def total(counts: Iterable[Counts]) -> Counts:
    """The sum, field by field."""
    names = [f.name for f in fields(Counts)]
    rows = list(counts)
    return Counts(**{name: sum(getattr(row, name) for row in rows) for name in names})


def positives(counts: Counts) -> int:
    """Decided rollouts that truly succeeded."""
    return counts.true_positive + counts.false_negative


def negatives(counts: Counts) -> int:
    """Decided rollouts that truly failed."""
    return counts.true_negative + counts.false_positive


def _estimate(right: int, trials: int, confidence: float) -> Estimate | None:
    if not trials:
        return None
    low, high = wilson_interval(right, trials, confidence=confidence)
    return Estimate(rate=right / trials, low=low, high=high)
