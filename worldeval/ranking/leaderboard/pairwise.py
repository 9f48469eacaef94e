"""What was found out about which policies differ: a comparison per pair, letters, plans.

In: what ``pairwise_tests.PairwiseTests`` computes. Out: frozen dataclasses, JSON-able, and the
sentence of a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

POWER = 0.8
"""Probability with which a planned comparison is to find the difference."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two policies. ``difference`` is the rate of ``b`` minus that of ``a``, with its interval.

    p_value: of this pair alone. adjusted: corrected for all pairs that were tested.
    rollouts: pairs of the same start, or of two policies compared by counts the smaller number.
    """

    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    p_value: float
    adjusted: float
    rollouts: int
    paired: bool

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What it takes to tell two neighbours apart, if their rates are as observed.

    rollouts: each, for this pair alone; None where the rates are equal.
    rollouts_among_all: each, where the pair is one of all pairs of the leaderboard (Bonferroni).
    """

    a: str
    b: str
    rate_a: float
    rate_b: float
    have: int
    rollouts: int | None
    rollouts_among_all: int | None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def sentence(self) -> str:
        if self.rollouts is None or self.rollouts_among_all is None:
            return (
                f"{self.a} and {self.b} have the same rate ({self.have} rollouts each): no number "
                f"of rollouts separates equals."
            )
        text = f"To separate {self.a} from {self.b} you need {self.rollouts} rollouts each"
        if self.rollouts_among_all > self.rollouts:
            text += f" ({self.rollouts_among_all} as one of all pairs)"
        return f"{text}; there are {self.have}."


@dataclass(frozen=True, kw_only=True)
class Pairwise:
    """Every pair of policies that have a rate, in the order of the leaderboard."""

    comparisons: tuple[Comparison, ...] = ()
    letters: Mapping[str, str]
    plans: tuple[Plan, ...] = ()
    alpha: float = 0.05
    correction: str = "holm"

    def between(self, a: str, b: str) -> Comparison | None:
        return self._by_pair.get(frozenset((a, b)))

    @cached_property
    def _by_pair(self) -> dict[frozenset[str], Comparison]:
        return {frozenset((pair.a, pair.b)): pair for pair in self.comparisons}

    def distinguishable(self, pair: Comparison) -> bool:
        return pair.adjusted <= self.alpha

    @property
    def told_apart(self) -> int:
        """How many pairs."""
        return sum(self.distinguishable(pair) for pair in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "correction": self.correction,
            "power": POWER,
            "pairs": [
                pair.to_dict() | {"told_apart": self.distinguishable(pair)}
                for pair in self.comparisons
            ],
            "plans": [plan.to_dict() for plan in self.plans],
        }
