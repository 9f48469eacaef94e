"""What can be promised of kept rollouts, also of a kind of policy that nobody has seen.

In: rollouts with a distrust that was fitted without their own family, and which verdicts are wrong.
Out: a ``Promise``: among kept rollouts at most so many wrong verdicts.

The promise is learn-then-test (Angelopoulos et al. 2021): thresholds keep 20, 25 ... 100 % of the
rollouts, and are tested in this order, each by the Clopper-Pearson bound of the wrong share among
those it keeps. The last one before the first that fails is taken, so that the confidence holds for
it although many were tried. Rollouts of one family err alike: their number is divided by the design
effect, the variance of the wrong share between families over that of as many independent rollouts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldeval.errors import ConfigError
from worldeval.ranking.intervals import clopper_pearson_interval

KEPT_SHARES = tuple(round(0.05 * n, 2) for n in range(4, 21))
"""Tested in this order: chosen before anything is seen."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Among kept rollouts at most ``most_wrong`` wrong verdicts, with ``confidence``.

    threshold: distrust up to which rollouts are kept; None where no threshold keeps the promise.
    kept, wrong, of: rollouts that it keeps of all, and wrong verdicts among them. bound: of their
    share, with the confidence.
    """

    most_wrong: float = 0.1
    confidence: float = 0.9
    threshold: float | None = None
    kept: int = 0
    wrong: int = 0
    of: int = 0
    bound: float | None = None

    def __post_init__(self) -> None:
        for name in ("most_wrong", "confidence"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ConfigError(f"{name} is {value!r}, expected more than 0 and less than 1")

    @property
    def sentence(self) -> str:
        words = f"{100 * self.most_wrong:.0f} % wrong verdicts, with {100 * self.confidence:.0f} %"
        if self.threshold is None:
            return (
                f"No share of the rollouts can be kept with at most {words} confidence: the "
                f"promise keeps none."
            )
        return (
            f"Of {self.of} rollouts {self.kept} can be kept with at most {words} confidence: "
            f"{self.wrong} of these are wrong."
        )


def make_promise(
    distrust: np.ndarray,
    wrong: np.ndarray,
    families: np.ndarray,
    *,
    most_wrong: float = 0.1,
    confidence: float = 0.9,
) -> Promise:
    """distrust (N,) fitted without a rollout's own family; wrong (N,) bool; families (N,)."""
    order = np.argsort(distrust, kind="stable")
    score, bad, owner = distrust[order], wrong[order], np.asarray(families)[order]
    best = Promise(most_wrong=most_wrong, confidence=confidence, of=len(score))
    for share in KEPT_SHARES:
        count = int(np.ceil(share * len(score) - 1e-9))
        if not count:
            continue
        count = int(np.searchsorted(score, score[count - 1], side="right"))  # ties stay together
        bound = _bound(bad[:count], owner[:count], confidence)
        if bound > most_wrong:
            break
        best = Promise(
            most_wrong=most_wrong,
            confidence=confidence,
            threshold=float(score[count - 1]),
            kept=count,
            wrong=int(bad[:count].sum()),
            of=len(score),
            bound=bound,
        )
    return best


def _bound(wrong: np.ndarray, families: np.ndarray, confidence: float) -> float:
    """Upper end of the wrong share, one-sided."""
    number = len(wrong) / design_effect(wrong, families)
    # Two-sided with twice the tail is one-sided at its upper end.
    return clopper_pearson_interval(float(wrong.mean()) * number, number, 2 * confidence - 1).high


def design_effect(wrong: np.ndarray, families: np.ndarray) -> float:
    """How many rollouts of these families are worth one independent one, at least 1."""
    names, owner = np.unique(families, return_inverse=True)
    rate = float(wrong.mean())
    if len(names) < 2 or not 0 < rate < 1:
        return 1.0
    excess = np.bincount(owner, wrong - rate)
    between = len(names) / (len(names) - 1) * float(np.square(excess).sum()) / len(wrong) ** 2
    return max(1.0, between / (rate * (1 - rate) / len(wrong)))
