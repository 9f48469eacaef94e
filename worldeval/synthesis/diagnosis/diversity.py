"""How many different things a set holds: effective numbers, and guesses that should not work.

Enters: features of episodes. Leaves: numbers. Pure numpy.

The effective number of N things is exp of the entropy of the eigenvalues of their similarity
divided by N (the Vendi score, Friedman & Dieng 2023): 1 where all are the same, N where none is
like another. Similarity is exp(-d^2 / 2 s^2) of the distances d, with a scale s that is given, so
that two datasets compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

MOST = 400
"""Of more episodes, so many spread evenly are looked at: eigenvalues take the cube of it."""


def effective_number(features: np.ndarray, scale: float) -> float:
    """Of features (N, D): how many different ones there are. NaN for none; distances are root mean
    squares over D, in the units of ``scale``."""
    if not len(features):
        return float("nan")
    some = features[spread(len(features))]
    similar = np.exp(-(distances(some) ** 2) / (2 * scale**2))
    values = np.linalg.eigvalsh(similar / len(some))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def effective_words(texts: Sequence[str]) -> float:
    """Of texts: exp of the entropy of how often each occurs."""
    if not texts:
        return float("nan")
    shares = np.array(list(Counter(texts).values())) / len(texts)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def distances(features: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, N) root mean squared differences."""
    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    squares = (flat**2).sum(1)
    between = squares[:, None] + squares[None] - 2 * flat @ flat.T
    return np.sqrt(np.maximum(between, 0) / max(1, flat.shape[1]))


def guessed(features: np.ndarray, labels: Sequence[str]) -> tuple[float, float]:
    """How often the nearest other episode has the same label, and how often it would if labels
    were dealt out at random. NaN where there is only one label, or a single episode.

    Far above chance, the features tell the label: of a task from the first picture alone, say.
    """
    names = np.asarray(labels)
    if len(names) < 2 or len(set(labels)) < 2:
        return float("nan"), float("nan")
    chosen = spread(len(names))
    names, between = names[chosen], distances(np.asarray(features)[chosen])
    np.fill_diagonal(between, np.inf)
    right = float((names[between.argmin(1)] == names).mean())
    counts = np.array(list(Counter(names.tolist()).values()), float)
    chance = float((counts * (counts - 1)).sum() / (len(names) * (len(names) - 1)))
    return right, chance


def shared_spread(features: np.ndarray, labels: Sequence[str]) -> float:
    """Share of the variance of features (N, D) that lies between sources rather than within them:
    0 where sources look alike, 1 where each is a world of its own. NaN for one source."""
    names = np.asarray(labels)
    if len(set(labels)) < 2:
        return float("nan")
    flat = np.asarray(features, np.float64).reshape(len(names), -1)
    total = ((flat - flat.mean(0)) ** 2).sum()
    within = sum(
        ((flat[names == name] - flat[names == name].mean(0)) ** 2).sum() for name in set(labels)
    )
    return float("nan") if total <= 0 else float(1 - within / total)


def spread(count: int) -> np.ndarray:
    """Up to ``MOST`` indices, evenly over ``count``."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int))
