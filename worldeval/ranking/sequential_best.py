"""The best of several policies, found while results come in: who cannot be the best drops out.

Enters: blocks of start states with the scores of the policies that are still in. Leaves: who drops
out when; the best policy is among those that remain with probability 1 - alpha, however often one
has looked. To find the best takes far fewer rollouts than to find the order of all.

Policy j drops out when the mean over all others i of the e-values "i is better than j" (see
``sequential_order``, with its argument for blocks) reaches 1/alpha. Of the best policy each of
these is a supermartingale, and so is their mean: by Ville's inequality it ever reaches 1/alpha with
probability alpha at most. No correction for the number of policies is needed beyond that mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from worldeval.ranking.sequential import SequentialComparison
from worldeval.ranking.sequential_order import Pair, check_names, feed


@dataclass(frozen=True, kw_only=True)
class Elimination:
    """A policy is not the best."""

    policy: str
    starts: int
    """Start states that it took to say so."""
    e_value: float

    def __str__(self) -> str:
        return f"{self.policy} is not the best ({self.starts} start states)"


class SequentialBest:
    """Drops policies that are not the best; the best is dropped with probability alpha at most."""

    def __init__(self, names: Iterable[str], *, alpha: float = 0.05) -> None:
        """names: at least two different ones. Raises ConfigError."""
        self.names = check_names(names, alpha)
        self.alpha = alpha
        self.decisions: list[Elimination] = []
        self._starts = 0
        self._pairs = {
            pair: SequentialComparison(alpha=alpha, method="betting")
            for pair in itertools.combinations(self.names, 2)
        }

    @property
    def contenders(self) -> tuple[str, ...]:
        """Policies that can still be the best."""
        out = {decision.policy for decision in self.decisions}
        return tuple(name for name in self.names if name not in out)

    @property
    def undecided(self) -> list[Pair]:
        """Pairs of contenders."""
        return list(itertools.combinations(self.contenders, 2))

    @property
    def active(self) -> tuple[str, ...]:
        """Policies from which more results are of use: the contenders, while there are several."""
        return self.contenders if len(self.contenders) > 1 else ()

    def compared(self, a: str, b: str) -> int:
        """Start states on which both had a known result while both were contenders."""
        return self._pairs[min(a, b), max(a, b)].pairs

    def add_block(self, block: Sequence[Mapping[str, float | None]]) -> list[Elimination]:
        """Take a block's results, as ``SequentialOrder.add_block``; who drops out now."""
        self._starts += len(block)
        feed({pair: self._pairs[pair] for pair in self.undecided}, block)
        against = {name: self._against(name) for name in self.contenders}
        out = sorted((e, name) for name, e in against.items() if e >= 1 / self.alpha)
        if len(out) == len(against):  # contradictory evidence: somebody must be the best
            out = out[1:]
        made = [
            Elimination(policy=name, starts=self._starts, e_value=e) for e, name in reversed(out)
        ]
        self.decisions += made
        return made

    def _against(self, name: str) -> float:
        """The e-value of "this policy is not the best"."""
        values = [
            pair.e_a_better if b == name else pair.e_b_better
            for (a, b), pair in self._pairs.items()
            if name in (a, b)
        ]
        return sum(values) / len(values)
