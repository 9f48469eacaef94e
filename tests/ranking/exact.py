"""Barnard's test in fractions, to hold others to."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np


def barnard_in_fractions(a: int, b: int, trials: int) -> float:
    """Two-sided p of a against b of ``trials`` each, pooled.

    Which outcomes are as extreme is decided without rounding; the common rate runs over a grid.
    """

    def squared(a: int, b: int) -> Fraction:
        pooled = Fraction(a + b, 2 * trials)
        return Fraction(a - b, trials) ** 2 / (pooled * (1 - pooled) * 2 / trials) if a != b else 0

    observed = squared(a, b)
    rate = np.linspace(0, 1, 20001)
    chance = [
        math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(trials + 1)
    ]
    cells = itertools.product(range(trials + 1), repeat=2)
    return float(max(sum(chance[i] * chance[j] for i, j in cells if squared(i, j) >= observed)))
