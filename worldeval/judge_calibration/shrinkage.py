"""Error rates of many groups, each with few examples, drawn towards the rate of all together.

Enters: for each group (a policy) how often a judge was right out of how many. Leaves: for any
group, known or new, the mean of its rate and the number of examples that this knowledge is worth.

The model (beta-binomial; empirical Bayes as in Casella 1985)::

    x_i ~ Binomial(n_i, r_i)      r_i ~ Beta(m s, (1 - m) s)      rho = 1 / (s + 1)
    m = (sum x + 1/2) / (sum n + 1)

m is the rate over all examples, rho (0 to 1) how much groups differ: Var(r_i) = rho m (1 - m).
Given both, a group's rate is (m s + x) / (s + n): its own count and s examples of the rate of all.

rho is not known: it is averaged over a grid, weighted by the likelihood of the counts (over all
m, so that a single group says nothing of the spread), with sqrt(rho), which is in proportion to the
standard deviation between groups, uniform before the data (Gelman 2006). The best rho alone would
claim that few groups which happen to look alike are alike.
The variance of m itself is that of a ratio of sums over groups (Cochran 1977, 6.4)::

    Var(m) = G / (G - 1) sum_i (x_i - m n_i)^2 / (sum n)^2

m pools examples, not groups, on purpose: a policy that seldom fails fails narrowly and is judged
wrongly more often then, and its few failures must not speak for those of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, logsumexp

from worldeval.errors import DataError

MEANS, SPREADS = 40, 50  # grid points of m and of sqrt(rho)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What is known of one group's rate: that of Beta(mean * worth, (1 - mean) * worth)."""

    mean: float
    worth: float
    """Examples: a rate observed on this many has about the same standard error."""


class SharedRate:
    """The rates of groups that resemble each other more or less, as their counts tell."""

    def __init__(self, right: Sequence[int], total: Sequence[int]) -> None:
        """right[i] of total[i] examples of group i; a group without examples says nothing."""
        x, n = np.asarray(right, np.float64), np.asarray(total, np.float64)
        if x.shape != n.shape or (x < 0).any() or (x > n).any():
            raise DataError(
                f"{list(right)} right of {list(total)}, expected 0 <= right <= total per group"
            )
        x, n = x[n > 0], n[n > 0]
        if not len(n):
            raise DataError("no examples in any group; judge rollouts whose outcome is known")
        self.mean = float((x.sum() + 0.5) / (n.sum() + 1))
        rho = ((np.arange(SPREADS) + 0.5) / SPREADS) ** 2
        self._strength = 1 / rho - 1
        mean = ((np.arange(MEANS) + 0.5) / MEANS)[:, None]
        a, b = mean * self._strength, (1 - mean) * self._strength  # (MEANS, SPREADS)
        likelihood = -len(n) * betaln(a, b)
        for right_i, total_i in zip(x, n, strict=True):
            likelihood += betaln(a + right_i, b + total_i - right_i)
        of_spread = logsumexp(likelihood, axis=0)
        self._weights = np.exp(of_spread - logsumexp(of_spread))
        self.spread = float(self._weights @ rho)
        """Of rho: 0 where all groups have one rate, 1 where each is always right or never."""
        # What chance alone gives is the least; the ratio's own formula needs several groups.
        self._mean_variance = self.mean * (1 - self.mean) / (n.sum() + 1)
        if len(n) > 1:
            scatter = ((x - self.mean * n) ** 2).sum() / n.sum() ** 2
            self._mean_variance = max(self._mean_variance, scatter * len(n) / (len(n) - 1))

    def of(self, right: int = 0, total: int = 0) -> Rate:
        """The rate of one of the groups, with its own counts; without any: of a group not seen."""
        s = self._strength
        means = (self.mean * s + right) / (s + total)
        mean = float(self._weights @ means)
        within = means * (1 - means) / (s + total + 1)
        of_mean = (s / (s + total)) ** 2 * self._mean_variance
        variance = float(self._weights @ (within + of_mean + (means - mean) ** 2))
        return Rate(mean=mean, worth=max(0.0, mean * (1 - mean) / variance - 1))
