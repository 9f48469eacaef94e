"""Compact letters: policies that share a letter cannot be told apart.

In: a p-value for every pair of policies. Out: the letters of each, as "a", "ab", "b".

Insert and absorb (Piepho, J. Comput. Graph. Stat. 13, 2004), after a correction for the many
comparisons (Holm, Scand. J. Stat. 6, 1979; Bonferroni).
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, DataError, MismatchError

CORRECTIONS = ("holm", "bonferroni", "none")


def adjust_p_values(p_values: Sequence[float] | np.ndarray, correction: str) -> np.ndarray:
    """(k,) p-values of k comparisons, so corrected that ANY false one has a chance below alpha.

    bonferroni: min(1, k p). holm: the i-th smallest times (k - i + 1), and never below the one
    before it: rejects all that Bonferroni does and more. none: as they are.
    """
    if correction not in CORRECTIONS:
        raise ConfigError(f"correction is {correction!r}, expected one of {list(CORRECTIONS)}")
    p = np.asarray(p_values, np.float64)
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        raise DataError(f"a p-value is {float(p[wrong][0])!r}, expected a number in [0, 1]")
    if correction == "none":
        return p.copy()
    if correction == "bonferroni":
        return np.minimum(1.0, p * len(p))
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def compact_letters(
    p_values: Mapping[tuple[str, str], float] | np.ndarray | Sequence[Sequence[float]],
    alpha: float = 0.05,
    correction: str = "holm",
    names: Sequence[str] | None = None,
) -> dict[str, str]:
    """The letters of each policy: two share one exactly if their difference is not significant.

    p_values: {(name, name): p}, every pair once, or a symmetric (policies, policies) matrix.
    names: the order in which letters are given out, the best policy first; in the order of first
        appearance if not told, and "1", "2", ... for a matrix.

    Raises DataError for a missing pair or a p-value that is none, MismatchError for names that do
    not fit.

    >>> compact_letters({("A", "B"): 0.2, ("B", "C"): 0.3, ("A", "C"): 0.001})
    {'A': 'a', 'B': 'ab', 'C': 'b'}
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha!r}, expected a number between 0 and 1")
    found = _pairs(p_values, names)
    order = list(found[0])
    pairs = list(combinations(range(len(order)), 2))
    corrected = adjust_p_values([found[1][pair] for pair in pairs], correction)
    columns = [frozenset(range(len(order)))] if order else []
    for (i, j), p in zip(pairs, corrected.tolist(), strict=True):
        if p <= alpha:
            split = [
                part for c in columns for part in ((c - {i}, c - {j}) if {i, j} <= c else (c,))
            ]
            columns = _absorb(split)
    columns.sort(key=sorted)
    return {
        name: "".join(_letter(k) for k, column in enumerate(columns) if i in column)
        for i, name in enumerate(order)
    }


def _absorb(columns: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """Without the columns that lie within another."""
    distinct = set(columns)
    return [c for c in distinct if not any(c < other for other in distinct)]


def _letter(index: int) -> str:
    """a ... z, A ... Z, then a2 ... Z2 and so on."""
    round_, letter = divmod(index, len(string.ascii_letters))
    return string.ascii_letters[letter] + (str(round_ + 1) if round_ else "")


def _pairs(
    p_values: Any, names: Sequence[str] | None
) -> tuple[list[str], dict[tuple[int, int], float]]:
    """The names in order, and the p-value of (i, j), i < j, of their indices."""
    if isinstance(p_values, Mapping):
        seen = list(dict.fromkeys(name for pair in p_values for name in pair))
        order = seen if names is None else list(names)
        if set(seen) - set(order) or len(set(order)) < len(order):
            raise MismatchError(f"names are {order}, but the p-values compare {seen}")
        given: dict[tuple[int, int], float] = {}
        index = {name: i for i, name in enumerate(order)}
        for (first, second), p in p_values.items():
            i, j = sorted((index[first], index[second]))
            if i == j or ((i, j) in given and given[i, j] != p):
                raise DataError(f"{first!r} and {second!r}: expected one p-value per two policies")
            given[i, j] = p
        missing = [c for c in combinations(range(len(order)), 2) if c not in given]
        if missing:
            i, j = missing[0]
            raise DataError(
                f"no p-value compares {order[i]!r} with {order[j]!r} ({len(missing)} pairs are "
                f"missing); expected one for every two policies"
            )
        return order, given
    matrix = np.asarray(p_values, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise MismatchError(f"p-values have the shape {matrix.shape}, expected a square matrix")
    order = [str(i + 1) for i in range(len(matrix))] if names is None else list(names)
    if len(order) != len(matrix) or len(set(order)) < len(order):
        raise MismatchError(f"{len(matrix)} rows of p-values, but the names are {order}")
    above = np.triu_indices(len(matrix), 1)
    if not np.allclose(matrix[above], matrix.T[above], equal_nan=True):
        raise DataError("the matrix of p-values is not symmetric; give one p-value per pair")
    values = matrix[above].tolist()
    return order, {
        (i, j): p for i, j, p in zip(above[0].tolist(), above[1].tolist(), values, strict=True)
    }
