"""How well imagined success rates agree with true ones.

In: one true and one imagined rate per policy, or counts per (policy, task).
Out: Pearson, Spearman, MMRV, top-1 regret, the line imagined = slope * real + intercept, and
percentile intervals from resampling whole TASKS (rollouts of one task are not independent).

MMRV (SIMPLER, arXiv 2405.05941)::

    violation(i, j) = |real_i - real_j| * 1[(imagined_i < imagined_j) != (real_i < real_j)]
    MMRV            = mean_i max_j violation(i, j)

The gap is the REAL gap, and the arguments are keyword-only, because published values exist with
the two swapped. Ties: this is the paper's "<"; SIMPLER's code writes ">", which differs only
where two imagined rates tie exactly (it then gives the matrix transposed).

A figure that does not exist (two policies, constant rates) is None with a reason, never NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking.intervals import Interval

STATISTICS = ("pearson", "spearman", "mmrv", "top1_regret", "slope", "intercept", "mean_bias")

_FEWEST_POLICIES = {"pearson": 3, "spearman": 3, "slope": 3, "intercept": 3, "mean_bias": 1}
"""MMRV and regret need 2. A line or a correlation through 2 points is perfect by construction."""


@dataclass(frozen=True, kw_only=True)
class TaskCounts:
    """Counts per policy and task, (policies, tasks) each; ``decided`` = successes + failures."""

    successes: np.ndarray
    decided: np.ndarray

    def __post_init__(self) -> None:
        if self.successes.shape != self.decided.shape or self.successes.ndim != 2:
            raise MismatchError(
                f"successes {self.successes.shape} and decided {self.decided.shape}: expected "
                f"one (policies, tasks) shape"
            )

    @property
    def rates(self) -> np.ndarray:
        """(policies,) rate over all decided rollouts; NaN where there is none."""
        return _divide(self.successes.sum(axis=1), self.decided.sum(axis=1))


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement over ``policies`` policies. ``reasons`` says why a figure or interval is None."""

    policies: int
    pearson: float | None = None
    spearman: float | None = None
    mmrv: float | None = None
    top1_regret: float | None = None
    slope: float | None = None
    intercept: float | None = None
    mean_bias: float | None = None
    """Mean of imagined - real rate."""
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    confidence: float = 0.95
    bootstrap_draws: int = 0

    def to_dict(self) -> dict[str, Any]:
        figures: dict[str, Any] = {name: getattr(self, name) for name in STATISTICS}
        return figures | {
            "policies": self.policies,
            "confidence": self.confidence,
            "bootstrap_draws": self.bootstrap_draws,
            "intervals": {
                name: None if bounds is None else {"low": bounds.low, "high": bounds.high}
                for name, bounds in self.intervals.items()
            },
            "reasons": dict(self.reasons),
        }


def pearson(*, real: Sequence[float], imagined: Sequence[float]) -> float | None:
    """Correlation of the rates; None below 3 policies or for constant rates."""
    return _figure("pearson", real, imagined)


def spearman(*, real: Sequence[float], imagined: Sequence[float]) -> float | None:
    """Correlation of the ranks (ties share the mean rank); None like ``pearson``."""
    return _figure("spearman", real, imagined)


def mmrv(*, real: Sequence[float], imagined: Sequence[float]) -> float | None:
    """Mean maximum rank violation, in success rate, 0 is perfect; None below 2 policies."""
    return _figure("mmrv", real, imagined)


def top1_regret(*, real: Sequence[float], imagined: Sequence[float]) -> float | None:
    """True rate lost by taking the imagined winner: max(real) - real[winner].

    Where several policies share the first place the worst of them counts, so the figure is 0
    exactly when every imagined winner is a true one. None below 2 policies.
    """
    return _figure("top1_regret", real, imagined)


