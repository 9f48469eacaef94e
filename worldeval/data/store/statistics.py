"""The ten statistics that LeRobot keeps of every feature, an episode at a time and over all.

Over all, minimum, maximum, mean and deviation are exact (Chan et al. 1979, parallel variance);
quantiles are the mean of the episodes' quantiles weighted by length, as LeRobot itself does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def of_values(values: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of (T,) or (T, D) numbers, each of shape (D,) with D = 1 for scalars."""
    table = np.asarray(values, np.float64).reshape(len(values), -1)
    quantiles = np.quantile(table, list(_QUANTILES.values()), axis=0)
    return {
        "min": table.min(0),
        "max": table.max(0),
        "mean": table.mean(0),
        "std": table.std(0),
        "count": np.array([len(table)]),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    }


def of_frames(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of (T, H, W, 3) uint8 frames, each of shape (3, 1, 1) in [0, 1] but for count.

    A histogram of the 256 levels holds all of them exactly and is quicker than sorting pixels.
    """
    levels = np.arange(256) / 255.0
    columns: list[dict[str, float]] = []
    for channel in range(3):
        counts = np.bincount(frames[..., channel].ravel(), minlength=256)
        total = counts.sum()
        below = np.cumsum(counts)
        mean = float(counts @ levels / total)
        present = np.flatnonzero(counts)
        columns.append(
            {
                "min": levels[present[0]],
                "max": levels[present[-1]],
                "mean": mean,
                "std": float(np.sqrt(counts @ (levels - mean) ** 2 / total)),
                **{
                    name: levels[np.searchsorted(below, part * total)]
                    for name, part in _QUANTILES.items()
                },
            }
        )
    stacked = {
        name: np.array([column[name] for column in columns]).reshape(3, 1, 1) for name in columns[0]
    }
    return {**stacked, "count": np.array([len(frames)])}


def merge(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Statistics over several episodes from those of each, as plain lists for JSON."""
    counts = np.array([np.ravel(part["count"])[0] for part in parts], np.float64)
    stacked = {
        name: np.stack([np.asarray(part[name], np.float64) for part in parts]) for name in parts[0]
    }
    weights = (counts / counts.sum()).reshape(-1, *[1] * (stacked["mean"].ndim - 1))
    mean = (weights * stacked["mean"]).sum(0)
    variance = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(0)
    merged = {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
    }
    merged |= {name: (weights * stacked[name]).sum(0) for name in _QUANTILES}
    return {
        **{name: value.tolist() for name, value in merged.items()},
        "count": [int(counts.sum())],
    }
