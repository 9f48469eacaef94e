"""From raw scores to probabilities and verdicts, and how far these can be trusted. numpy and scipy.

Enters: one score (a logit) and one true label a rollout of a validation set. Leaves: a
``Calibration`` (Platt's sigmoid and the band in which a judge abstains), reliability tables, and
``Counts`` from which sensitivity and specificity follow with their sample sizes, as the correction
of success rates for judge errors (Rogan & Gladen 1978) needs them.

Platt scaling: p = 1 / (1 + exp(-(slope * score + intercept))), fitted by maximum likelihood to
targets (N+ + 1)/(N+ + 2) and 1/(N- + 2) instead of 1 and 0, Platt's guard against certainty from
few examples (Platt 1999; Lin, Lin & Weng 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from worldeval.errors import ConfigError, DataError
from worldeval.types import Outcome

MIN_SLOPE = 1e-3  # a higher score must never mean a lower probability
BAND_CANDIDATES = 256


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A sigmoid from score to probability, and the band [lower, upper) of undecided ones."""

    slope: float = 1.0
    intercept: float = 0.0
    lower: float = 0.5
    upper: float = 0.5

    def __post_init__(self) -> None:
        if not self.slope > 0:
            raise ConfigError(f"slope is {self.slope!r}, expected a number above 0")
        if not 0 <= self.lower <= self.upper <= 1:
            raise ConfigError(
                f"lower is {self.lower!r} and upper is {self.upper!r}, expected "
                "0 <= lower <= upper <= 1"
            )

    def probability(self, scores: np.ndarray | float) -> np.ndarray:
        """Calibrated probabilities of success; any shape."""
        return expit(self.slope * np.asarray(scores, np.float64) + self.intercept)

    def outcome(self, probability: float) -> Outcome:
        """SUCCESS from ``upper`` on, FAILURE below ``lower``, UNDECIDED between (and for NaN)."""
        if probability >= self.upper:
            return Outcome.SUCCESS
        if probability < self.lower:
            return Outcome.FAILURE
        return Outcome.UNDECIDED


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Verdicts against the truth. Abstentions are counted apart and enter no rate but their own."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0
    undecided_positive: int = 0
    undecided_negative: int = 0

    @property
    def decided(self) -> int:
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    @property
    def total(self) -> int:
        return self.decided + self.undecided_positive + self.undecided_negative

    @property
    def accuracy(self) -> float:
        """Right among the decided."""
        return _ratio(self.true_positive + self.true_negative, self.decided)

    @property
    def sensitivity(self) -> float:
        """Called success among the decided true successes."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Called failure among the decided true failures."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float:
        """True successes among those called success."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def abstention(self) -> float:
        """Undecided among all."""
        return _ratio(self.total - self.decided, self.total)

    def to_row(self) -> dict[str, float | int]:
        """Counts and rates as one flat row; a rate over nothing is NaN."""
        return {
            **self.__dict__,
            "total": self.total,
            "accuracy": self.accuracy,
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "precision": self.precision,
            "abstention": self.abstention,
        }


def count(outcomes: Sequence[Outcome], labels: np.ndarray) -> Counts:
    """Tally verdicts against true labels; ERROR rows are no verdict and are left out."""
    if len(outcomes) != len(labels):
        raise DataError(f"{len(outcomes)} outcomes for {len(labels)} labels, expected equal counts")
    tally: dict[str, int] = {}
    for outcome, label in zip(outcomes, labels, strict=True):
        if outcome == Outcome.UNDECIDED:
            name = "undecided_positive" if label else "undecided_negative"
        elif outcome == Outcome.SUCCESS:
            name = "true_positive" if label else "false_positive"
        elif outcome == Outcome.FAILURE:
            name = "false_negative" if label else "true_negative"
        else:
            continue
        tally[name] = tally.get(name, 0) + 1
    return Counts(**tally)


def fit_platt(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> Calibration:
    """Platt's sigmoid for scores (N,) of rollouts whose truth is labels (N,) bool.

    weights: (N,) relative importance, e.g. to let each world count the same; default equal. Only
    their ratios matter. The band of the answer is closed (lower = upper = 0.5): see
    ``choose_band``. Raises DataError unless both outcomes occur.
    """
    scores, labels, weights = _checked(scores, labels, weights)
    positive, negative = weights[labels].sum(), weights[~labels].sum()
    target = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    # Work on standardised scores: the fit is then equally conditioned for any range of logits.
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    unit = (scores - centre) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logit = parameters[0] * unit + parameters[1]
        value = np.logaddexp(0, logit) - target * logit
        slope = weights * (expit(logit) - target)
        return float(weights @ value), np.array([slope @ unit, slope.sum()])

    fitted = minimize(
        loss,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(MIN_SLOPE * spread, None), (None, None)],
    ).x
    slope = max(float(fitted[0]) / spread, MIN_SLOPE)
    return Calibration(slope=slope, intercept=float(fitted[1]) - slope * centre)