def slope_and_intercept(
    *, real: Sequence[float], imagined: Sequence[float]
) -> tuple[float, float] | None:
    """Least squares imagined = slope * real + intercept; None like ``pearson`` on real rates."""
    slope = _figure("slope", real, imagined)
    intercept = _figure("intercept", real, imagined)
    return None if slope is None or intercept is None else (slope, intercept)


def agree(*, real: Sequence[float], imagined: Sequence[float]) -> Agreement:
    """All figures from one rate per policy, without intervals."""
    real_row, imagined_row = _paired(real, imagined)
    reasons = _reasons(real_row[0], imagined_row[0])
    figures = _statistics(real_row, imagined_row)
    values: dict[str, Any] = {name: _number(figures[name][0]) for name in STATISTICS}
    return Agreement(policies=real_row.shape[1], reasons=reasons, **values)


def agree_over_tasks(
    *,
    real: TaskCounts,
    imagined: TaskCounts,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Agreement:
    """All figures of the pooled rates, with intervals over ``draws`` resamplings of the tasks.

    Each draw takes as many tasks as there are, with replacement, the same for both sides and all
    policies, and recomputes every policy's rates. A figure that a draw leaves undefined leaves
    the draw out; with fewer than half of the draws left there is no interval.
    """
    if real.successes.shape != imagined.successes.shape:
        raise MismatchError(
            f"real counts are {real.successes.shape}, imagined {imagined.successes.shape}: "
            f"expected the same (policies, tasks)"
        )
    if draws < 1:
        raise ConfigError(f"draws is {draws!r}, expected at least 1")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence!r}, expected a number between 0 and 1")
    point = agree(real=real.rates.tolist(), imagined=imagined.rates.tolist())
    tasks = real.successes.shape[1]
    intervals: dict[str, Interval | None] = dict.fromkeys(STATISTICS)
    reasons = dict(point.reasons)
    if tasks < 2:
        reasons["intervals"] = f"{tasks} task, resampling tasks needs at least 2"
    else:
        taken = np.random.default_rng(seed).multinomial(tasks, [1 / tasks] * tasks, size=draws)
        samples = _statistics(
            _divide(taken @ real.successes.T, taken @ real.decided.T),
            _divide(taken @ imagined.successes.T, taken @ imagined.decided.T),
        )
        tail = (1 - confidence) / 2
        for name in STATISTICS:
            kept = samples[name][np.isfinite(samples[name])]
            if getattr(point, name) is None:
                continue
            if 2 * len(kept) < draws:
                reasons[f"intervals.{name}"] = (
                    f"undefined in {draws - len(kept)} of {draws} resamplings of the tasks"
                )
                continue
            low, high = np.quantile(kept, [tail, 1 - tail])
            intervals[name] = Interval(float(low), float(high))
    figures: dict[str, Any] = {name: getattr(point, name) for name in STATISTICS}
    return Agreement(
        policies=point.policies,
        intervals=intervals,
        reasons=reasons,
        confidence=confidence,
        bootstrap_draws=draws,
        **figures,
    )


@dataclass(frozen=True, kw_only=True)
class CellAgreement:
    """Agreement over the (policy, task) cells in which both sides have a decided rollout."""

    cells: int
    pearson: float | None
    spearman: float | None
    mean_absolute_error: float | None
    mean_bias: float | None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def agree_in_cells(*, real: TaskCounts, imagined: TaskCounts) -> CellAgreement:
    """Correlation and error of the rates of single (policy, task) cells, all weighing the same."""
    real_rates = _divide(real.successes, real.decided).ravel()
    imagined_rates = _divide(imagined.successes, imagined.decided).ravel()
    both = np.isfinite(real_rates) & np.isfinite(imagined_rates)
    x, y = real_rates[both].tolist(), imagined_rates[both].tolist()
    error = imagined_rates[both] - real_rates[both]
    return CellAgreement(
        cells=len(x),
        pearson=pearson(real=x, imagined=y),
        spearman=spearman(real=x, imagined=y),
        mean_absolute_error=float(np.abs(error).mean()) if x else None,
        mean_bias=float(error.mean()) if x else None,
    )


