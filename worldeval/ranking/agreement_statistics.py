"""The statistics of agreement, of many resamplings at once, and the limits of what they can say.

In: (draws, policies) real and predicted rates. Out: one (draws,) array per figure, NaN where it is
undefined, and sentences that say why or warn. Definitions: ``agreement``.

``STATISTICS`` is the one list, and where a new one is added: what computes, shows and keeps
figures goes through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_FEWEST_TASKS = 5
"""Below, there are too few different resamplings for an interval of 95 %."""


class RatePairs:
    """(draws, policies) real rates ``x`` and predicted ones ``y``, and their differences.

    Rates that differ by rounding alone are ties: 0.1 + 0.2 against 0.3. NaN become 0 here.
    """

    def __init__(self, real: np.ndarray, predicted: np.ndarray) -> None:
        self.x = np.round(np.nan_to_num(real), 12)
        self.y = np.round(np.nan_to_num(predicted), 12)

    @property
    def policies(self) -> int:
        return int(self.x.shape[1])

    @cached_property
    def real_gaps(self) -> np.ndarray:
        """(draws, policies, policies): rate of the first minus that of the second."""
        return self.x[:, :, None] - self.x[:, None, :]

    @cached_property
    def predicted_gaps(self) -> np.ndarray:
        return self.y[:, :, None] - self.y[:, None, :]

    @cached_property
    def slope(self) -> np.ndarray:
        return _slope(self.x, self.y)


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One figure of agreement.

    of: to (draws,), NaN where undefined. fewest: policies below which it says nothing.
    label, meaning: of its card in the report; short, best: of its line in the terminal. A figure
    without them is kept in leaderboard.json only. ordering: undefined where all real rates are
    equal; correlating: also where all predicted ones are.
    """

    of: Callable[[RatePairs], np.ndarray]
    label: str = ""
    meaning: str = ""
    short: str = ""
    best: str = ""
    fewest: int = 2
    ordering: bool = False
    correlating: bool = False


def _mmrv(rates: RatePairs) -> np.ndarray:
    violated = (rates.predicted_gaps < 0) != (rates.real_gaps < 0)
    worst = (np.abs(rates.real_gaps) * violated).max(axis=2, initial=0.0)
    total: np.ndarray = worst.sum(axis=1) / max(rates.policies, 1)
    return total


def _top1_regret(rates: RatePairs) -> np.ndarray:
    winners = rates.y == rates.y.max(axis=1, keepdims=True, initial=-np.inf)
    chosen = np.where(winners, rates.x, np.inf).min(axis=1, initial=np.inf)
    regret: np.ndarray = rates.x.max(axis=1, initial=-np.inf) - chosen
    return regret


def _intercept(rates: RatePairs) -> np.ndarray:
    above = rates.y.sum(axis=1) - rates.slope * rates.x.sum(axis=1)
    intercept: np.ndarray = above / max(rates.policies, 1)
    return intercept


def _mean(values: np.ndarray) -> np.ndarray:
    mean: np.ndarray = values.sum(axis=1) / max(values.shape[1], 1)
    return mean


# A line or a correlation through 2 points is perfect by construction: these need 3 policies.
STATISTICS: dict[str, Statistic] = {
    "pearson": Statistic(
        of=lambda rates: _pearson(rates.x, rates.y),
        label="Pearson correlation",
        meaning="Do the rates lie on a rising line? 1: perfectly; 0: not at all.",
        short="Pearson",
        best="1 is best",
        fewest=3,
        correlating=True,
    ),
    "spearman": Statistic(
        of=lambda rates: _pearson(_mean_ranks(rates.real_gaps), _mean_ranks(rates.predicted_gaps)),
        label="Spearman rank correlation",
        meaning="Is the order of the policies the same? 1: exactly; -1: reversed.",
        short="Spearman",
        best="1 is best",
        fewest=3,
        correlating=True,
    ),
    "kendall": Statistic(
        of=lambda rates: _kendall(np.sign(rates.real_gaps), np.sign(rates.predicted_gaps)),
        label="Kendall rank correlation",
        meaning="Of two policies, is the better one the better one in both? 1: always; 0: as often "
        "as not.",
        short="Kendall",
        best="1 is best",
        fewest=3,
        correlating=True,
    ),
    "mmrv": Statistic(
        of=_mmrv,
        label="MMRV",
        meaning="Mean maximum rank violation: how far apart in true success rate, at worst, two "
        "policies are whose order the imagination confuses, averaged over policies. 0 is best.",
        short="MMRV",
        best="0 is best",
    ),
    "top1_regret": Statistic(
        of=_top1_regret,
        label="Top-1 regret",
        meaning="True success rate given up by taking the policy that wins in imagination. 0 is "
        "best.",
        short="top-1 regret",
        best="0 is best",
    ),
    "slope": Statistic(of=lambda rates: rates.slope, fewest=3, ordering=True),
    "intercept": Statistic(of=_intercept, fewest=3, ordering=True),
    "mean_bias": Statistic(
        of=lambda rates: _mean(rates.y - rates.x),
        label="Mean bias",
        meaning="Imagined minus true rate, averaged: above 0 the imagination flatters.",
        fewest=1,
    ),
    "mean_absolute_error": Statistic(of=lambda rates: _mean(np.abs(rates.y - rates.x)), fewest=1),
}
"""By the name under which ``Agreement`` and leaderboard.json have it, in the order shown."""


def figures_of(real: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """(draws, policies) rates to one (draws,) array per figure, NaN where undefined."""
    unknown = ~(np.isfinite(real).all(axis=1) & np.isfinite(predicted).all(axis=1))
    rates = RatePairs(real, predicted)
    figures = {}
    for name, statistic in STATISTICS.items():
        if rates.policies < statistic.fewest:
            figures[name] = np.full(len(real), np.nan)
        else:
            figures[name] = np.where(unknown, np.nan, statistic.of(rates))
    return figures


def reasons_of(real: np.ndarray, predicted: np.ndarray) -> dict[str, str]:
    """(policies,) rates: why a figure does not exist, by its name."""
    reasons = {}
    for name, statistic in STATISTICS.items():
        fewest = statistic.fewest
        if len(real) < fewest:
            plural = "policy has" if len(real) == 1 else "policies have"
            reasons[name] = (
                f"{len(real)} {plural} rates on both sides, this figure needs at least {fewest}"
            )
        elif _constant(real) and (statistic.ordering or statistic.correlating):
            reasons[name] = f"all real rates are {real[0]:.3f}: there is no order to agree with"
        elif _constant(predicted) and statistic.correlating:
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
