"""How well predicted success rates agree with true ones.

In: one true and one predicted rate per policy, or counts per (policy, task).
Out: Pearson, Spearman, Kendall, MMRV, top-1 regret, the line predicted = slope * real +
intercept, and percentile intervals from resampling whole TASKS (rollouts of one task are not
independent), expanded for the small number of tasks (Hesterberg, Am. Stat. 69, 2015): resampled
means of n tasks vary by (n - 1)/n of what they should, and the tails are those of Student's t::

    tail' = Phi(-sqrt(n / (n - 1)) t_(n - 1, tail))

Intervals of 95 % then cover about 90 % with 5 to 8 tasks, and 95 % with 20.

MMRV (SIMPLER, arXiv 2405.05941)::

    violation(i, j) = |real_i - real_j| * 1[(predicted_i < predicted_j) != (real_i < real_j)]
    MMRV            = mean_i max_j violation(i, j)

The gap is the REAL gap, and it is a fraction, not percent; other quantities are published under
this name. Ties: this is the paper's "<"; SIMPLER's code writes ">", which differs only where two
predicted rates tie exactly (it then gives the matrix transposed).

A figure that does not exist (two policies, constant rates) is None with a reason, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking.agreement_statistics import (
    STATISTICS,
    figures_of,
    reasons_of,
    share,
    warnings_of,
)
from worldeval.ranking.intervals import Interval, tail_of

Rates = Sequence[float] | np.ndarray


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
        return share(self.successes.sum(axis=1), self.decided.sum(axis=1))

    @property
    def cell_rates(self) -> np.ndarray:
        """(policies, tasks); NaN where nothing was decided."""
        return share(self.successes, self.decided)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement over ``policies`` policies. ``reasons`` says why a figure or interval is None.

    mean_bias, mean_absolute_error: mean of predicted - real rate, and of its size.
    slope, intercept: least squares predicted = slope * real + intercept.
    winner: the policy of the highest predicted rate; of several, the one that is truly worst.
    top1_regret: true rate lost by taking the winner, max(real) - real[winner]: 0 exactly when
        every predicted winner is a true one.
    warnings: plain sentences about what the figures cannot support.
    """

    policies: int
    winner: str | None = None
    sharing: int = 0
    """How many share the highest predicted rate."""
    pearson: float | None = None
    spearman: float | None = None
    kendall: float | None = None
    mmrv: float | None = None
    top1_regret: float | None = None
    slope: float | None = None
    intercept: float | None = None
    mean_bias: float | None = None
    mean_absolute_error: float | None = None
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    confidence: float = 0.95
    bootstrap_draws: int = 0

    def to_dict(self) -> dict[str, Any]:
        figures: dict[str, Any] = {name: getattr(self, name) for name in STATISTICS}
        return figures | {
            "policies": self.policies,
            "winner": self.winner,
            "sharing": self.sharing,
            "confidence": self.confidence,
            "bootstrap_draws": self.bootstrap_draws,
            "intervals": {
                name: None if bounds is None else {"low": bounds.low, "high": bounds.high}
                for name, bounds in self.intervals.items()
            },
            "reasons": dict(self.reasons),
            "warnings": list(self.warnings),
        }


def mmrv(real: Rates, predicted: Rates) -> float | None:
    """Mean maximum rank violation, in success rate; 0 is perfect, None below 2 policies.

    real, predicted: (policies,) rates in the same order. The REAL gap weighs, so the order of the
    arguments matters. Published values exist with the two swapped; of SIMPLER's coke can task:

    >>> real = (0.853, 0.92, 0.76, 0.907, 0.293, 0.133)
    >>> simulated = (0.857, 0.71, 0.567, 0.787, 0.17, 0.027)
    >>> round(mmrv(real, simulated), 4)
    0.0313
    >>> round(mmrv(simulated, real), 4)  # swapped: not the MMRV
    0.0618

    Raises MismatchError for rates that do not pair, DataError for rates that are none.
    """
    value = figures_of(*_paired(real, predicted))["mmrv"][0]
    return float(value) if np.isfinite(value) else None


def order_kept(real: Rates, predicted: Rates) -> tuple[int, int]:
    """(kept, pairs): of the pairs of policies with different real rates, how many keep their order.

    A pair that ties in the prediction has lost it.
    """
    x, y = (np.round(side[0], 12) for side in _paired(real, predicted))
    above = np.triu_indices(len(x), 1)
    truly = np.sign(x[:, None] - x)[above]
    predicted = np.sign(y[:, None] - y)[above]
    return int(((truly == predicted) & (truly != 0)).sum()), int((truly != 0).sum())


