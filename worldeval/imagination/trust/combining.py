"""From signals to one number: how likely is this verdict wrong?

Enters: a table of rollouts with signals and verdicts, and which verdicts were wrong. Leaves: a
``Combination``, a logistic regression with weights of its own for each verdict, because a success
is doubted for other reasons than a failure::

    distrust = 1 / (1 + exp(-(intercept_v + sum_s weight_vs (signal_s - centre_vs) / spread_vs)))

Weights are never negative: a signal is larger where there is less to believe, and one that says the
opposite has found a peculiarity of the rollouts it was fitted to. They are kept small by a penalty
(``penalty`` / 2 times their squares), signals are cut at ``CUT`` spreads, and a signal that is
missing counts as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from worldeval.data.tables import DECIDED
from worldeval.errors import ConfigError, DataError

CUT = 3.0


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What counts for one verdict. Names of signals -> (centre, spread, weight)."""

    intercept: float
    signals: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (_, spread, weight) in self.signals.items():
            if not spread > 0 or not weight >= 0:
                raise ConfigError(
                    f"signal {name!r} has spread {spread} and weight {weight}, expected more than "
                    "0 and 0 or more"
                )

    def distrust(self, table: pd.DataFrame) -> np.ndarray:
        """Probability that the verdict is wrong, (rollouts,)."""
        logit = np.full(len(table), self.intercept)
        for name, (centre, spread, weight) in self.signals.items():
            if weight:
                logit += weight * _unit(table[name].to_numpy(float), centre, spread)
        return 1 / (1 + np.exp(-logit))


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Weights for each verdict, and what was judged by them."""

    verdicts: Mapping[str, Weights]

    @property
    def needed(self) -> tuple[str, ...]:
        """Signals with a weight, in alphabetical order."""
        weights = [w.signals.items() for w in self.verdicts.values()]
        return tuple(sorted({name for items in weights for name, (_, _, w) in items if w}))

    def distrust(self, table: pd.DataFrame) -> np.ndarray:
        """Probability that each verdict is wrong, by its column ``outcome``; NaN where there is no
        verdict (undecided, error). Raises DataError for a signal that the table lacks."""
        lacking = [name for name in self.needed if name not in table.columns]
        if lacking:
            raise DataError(
                f"the rollouts lack the signals {lacking} that their trust was calibrated with; "
                "measure them too (signals named seeds... need --seeds or --again)"
            )
        answer = np.full(len(table), np.nan)
        for verdict, weights in self.verdicts.items():
            chosen = (table["outcome"] == verdict).to_numpy()
            answer[chosen] = weights.distrust(table[chosen])
        return answer


def fit_combination(
    table: pd.DataFrame,
    wrong: np.ndarray,
    signals: Mapping[str, Sequence[str]],
    *,
    penalty: float = 10.0,
) -> Combination:
    """Fit each verdict's weights. table: rollouts with ``outcome`` and signals; wrong: (rollouts,)
    bool; signals: verdict -> names of those that may count. Rows without verdict are left out."""
    verdicts = {}
    for verdict in DECIDED:
        chosen = (table["outcome"] == verdict).to_numpy()
        names = list(signals.get(verdict, ()))
        verdicts[verdict] = _fit(table.loc[chosen, names], wrong[chosen].astype(float), penalty)
    return Combination(verdicts=verdicts)


def held_out_distrust(
    table: pd.DataFrame,
    wrong: np.ndarray,
    choose: Callable[[pd.DataFrame, np.ndarray], Mapping[str, Sequence[str]]],
    groups: np.ndarray,
    *,
    penalty: float = 10.0,
) -> np.ndarray:
    """Distrust of every rollout by weights that were fitted without its group, such as its policy:
    what the combination is worth for a policy that nobody has seen the truth of.

    choose: (rollouts, wrong) -> which signals may count for each verdict, asked without the group
    too. groups: (rollouts,).
    """
    answer = np.full(len(table), np.nan)
    for group in np.unique(groups):
        here = groups == group
        others, labels = table[~here], wrong[~here]
        fitted = fit_combination(others, labels, choose(others, labels), penalty=penalty)
        answer[here] = fitted.distrust(table[here])
    return answer


def _fit(columns: pd.DataFrame, wrong: np.ndarray, penalty: float) -> Weights:
    from scipy.optimize import minimize

    # One more of each kind, so that a verdict that was never wrong is not doubted with certainty 0.
    base = (wrong.sum() + 1) / (len(wrong) + 2)
    start = float(np.log(base / (1 - base)))
    usable = [n for n in columns if np.isfinite(columns[n]).sum() > 1 and columns[n].std() > 0]
    if not usable or wrong.min() == wrong.max():
        return Weights(intercept=start)
    centres = {str(n): float(columns[n].median()) for n in usable}
    spreads = {str(n): float(columns[n].std()) for n in usable}
    x = np.stack(
        [_unit(columns[n].to_numpy(float), centres[str(n)], spreads[str(n)]) for n in usable], 1
    )

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        intercept, weights = parameters[0], parameters[1:]
        logit = intercept + x @ weights
        value = np.logaddexp(0, logit).sum() - (wrong * logit).sum()
        slope = 1 / (1 + np.exp(-logit)) - wrong
        gradient = np.concatenate([[slope.sum()], x.T @ slope + penalty * weights])
        return value + penalty / 2 * np.square(weights).sum(), gradient

    bounds = [(None, None), *[(0, None)] * x.shape[1]]
    found = minimize(
        loss, np.array([start, *[0.0] * x.shape[1]]), jac=True, bounds=bounds, method="L-BFGS-B"
    ).x
    weights = zip(usable, found[1:], strict=True)
    return Weights(
        intercept=float(found[0]),
        signals={
            str(n): (centres[str(n)], spreads[str(n)], round(float(weight), 6))
            for n, weight in weights
        },
    )


def _unit(values: np.ndarray, centre: float, spread: float) -> np.ndarray:
    return np.clip(np.nan_to_num((values - centre) / spread), -CUT, CUT)
