"""Distances of which some are known and of others only that they are further: survival analysis.

Enters: a network's logits over bins of "frames to go until the task is solved", and what a frame of
an episode tells: in a successful episode the distance d itself; in one that failed only that d is
more than the frames that were left (it is censored). Leaves: the log-likelihood of that, and
expectations. With p the softmax over bins k and d spread evenly within a bin::

    known      log p_k(d)
    censored   log P(d > left) = log sum_k p_k s_k,   s_k the share of bin k beyond ``left``

(the discrete-time likelihood of grouped, right-censored durations: Kalbfleisch & Prentice 1973;
with a network Gensheimer & Narasimhan 2019.) Counting failures as "far away" would teach a network
how a recording was cut; leaving them out, that everything succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DistanceBins:
    """Bins of frames to go. Distances grow coarser as the scatter of what is ahead does."""

    starts: tuple[int, ...] = (0, 1, 2, 3, 5, 9, 17, 33)
    """First distance of each bin; the first bin is 0 alone (solved), the last has no end."""

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.starts, self.starts[1:], strict=False))
        if len(self.starts) < 2 or self.starts[:2] != (0, 1) or not ascending:
            raise ConfigError(
                f"starts is {self.starts!r}, expected ascending distances that begin with 0, 1: "
                "the first bin is that of solved frames"
            )

    @property
    def count(self) -> int:
        return len(self.starts)

    @property
    def horizon(self) -> int:
        """Where the last bin begins: distances from here on are not distinguished."""
        return self.starts[-1]

    def bin_of(self, distances: np.ndarray) -> np.ndarray:
        """Number of the bin that holds each distance (any shape, 0 or more)."""
        return np.searchsorted(self.starts, distances, side="right") - 1

    def means(self) -> np.ndarray:
        """Mean of min(distance, horizon) in each bin, (bins,) float32 frames."""
        ends = np.append(np.array(self.starts[1:]) - 1, self.horizon)
        return ((np.array(self.starts) + ends) / 2).astype(np.float32)

    def beyond(self, left: np.ndarray) -> np.ndarray:
        """Share of each bin that lies beyond ``left`` (N,) frames, (N, bins) float32 in [0, 1].

        The last bin counts wholly, for nothing is known of where in it a distance lies.
        """
        ends = np.array(self.starts[1:]) - 1
        sizes = np.diff(self.starts)
        shares = np.clip((ends - np.asarray(left)[:, None]) / sizes, 0, 1)
        return np.concatenate([shares, np.ones((len(shares), 1))], axis=1).astype(np.float32)


def log_likelihood(
    logits: Tensor, distances: np.ndarray, known: np.ndarray, bins: DistanceBins
) -> Tensor:
    """Log-likelihood of each frame, (N,).

    logits: (N, bins). distances: (N,) frames to go where ``known`` (N,) is True, elsewhere the
    frames that were left when nothing more was seen.
    """
    shares = bins.beyond(distances)
    shares[known] = np.eye(bins.count, dtype=np.float32)[bins.bin_of(distances[known])]
    weights = torch.from_numpy(shares).to(logits.device)
    return (logits + weights.log()).logsumexp(-1) - logits.logsumexp(-1)


def expected_distance(logits: np.ndarray, bins: DistanceBins) -> np.ndarray:
    """Expectation of min(distance, horizon) in frames; logits (..., bins), answer (...)."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (shifted @ bins.means()) / shifted.sum(axis=-1)
