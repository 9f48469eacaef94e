"""The order of several policies, decided while results come in, and no sooner than it is sure.

Enters: blocks of start states, for each the scores of the policies that are still compared. Leaves:
for each pair which policy is better, as soon as that is known, and the certainty that **all** these
decisions are right at once with probability 1 - alpha, however often one has looked.

Two claims a pair ("a is better", "b is better"), each with a running e-value E
(``SequentialComparison``, betting: valid whatever the dependence of two policies on one start
state). With the hypotheses that are not rejected yet in R, the claim i is made when

    E_i >= 1/alpha + sum_{j in R} max(1/alpha - E_j, 0)                                        (1)

which says that the mean of E over *every* set of hypotheses in R that contains i is at least
1/alpha: closed testing with averaged e-values (Vovk and Wang 2021, "E-values: calibration,
combination, and applications"), a Holm procedure for e-values, uniformly better than Bonferroni's
E_i >= |R|/alpha. The mean over the true hypotheses is a nonnegative supermartingale, so by Ville's
inequality it ever reaches 1/alpha with probability alpha at most; and at the first wrong claim it
would have to. A pair that is decided is not looked at again, which stops its E and keeps that
argument. What follows from decisions (a over b, b over c) is decided too, at no cost.

Why blocks: the start states of a suite come from several tasks in turn, not from one lottery. When
a block has one independent start state of each task, with mean differences m_t of mean <= 0, the
expectation of the block's product is prod(1 + xi m_t) <= (1 + xi mean(m_t))^T <= 1 (geometric and
arithmetic mean), so E is a supermartingale *from block to block*: claims are made at their ends
only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worldeval.errors import ConfigError
from worldeval.ranking.intervals import Interval
from worldeval.ranking.sequential import SequentialComparison

Pair = tuple[str, str]
"""Two policies, in the order of their names."""


@dataclass(frozen=True, kw_only=True)
class PairDecision:
    """One policy is better than another."""

    better: str
    worse: str
    starts: int
    """Start states on which both were compared by then."""
    e_value: float | None
    """Evidence; None where the decision follows from others."""

    def __str__(self) -> str:
        how = "follows" if self.e_value is None else f"{self.starts} start states"
        return f"{self.better} > {self.worse} ({how})"


class SequentialOrder:
    """Decides the order of policies with a family-wise error of alpha. See the module."""

    def __init__(self, names: Iterable[str], *, alpha: float = 0.05) -> None:
        """names: at least two different ones. alpha: probability of any wrong decision, at most.

        Raises ConfigError.
        """
        self.names = check_names(names, alpha)
        self.alpha = alpha
        self.decisions: list[PairDecision] = []
        self._pairs = {
            pair: SequentialComparison(alpha=alpha, method="betting")
            for pair in itertools.combinations(self.names, 2)
        }
        self._above: dict[str, set[str]] = {name: set() for name in self.names}

    @property
    def undecided(self) -> list[Pair]:
        """Pairs of which nobody knows yet which one is better."""
        return [(a, b) for a, b in self._pairs if not self._decided(a, b)]

    @property
    def active(self) -> tuple[str, ...]:
        """Policies with an undecided pair: those from which more results are of use."""
        going = set(itertools.chain(*self.undecided))
        return tuple(name for name in self.names if name in going)

    def compared(self, a: str, b: str) -> int:
        """Start states on which both of a pair had a known result while it was undecided."""
        return self._pairs[min(a, b), max(a, b)].pairs

    def add_block(self, block: Sequence[Mapping[str, float | None]]) -> list[PairDecision]:
        """Take a block's results and return the decisions that it brings.

        block: one mapping a start state, policy -> score in [0, 1]; None or absent where it is not
            known (undecided, an error), which leaves the start state out of that policy's pairs.
        """
        feed({pair: self._pairs[pair] for pair in self.undecided}, block)
        evidence = {}
        for (a, b), pair in self._pairs.items():
            evidence[a, b], evidence[b, a] = pair.e_a_better, pair.e_b_better
        return self.decide(evidence)

    def decide(self, evidence: Mapping[Pair, float]) -> list[PairDecision]:
        """Make every claim that equation (1) allows, the strongest first, and return them.

        evidence: (better, worse) -> the e-value of that claim now, for both orders of every pair.
        """
        before = len(self.decisions)
        needed = 1 / self.alpha
        while True:
            standing = {c: e for c, e in evidence.items() if c[0] not in self._above[c[1]]}
            bar = needed + sum(max(needed - e, 0.0) for e in standing.values())
            claims = {c: e for c, e in standing.items() if e >= bar and not self._decided(*c)}
            if not claims:
                return self.decisions[before:]
            best = max(claims, key=lambda claim: (claims[claim], claim))
            self._keep(*best, claims[best])

    def _keep(self, better: str, worse: str, e_value: float) -> None:
        """Note a decision and all that follow from it."""
        winners = [better, *sorted(self._above[better])]
        losers = [worse, *(n for n in self.names if worse in self._above[n])]
        for winner, loser in itertools.product(winners, losers):
            if winner in self._above[loser]:
                continue
            self._above[loser].add(winner)
            direct = (winner, loser) == (better, worse)
            self.decisions.append(
                PairDecision(
                    better=winner,
                    worse=loser,
                    starts=self.compared(winner, loser),
                    e_value=e_value if direct else None,
                )
            )

    def _decided(self, a: str, b: str) -> bool:
        return a in self._above[b] or b in self._above[a]


def check_names(names: Iterable[str], alpha: float) -> tuple[str, ...]:
    """The names in order. ConfigError for fewer than two, equal ones, or an impossible alpha."""
    ordered = tuple(sorted(names))
    if len(ordered) < 2 or len(set(ordered)) < len(ordered):
        raise ConfigError(
            f"the policies to compare are {list(ordered)}, expected two or more with different "
            "names"
        )
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha!r}, expected a probability between 0 and 1")
    return ordered


def feed(
    pairs: Mapping[Pair, SequentialComparison], block: Sequence[Mapping[str, float | None]]
) -> None:
    """Give each pair the start states on which both of it are known."""
    for (a, b), pair in pairs.items():
        for scores in block:
            first, second = scores.get(a), scores.get(b)
            if first is not None and second is not None:
                pair.add(first, second)


def difference_sequence(
    only_a: int, only_b: int, same: int, *, confidence: float = 0.95
) -> Interval:
    """Interval of p_b - p_a that holds at all times at once: looking often costs nothing.

    only_a, only_b, same: start states on which a alone, b alone, or both or neither succeeded.

    A confidence sequence by inverting the betting test: for each difference m, the e-value against
    "the mean of d = b - a is at most m" is the mean over xi in [0, 1) of prod(1 + xi (d - m)/(1+m))
    (no factor can be negative, for d >= -1), and likewise from above. Kept is every m whose e-value
    is below 2 / (1 - confidence) on both sides (Waudby-Smith and Ramdas 2024). Use it where the
    data decided when to stop; Newcombe's interval is narrower where they did not.
    """
    counts = {"only_a": only_a, "only_b": only_b, "same": same}
    for name, count in counts.items():
        if count < 0:
            raise ConfigError(f"{name} is {count!r}, expected a count of start states")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence!r}, expected a value between 0 and 1")
    limit = np.log(2 / (1 - confidence))
    return Interval(
        _lowest_mean(only_b, same, only_a, limit), -_lowest_mean(only_a, same, only_b, limit)
    )


def _lowest_mean(ups: int, same: int, downs: int, limit: float) -> float:
    """The m below which every mean of d in {1, 0, -1} is refuted: log e-value >= limit."""
    means = np.linspace(-1, 1, 801)
    shifted = means[1:, None]  # at m = -1 there is nothing to refute
    xi = (np.arange(64) + 0.5) / 64
    log_product = np.zeros((len(shifted), len(xi)))
    for count, d in ((ups, 1), (same, 0), (downs, -1)):
        log_product += count * np.log1p(xi * (d - shifted) / (1 + shifted))
    peak = log_product.max(1, keepdims=True)
    log_e = peak[:, 0] + np.log(np.exp(log_product - peak).mean(1))
    kept = np.flatnonzero(log_e < limit)  # falls in m, so what is kept lies above
    return float(means[kept[0]]) if len(kept) else 1.0  # the grid point below: the safe side
