"""A few true trials joined with many imagined ones: one rate and interval per policy.

In: imagined outcomes of all cells (policy, task, start state) and true outcomes of a few of them.
Out: a ``PredictionPoweredRate`` per policy, with the interval of the true trials alone beside it.

Prediction-powered inference (Angelopoulos et al., arXiv 2301.09633 and 2311.01453) for a
leaderboard, where a policy has ten true trials and not a thousand. With g(s) a prediction of the
true outcome Y(s) at start state s that was made without this policy's own true trials::

    rate = lambda * mean_all(g) + mean_tried(Y - lambda * g)

Any g gives an unbiased rate; a good one a narrow interval. Three things make it work at n = 10:

- g is a logistic regression on what the imagination said (of the rollout, of the policy's other
  rollouts of this task, of the policy altogether) and on the task, learned from the true trials of
  the OTHER policies. It knows where imagination flatters.
- lambda, and how much of the variance g explains, are estimated from the trials of all policies
  together: ten trials cannot tell their own variance.
- the interval is Wilson's with the effective number of trials n / ratio, where ratio =
  Var(Y - lambda g) / Var(Y) + lambda^2 Var(g) / Var(Y) * n / all: inside [0, 1], and not of zero
  width where all ten trials succeed.

Where g explains nothing, lambda is 0 and the answer is that of the true trials alone. Start states
must have been chosen for the true trials without looking at outcomes; all start states weigh the
same. How it covers is measured in benchmarks/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worldeval.data.matching import such_as
from worldeval.errors import DataError, MismatchError
from worldeval.ranking.intervals import Estimate, wilson_interval
from worldeval.ranking.verdict_table import Cell
from worldeval.types import Outcome

SUREST = 0.98
"""Predictions are cut to [1 - SUREST, SUREST] before their logarithm is taken."""
RIDGE_SLOPE, RIDGE_TASK, RIDGE_LEVEL = 1.0, 0.3, 0.01
FEWEST_OTHERS, FEWEST_TRIALS = 3, 30
"""Policies and true trials from which g is learned; with fewer it is the imagined outcome."""
FEWEST_FREE = 5
"""Trials beyond one per policy that it takes to know whether imagination helps."""


@dataclass(frozen=True, kw_only=True)
class PredictionPoweredRate:
    """A policy's true success rate, from its few true trials and its imagined ones together."""

    estimate: float
    low: float
    high: float
    real_only: Estimate
    """From the true trials alone (Wilson)."""
    trials: int
    """True trials that were decided."""
    imagined: int
    explained: float
    """Share of the variance of true outcomes within a policy that the imagination explains."""

    @property
    def helps(self) -> bool:
        return self.narrower is not None

    @property
    def narrower(self) -> float | None:
        """By how much of its width the interval has become narrower; None if it has not."""
        before = self.real_only.high - self.real_only.low
        gain = 1 - (self.high - self.low) / before
        return gain if gain > 1e-9 else None


@dataclass(frozen=True)
class _Trials:
    """Imagined rollouts as columns, (M,) each: the true outcome is NaN where nobody tried."""

    policy: np.ndarray
    task: np.ndarray
    imagined: np.ndarray
    true: np.ndarray

    @property
    def tried(self) -> np.ndarray:
        return np.isfinite(self.true)


def prediction_powered_rates(
    imagined: Mapping[Cell, Outcome],
    real: Mapping[Cell, Outcome],
    *,
    probabilities: Mapping[Cell, float] | None = None,
    confidence: float = 0.95,
) -> dict[str, PredictionPoweredRate]:
    """Joined rates of the policies that have a decided true trial, by name.

    imagined: outcome of every imagined cell; an undecided one counts as one half, an error not at
        all. real: of some of these cells. probabilities: of success, where the judge has them;
        they say more than its verdicts.
    Raises MismatchError for a true trial that was not imagined, DataError if no trial is decided.
    """
    strange = [cell for cell in real if cell not in imagined]
    if strange:
        raise MismatchError(
            f"{len(strange)} of {len(real)} true trials were not imagined, "
            f"{such_as(strange, imagined)}; imagine these start states too, or leave the trials out"
        )
    trials, names = _columns(imagined, real, probabilities or {})
    if not trials.tried.any():
        raise DataError(f"none of the {len(real)} true trials is decided; carry some out")
    g = _predictions(trials, len(names))
    weight, explained, variance = _worth(trials, g)
    rates = {}
    for index, name in enumerate(names):
        mine = trials.policy == index
        tried = mine & trials.tried
        n, true = int(tried.sum()), trials.true[tried]
        if not n:
            continue
        plain = wilson_interval(true.sum(), n, confidence=confidence)
        level = weight * g[mine].mean() + (true - weight * g[tried]).mean()
        estimate = float(np.clip(level, 0, 1))
        ratio = 1 - explained + weight**2 * g[mine].var() / variance * n / mine.sum()
        effective = n / min(1.0, ratio)
        low, high = wilson_interval(estimate * effective, effective, confidence=confidence)
        # Where no trial ever succeeded (or failed), no imagined rollout rules out that none ever
        # will.
        low, high = (low if true.any() else 0.0), (1.0 if true.all() else high)
        rates[name] = PredictionPoweredRate(
            estimate=estimate,
            low=low,
            high=high,
            real_only=Estimate(rate=float(true.mean()), low=plain.low, high=plain.high),
            trials=n,
            imagined=int(mine.sum()),
            explained=explained,
        )
    return rates