def choose_band(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    target: float = 0.95,
    max_abstention: float = 0.25,
    weights: np.ndarray | None = None,
) -> tuple[float, float, bool]:
    """The band (lower, upper) that abstains least while verdicts reach a precision.

    Both the share of true successes among p >= upper and the share of true failures among
    p < lower must reach ``target``. Where that would leave more than ``max_abstention`` of the
    rollouts undecided (or cannot be reached at all), the band with the best worse share within that
    limit is taken instead and the third answer is False.
    """
    for name, value in (("target", target), ("max_abstention", max_abstention)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value!r}, expected a share between 0 and 1")
    probabilities, labels, weights = _checked(probabilities, labels, weights)
    distinct = np.unique(probabilities)
    cuts = np.concatenate([[0.0], (distinct[1:] + distinct[:-1]) / 2, [1.0]])
    if len(cuts) > BAND_CANDIDATES:
        keep = np.linspace(0, len(cuts) - 1, BAND_CANDIDATES).round().astype(int)
        cuts = cuts[keep]
    above = probabilities[None, :] >= cuts[:, None]
    called = above @ weights
    precision = np.divide(
        above @ (weights * labels), called, out=np.zeros(len(cuts)), where=called > 0
    )
    denied = ~above @ weights
    rejection = np.divide(
        ~above @ (weights * ~labels), denied, out=np.zeros(len(cuts)), where=denied > 0
    )
    # [i, j]: lower = cuts[i], upper = cuts[j]
    abstained = 1 - (denied[:, None] + called[None, :]) / weights.sum()
    worse = np.minimum(rejection[:, None], precision[None, :])
    ordered = cuts[:, None] <= cuts[None, :]
    allowed = ordered & (abstained <= max_abstention + 1e-12)
    met = allowed & (worse >= target)
    reached = bool(met.any())
    # Ties (equal abstentions) go to the better shares, so that the choice never hangs on an order.
    cost = abstained * 1e3 - worse if reached else abstained - worse * 1e3
    best = np.argmin(np.where(met if reached else allowed, cost, np.inf))
    low, high = np.unravel_index(best, cost.shape)
    return float(cuts[low]), float(cuts[high]), reached


def calibrate(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    target: float = 0.95,
    max_abstention: float = 0.25,
    weights: np.ndarray | None = None,
) -> tuple[Calibration, bool]:
    """``fit_platt`` and ``choose_band`` on the same rollouts; the flag says: target reached."""
    platt = fit_platt(scores, labels, weights)
    lower, upper, reached = choose_band(
        platt.probability(scores),
        labels,
        target=target,
        max_abstention=max_abstention,
        weights=weights,
    )
    fitted = Calibration(slope=platt.slope, intercept=platt.intercept, lower=lower, upper=upper)
    return fitted, reached


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Reliability table: per bin of probability the count, mean probability and success rate.

    ``attrs`` holds ``brier`` (mean squared error) and ``ece``, the count-weighted mean gap.
    """
    if bins < 1:
        raise ConfigError(f"bins is {bins!r}, expected at least 1")
    probabilities = np.asarray(probabilities, np.float64)
    labels = np.asarray(labels, bool)
    place = np.clip((probabilities * bins).astype(int), 0, bins - 1)
    rows = [
        {
            "from": index / bins,
            "to": (index + 1) / bins,
            "count": int(inside.sum()),
            "mean_probability": float(probabilities[inside].mean()) if inside.any() else np.nan,
            "success_rate": float(labels[inside].mean()) if inside.any() else np.nan,
        }
        for index in range(bins)
        for inside in [place == index]
    ]
    table = pd.DataFrame(rows)
    gap = (table["mean_probability"] - table["success_rate"]).abs() * table["count"]
    table.attrs["ece"] = float(gap.sum() / max(len(labels), 1))
    table.attrs["brier"] = float(np.mean((probabilities - labels) ** 2))
    return table


def _checked(
    values: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, labels = np.asarray(values, np.float64), np.asarray(labels, bool)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if values.ndim != 1 or not values.shape == labels.shape == weights.shape:
        raise DataError(
            f"scores {values.shape}, labels {labels.shape} and weights {weights.shape} differ in "
            "shape, expected one of each a rollout"
        )
    if not np.isfinite(values).all():
        raise DataError("some scores are not finite; the judge has not been trained properly")
    if labels.all() or not labels.any():
        raise DataError(
            f"all {len(labels)} validation rollouts have the same outcome; calibration needs "
            "successes and failures, so add rollouts of the missing kind"
        )
    return values, labels, weights * (len(weights) / weights.sum())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