def agreement(
    real: Rates | TaskCounts,
    predicted: Rates | TaskCounts,
    *,
    names: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Agreement:
    """How well the predicted rates agree with the real ones, and how sure that is.

    real, predicted: (policies,) rates in the same order, or TaskCounts of the same policies and
        tasks. Do not swap them: bias, slope, regret and MMRV (see ``mmrv``) are of the prediction,
        measured in real rates.
    names: of the policies; "policy 1", "policy 2", ... if not told.
    draws: resamplings of the tasks, with replacement, the same for both sides and all policies;
        of plain rates, which know no tasks, there are no intervals. A figure that a draw leaves
        undefined leaves the draw out; with fewer than half of the draws left there is none.

    Raises MismatchError for sides that do not pair, DataError for NaN rates (leave out policies
    without a decided rollout), ConfigError for settings that cannot be.

    >>> found = agreement(real=(0.2, 0.9, 0.6), predicted=(0.1, 0.7, 0.8), names=("A", "B", "C"))
    >>> found.winner, round(found.top1_regret, 3)
    ('C', 0.3)
    >>> print(found.warnings[0])
    3 policies cannot support a correlation: a prediction that knows nothing puts 3 policies in \
the right order one time in 6.
    """
    if draws < 1:
        raise ConfigError(f"draws is {draws!r}, expected at least 1")
    tail = tail_of(confidence)
    if isinstance(real, TaskCounts) != isinstance(predicted, TaskCounts):
        raise MismatchError("real and predicted: expected rates of both or counts of both")
    if isinstance(real, TaskCounts) and isinstance(predicted, TaskCounts):
        _check_same_cells(real, predicted)
    x, y = _paired(_rates(real), _rates(predicted))
    policies = x.shape[1]
    labels = [f"policy {i + 1}" for i in range(policies)] if names is None else list(names)
    if len(labels) != policies:
        raise MismatchError(f"{policies} policies, but the names are {labels}")
    point = {name: _number(values[0]) for name, values in figures_of(x, y).items()}
    intervals: dict[str, Interval | None] = dict.fromkeys(STATISTICS)
    reasons = reasons_of(x[0], y[0])
    tasks = None
    if isinstance(real, TaskCounts) and isinstance(predicted, TaskCounts):
        tasks = real.decided.shape[1]
        if tasks < 2:
            reasons["intervals"] = f"{tasks} task, resampling tasks needs at least 2"
        else:
            defined = [name for name in STATISTICS if point[name] is not None]
            found, why_not = _over_tasks(real, predicted, defined, draws, seed, tail)
            intervals |= found
            reasons |= why_not
    else:
        reasons["intervals"] = "plain rates know no tasks to resample"
    winner = int(np.lexsort((x[0], -np.round(y[0], 12)))[0]) if policies else None
    best = None if winner is None else labels[int(np.argmax(x[0]))]
    sharing = int((np.round(y[0], 12) == np.round(y[0], 12).max(initial=-1)).sum())
    return Agreement(
        policies=policies,
        winner=None if winner is None else labels[winner],
        sharing=sharing,
        intervals=intervals,
        reasons=reasons,
        warnings=warnings_of(
            point, policies, tasks, None if winner is None else labels[winner], best, sharing
        ),
        confidence=confidence,
        bootstrap_draws=draws,
        **point,
    )


@dataclass(frozen=True, kw_only=True)
class CellAgreement:
    """Agreement over the (policy, task) cells in which both sides have a decided rollout.

    order_kept: of ``order_pairs`` pairs of policies with different real rates in one task, how
        many are predicted in the same order.
    """

    cells: int
    pearson: float | None
    spearman: float | None
    mean_absolute_error: float | None
    mean_bias: float | None
    order_kept: int
    order_pairs: int

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def agree_in_cells(*, real: TaskCounts, predicted: TaskCounts) -> CellAgreement:
    """Correlation and error of the rates of single (policy, task) cells, all weighing the same."""
    _check_same_cells(real, predicted)
    x, y = real.cell_rates, predicted.cell_rates
    both = np.isfinite(x) & np.isfinite(y)
    figures = {k: _number(v[0]) for k, v in figures_of(x[both][None], y[both][None]).items()}
    orders = [order_kept(x[kept, t], y[kept, t]) for t, kept in enumerate(both.T)]
    return CellAgreement(
        cells=int(both.sum()),
        pearson=figures["pearson"],
        spearman=figures["spearman"],
        mean_absolute_error=figures["mean_absolute_error"],
        mean_bias=figures["mean_bias"],
        order_kept=sum(kept for kept, _ in orders),
        order_pairs=sum(pairs for _, pairs in orders),
    )


def _over_tasks(
    real: TaskCounts, predicted: TaskCounts, names: list[str], draws: int, seed: int, tail: float
) -> tuple[dict[str, Interval | None], dict[str, str]]:
    """Expanded percentile intervals over resampled tasks, and why some figures have none."""
    from scipy.special import ndtr, stdtrit

    tasks = real.decided.shape[1]
    taken = np.random.default_rng(seed).multinomial(tasks, [1 / tasks] * tasks, size=draws)
    samples = figures_of(
        share(taken @ real.successes.T, taken @ real.decided.T),
        share(taken @ predicted.successes.T, taken @ predicted.decided.T),
    )
    tail = float(ndtr(math.sqrt(tasks / (tasks - 1)) * stdtrit(tasks - 1, tail)))
    intervals: dict[str, Interval | None] = {}
    reasons = {}
    for name in names:
        kept = samples[name][np.isfinite(samples[name])]
        if 2 * len(kept) < draws:
            reasons[f"intervals.{name}"] = (
                f"undefined in {draws - len(kept)} of {draws} resamplings of the tasks"
            )
        else:
            low, high = np.quantile(kept, [tail, 1 - tail])
            intervals[name] = Interval(float(low), float(high))
    return intervals, reasons


def _check_same_cells(real: TaskCounts, predicted: TaskCounts) -> None:
    if real.decided.shape != predicted.decided.shape:
        raise MismatchError(
            f"real counts are {real.decided.shape}, predicted {predicted.decided.shape}: expected "
            f"the same (policies, tasks)"
        )


def _rates(side: Rates | TaskCounts) -> Rates:
    return side.rates if isinstance(side, TaskCounts) else side


def _paired(real: Rates, predicted: Rates) -> tuple[np.ndarray, np.ndarray]:
    """(1, policies) each."""
    x, y = np.asarray(real, np.float64), np.asarray(predicted, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise MismatchError(
            f"{x.shape} real and {y.shape} predicted rates: expected one of each per policy"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("a rate is NaN or infinite; leave out policies without a decided rollout")
    return x[None], y[None]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
