"""The figures of agreement, of many resamplings at once, and the limits of what they can say.

In: (draws, policies) real and predicted rates. Out: one (draws,) array a figure, NaN where it is
undefined, and sentences that say why or warn. Definitions: ``agreement``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

STATISTICS = (
    "pearson",
    "spearman",
    "kendall",
    "mmrv",
    "top1_regret",
    "slope",
    "intercept",
    "mean_bias",
    "mean_absolute_error",
)

_CORRELATIONS = ("pearson", "spearman", "kendall")
_FEWEST_POLICIES = dict.fromkeys((*_CORRELATIONS, "slope", "intercept"), 3) | {
    "mean_bias": 1,
    "mean_absolute_error": 1,
}
"""MMRV and regret need 2. A line or a correlation through 2 points is perfect by construction."""

_FEWEST_TASKS = 5
"""Below, there are too few different resamplings for an interval of 95 %."""


def figures_of(real: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """(draws, policies) rates to one (draws,) array a figure, NaN where undefined."""
    policies = real.shape[1]
    unknown = ~(np.isfinite(real).all(axis=1) & np.isfinite(predicted).all(axis=1))
    # Rates that differ by rounding alone are ties: 0.1 + 0.2 against 0.3.
    x, y = np.round(np.nan_to_num(real), 12), np.round(np.nan_to_num(predicted), 12)
    slope = _slope(x, y)
    gap = x[:, :, None] - x[:, None, :]
    said = y[:, :, None] - y[:, None, :]
    violated = (said < 0) != (gap < 0)
    winners = y == y.max(axis=1, keepdims=True, initial=-np.inf)
    regret = x.max(axis=1, initial=-np.inf) - np.where(winners, x, np.inf).min(
        axis=1, initial=np.inf
    )
    figures = {
        "pearson": _pearson(x, y),
        "spearman": _pearson(_mean_ranks(gap), _mean_ranks(said)),
        "kendall": _kendall(np.sign(gap), np.sign(said)),
        "mmrv": (np.abs(gap) * violated).max(axis=2, initial=0.0).sum(axis=1) / max(policies, 1),
        "top1_regret": regret,
        "slope": slope,
        "intercept": (y.sum(axis=1) - slope * x.sum(axis=1)) / max(policies, 1),
        "mean_bias": (y - x).sum(axis=1) / max(policies, 1),
        "mean_absolute_error": np.abs(y - x).sum(axis=1) / max(policies, 1),
    }
    for name, values in figures.items():
        if policies < _FEWEST_POLICIES.get(name, 2):
            figures[name] = np.full(len(real), np.nan)
        else:
            figures[name] = np.where(unknown, np.nan, values)
    return figures


def reasons_of(real: np.ndarray, predicted: np.ndarray) -> dict[str, str]:
    """(policies,) rates: why a figure does not exist, by its name."""
    reasons = {}
    for name in STATISTICS:
        fewest = _FEWEST_POLICIES.get(name, 2)
        if len(real) < fewest:
            plural = "policy has" if len(real) == 1 else "policies have"
            reasons[name] = (
                f"{len(real)} {plural} rates on both sides, this figure needs at least {fewest}"
            )
        elif _constant(real) and (name in _CORRELATIONS or name in ("slope", "intercept")):
            reasons[name] = f"all real rates are {real[0]:.3f}: there is no order to agree with"
        elif _constant(predicted) and name in _CORRELATIONS:
            reasons[name] = f"all predicted rates are {predicted[0]:.3f}: they order nothing"
    return reasons


def warnings_of(
    figures: Mapping[str, float | None],
    policies: int,
    tasks: int | None,
    winner: str | None,
    best: str | None,
    sharing: int = 1,
) -> tuple[str, ...]:
    """Sentences about what these figures cannot support, for a reader without statistics.

    winner: of the ``sharing`` policies with the highest predicted rate, the truly worst one.
    """
    warnings = []
    pearson, regret = figures["pearson"], figures["top1_regret"]
    if 0 < policies < 4:
        chance = (
            "one policy has no order."
            if policies == 1
            else f"a prediction that knows nothing puts {policies} policies in the right order one "
            f"time in {math.factorial(policies)}."
        )
        subject = "1 policy" if policies == 1 else f"{policies} policies"
        warnings.append(f"{subject} cannot support a correlation: {chance}")
    elif pearson is not None and pearson < (limit := _chance_correlation(policies)):
        warnings.append(
            f"A correlation of {pearson:.2f} over {policies} policies may be chance: rates that "
            f"have nothing to do with each other reach {limit:.2f} one time in 40."
        )
    if regret:
        said = f"The prediction names {winner} the best, which it is not"
        if sharing > 1:
            said = f"In the prediction {winner} shares the first place of {sharing}"
        warnings.append(f"{said}: {best} truly succeeds {100 * regret:.1f} points more often.")
    if tasks is not None and policies and tasks < _FEWEST_TASKS:
        noun = "task" if tasks == 1 else "tasks"
        warnings.append(
            f"{tasks} {noun} cannot tell how the agreement would be on others: believe no interval."
        )
    return tuple(warnings)


def share(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN where bottom is not above 0."""
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _chance_correlation(policies: int) -> float:
    """The r that independent normal rates exceed one time in 40: t / sqrt(n - 2 + t^2)."""
    from scipy.special import stdtrit

    t = float(stdtrit(policies - 2, 0.975))
    return t / math.sqrt(policies - 2 + t**2)


def _constant(values: np.ndarray) -> np.ndarray:
    """Whether rates along the last axis are all the same but for rounding."""
    return np.ptp(values, axis=-1) < 1e-12


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not x.shape[1]:
        return np.full(len(x), np.nan)
    dx, dy = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((dx**2).sum(axis=1) * (dy**2).sum(axis=1))
    scale[_constant(x) | _constant(y)] = 0.0
    return np.clip(share((dx * dy).sum(axis=1), scale), -1.0, 1.0)


def _kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """tau-b (Kendall 1945) of signs of differences (draws, policies, policies)."""
    untied = np.sqrt((x**2).sum(axis=(1, 2)) * (y**2).sum(axis=(1, 2)))
    return share((x * y).sum(axis=(1, 2)), untied)


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not x.shape[1]:
        return np.full(len(x), np.nan)
    dx = x - x.mean(axis=1, keepdims=True)
    spread = np.where(_constant(x), 0.0, (dx**2).sum(axis=1))
    return share((dx * y).sum(axis=1), spread)


def _mean_ranks(differences: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties share the mean one."""
    above = (differences > 0).sum(axis=2)
    tied = (differences == 0).sum(axis=2)
    return above + (tied + 1) / 2