def _columns(
    imagined: Mapping[Cell, Outcome],
    real: Mapping[Cell, Outcome],
    probabilities: Mapping[Cell, float],
) -> tuple[_Trials, list[str]]:
    cells = [cell for cell, outcome in imagined.items() if outcome is not Outcome.ERROR]
    names = list(dict.fromkeys(cell[0] for cell in cells))
    tasks = list(dict.fromkeys(cell[1] for cell in cells))
    value = {Outcome.SUCCESS: 1.0, Outcome.FAILURE: 0.0, Outcome.UNDECIDED: 0.5}
    place = {name: index for index, name in enumerate(names)}
    kind = {task: index for index, task in enumerate(tasks)}
    known = {Outcome.SUCCESS: 1.0, Outcome.FAILURE: 0.0}
    values = [probabilities.get(cell, value[imagined[cell]]) for cell in cells]
    return _Trials(
        policy=np.array([place[cell[0]] for cell in cells]),
        task=np.array([kind[cell[1]] for cell in cells]),
        imagined=np.array(values, np.float64),
        true=np.array([known.get(real.get(cell, Outcome.ERROR), np.nan) for cell in cells]),
    ), names


def _predictions(trials: _Trials, policies: int) -> np.ndarray:
    """g of every rollout, (M,), each made without the true trials of its own policy."""
    features = _features(trials)
    g = trials.imagined.copy()
    penalty = np.full(features.shape[1], RIDGE_TASK)
    penalty[:4] = (RIDGE_LEVEL, RIDGE_SLOPE, RIDGE_SLOPE, RIDGE_SLOPE)
    for index in range(policies):
        mine = trials.policy == index
        others = trials.tried & ~mine
        enough = len(np.unique(trials.policy[others])) >= FEWEST_OTHERS
        if not enough or others.sum() < FEWEST_TRIALS:
            continue
        weights = _logistic(features[others], trials.true[others], penalty)
        g[mine] = 1 / (1 + np.exp(-features[mine] @ weights))
    return g


def _features(trials: _Trials) -> np.ndarray:
    """(M, 4 + tasks): one, log odds of the rollout, of its cell, of its policy; the task."""
    tasks = int(trials.task.max()) + 1
    sure = np.clip(trials.imagined, 1 - SUREST, SUREST)
    cell = trials.policy * tasks + trials.task
    levels = [sure, _mean_by(cell, sure), _mean_by(trials.policy, sure)]
    odds = [np.log(level / (1 - level)) for level in levels]
    return np.column_stack([np.ones(len(sure)), *odds, trials.task[:, None] == np.arange(tasks)])


def _mean_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of ``values`` (M,) over each group, (M,)."""
    count = np.bincount(group)
    means = np.bincount(group, weights=values) / np.maximum(count, 1)
    return means[group]


def _logistic(x: np.ndarray, y: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Ridge logistic regression by Newton's method: (M, D), (M,) in {0, 1}, (D,) -> (D,)."""
    weights = np.zeros(x.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-x @ weights))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, x.T @ (y - p) - penalty * weights)
        weights += np.clip(step, -2, 2)  # far from the optimum a full step overshoots
        if np.abs(step).max() < 1e-6:
            break
    return weights


def _worth(trials: _Trials, g: np.ndarray) -> tuple[float, float, float]:
    """lambda in [0, 1], the share of the variance within policies that lambda * g explains, and
    that variance; lambda is 0 where g explains nothing or too few trials could tell."""
    tried = trials.tried
    y = (trials.true - _group_means(trials.true, trials))[tried]
    f = (g - _group_means(np.where(tried, g, np.nan), trials))[tried]
    free = len(y) - len(np.unique(trials.policy[tried]))
    if free < FEWEST_FREE or not (y**2).sum() or not (f**2).sum():
        return 0.0, 0.0, 1.0
    variance = float((y**2).sum() / free)
    weight = float(np.clip((y * f).sum() / (f**2).sum(), 0, 1))
    left = ((y - weight * f) ** 2).sum() / (free - 1)  # one of the free values went into lambda
    explained = 1 - float(left / variance)
    return (weight, explained, variance) if explained > 0 else (0.0, 0.0, variance)


def _group_means(values: np.ndarray, trials: _Trials) -> np.ndarray:
    """Mean over the tried rollouts of each one's policy, (M,)."""
    tried = trials.tried
    count = np.bincount(trials.policy[tried], minlength=int(trials.policy.max()) + 1)
    total = np.bincount(trials.policy[tried], weights=values[tried], minlength=len(count))
    return (total / np.maximum(count, 1))[trials.policy]
