"""What it costs to choose by imagination: regret of the best of N candidates.

In: true and imagined rates of candidates (checkpoints of a training, policies). Out: the true rate
lost by taking the one that imagination ranks first, averaged over which N candidates are at hand.

The average over all subsets is exact. With candidates from best imagined to worst, the one at place
i is chosen from C(M - 1 - i, N - 1) of the C(M, N) subsets; ties are averaged over. The interval is
a bootstrap over the candidates, which makes it wide where they are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Choosing the best of ``choices`` out of ``candidates``; rates are shares of 1.

    regret: best true rate minus that of the chosen one. random_regret: of choosing blindly.
    """

    choices: int
    candidates: int
    regret: float
    low: float | None
    high: float | None
    random_regret: float
    confidence: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def selection_regret(
    true: Sequence[float] | np.ndarray,
    imagined: Sequence[float] | np.ndarray,
    choices: int,
    *,
    confidence: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> Selection:
    """Mean regret of the best of ``choices`` by ``imagined``, (M,) rates each, all known.

    low, high: None below 3 candidates.
    """
    real, predicted = np.asarray(true, np.float64), np.asarray(imagined, np.float64)
    if real.ndim != 1 or real.shape != predicted.shape:
        raise DataError(
            f"true rates {real.shape} and imagined rates {predicted.shape}: expected one of each "
            f"per candidate"
        )
    if not (np.isfinite(real).all() and np.isfinite(predicted).all()):
        raise DataError("a rate of a candidate is unknown; leave that candidate out")
    if not 1 <= choices <= len(real):
        raise ConfigError(f"choices is {choices!r}, expected 1 to the {len(real)} candidates")
    weights = _chosen_from(len(real), choices)
    low = high = None
    if len(real) >= 3:
        rng = np.random.default_rng(seed)
        picked = rng.integers(0, len(real), (draws, len(real)))
        tail = 50 * (1 - confidence)
        found = [_regret(real[i], predicted[i], weights) for i in picked]
        low, high = np.percentile(found, [tail, 100 - tail]).tolist()
    return Selection(
        choices=choices,
        candidates=len(real),
        regret=_regret(real, predicted, weights),
        low=low,
        high=high,
        random_regret=float(np.sort(real)[::-1] @ weights - real.mean()),
        confidence=confidence,
    )


def _chosen_from(candidates: int, choices: int) -> np.ndarray:
    """(M,) probability that the candidate at each place is the best of a random subset."""
    probability = np.zeros(candidates)
    left = 1.0
    for place in range(candidates - choices + 1):
        probability[place] = left * choices / (candidates - place)
        left -= probability[place]
    return probability


def _regret(real: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(-np.round(predicted, 12), kind="stable")
    _, group = np.unique(-np.round(predicted, 12), return_inverse=True)
    mean = np.bincount(group, real) / np.bincount(group)
    # Of equals, any may be chosen: the mean of their true rates is what to expect.
    chosen = mean[group[order]] @ weights
    return float(max(0.0, np.sort(real)[::-1] @ weights - chosen))