def _statistics(real: np.ndarray, imagined: np.ndarray) -> dict[str, np.ndarray]:
    """(draws, policies) rates to one (draws,) array a figure, NaN where undefined."""
    policies = real.shape[1]
    unknown = ~(np.isfinite(real).all(axis=1) & np.isfinite(imagined).all(axis=1))
    # Rates that differ by rounding alone are ties: 0.1 + 0.2 against 0.3.
    x, y = np.round(np.nan_to_num(real), 12), np.round(np.nan_to_num(imagined), 12)
    slope = _slope(x, y)
    gap = np.abs(x[:, :, None] - x[:, None, :])
    violated = (y[:, :, None] < y[:, None, :]) != (x[:, :, None] < x[:, None, :])
    winners = y == y.max(axis=1, keepdims=True, initial=-np.inf)
    regret = x.max(axis=1, initial=-np.inf) - np.where(winners, x, np.inf).min(
        axis=1, initial=np.inf
    )
    figures = {
        "pearson": _pearson(x, y),
        "spearman": _pearson(_mean_ranks(x), _mean_ranks(y)),
        "mmrv": (gap * violated).max(axis=2, initial=0.0).sum(axis=1) / max(policies, 1),
        "top1_regret": regret,
        "slope": slope,
        "intercept": (y.sum(axis=1) - slope * x.sum(axis=1)) / max(policies, 1),
        "mean_bias": (y - x).sum(axis=1) / max(policies, 1),
    }
    for name, values in figures.items():
        if policies < _FEWEST_POLICIES.get(name, 2):
            figures[name] = np.full(len(real), np.nan)
        else:
            figures[name] = np.where(unknown, np.nan, values)
    return figures


def _reasons(real: np.ndarray, imagined: np.ndarray) -> dict[str, str]:
    reasons = {}
    for name in STATISTICS:
        fewest = _FEWEST_POLICIES.get(name, 2)
        correlation = name in ("pearson", "spearman")
        if len(real) < fewest:
            plural = "policy has" if len(real) == 1 else "policies have"
            reasons[name] = (
                f"{len(real)} {plural} rates on both sides, this figure needs at least {fewest}"
            )
        elif _constant(real) and (correlation or name in ("slope", "intercept")):
            reasons[name] = f"all real rates are {real[0]:.3f}: there is no order to agree with"
        elif _constant(imagined) and correlation:
            reasons[name] = f"all imagined rates are {imagined[0]:.3f}: they order nothing"
    return reasons


def _constant(values: np.ndarray) -> np.ndarray:
    """Whether rates along the last axis are all the same but for rounding."""
    return np.ptp(values, axis=-1) < 1e-12


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not x.shape[1]:
        return np.full(len(x), np.nan)
    dx, dy = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((dx**2).sum(axis=1) * (dy**2).sum(axis=1))
    scale[_constant(x) | _constant(y)] = 0.0
    return np.clip(_divide((dx * dy).sum(axis=1), scale), -1.0, 1.0)


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not x.shape[1]:
        return np.full(len(x), np.nan)
    dx = x - x.mean(axis=1, keepdims=True)
    spread = np.where(_constant(x), 0.0, (dx**2).sum(axis=1))
    return _divide((dx * y).sum(axis=1), spread)


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    above = (values[:, :, None] > values[:, None, :]).sum(axis=2)
    tied = (values[:, :, None] == values[:, None, :]).sum(axis=2)
    return above + (tied + 1) / 2


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _paired(real: Sequence[float], imagined: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(real, np.float64), np.asarray(imagined, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise MismatchError(
            f"{x.shape} real and {y.shape} imagined rates: expected one of each per policy"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("a rate is NaN or infinite; leave out policies without a decided rollout")
    return x[None], y[None]


def _figure(name: str, real: Sequence[float], imagined: Sequence[float]) -> float | None:
    return _number(_statistics(*_paired(real, imagined))[name][0])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
