"""Keep one of several rollouts whose arms go the same way for the same words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from worldeval.errors import ConfigError
from worldeval.synthesis.tables import INSTRUCTION, KEY, PROBABILITY, TASK, Tables

STAGE = "not a near copy"
NEEDS = ()
MOMENTS = 16
"""Paths are compared at so many moments, evenly spread over each."""


def select(tables: Tables, *, least: float = 0.02) -> pd.Series:
    """Keys -> distance to the nearest one kept before it, of those at least ``least`` away.

    Of near copies the one with the higher probability of success is kept. The distance of two
    paths is the root of their mean squared difference over all moments and numbers of the pose, in
    shares of the robot's range. Paths for other tasks or instructions are no copies.
    """
    if least < 0:
        raise ConfigError(f"least is {least!r}, expected 0 or more of the robot's range")
    scores: dict[str, float] = {}
    kept: dict[tuple[str, str], list[np.ndarray]] = {}
    for row in best_first(tables.rollouts).to_dict("records"):
        path = at_moments(tables.paths[row[KEY]])
        others = kept.setdefault((row[TASK], row[INSTRUCTION]), [])
        ways = [float(np.sqrt(((path - other) ** 2).mean())) for other in others]
        nearest = min(ways, default=1.0)
        if nearest >= least:
            others.append(path)
            scores[row[KEY]] = nearest
    return pd.Series(scores, dtype=float)


def at_moments(path: np.ndarray) -> np.ndarray:
    """A path (T, P) at ``MOMENTS`` moments, by linear interpolation."""
    wanted = np.linspace(0, len(path) - 1, MOMENTS)
    before = np.floor(wanted).astype(int)
    after = np.minimum(before + 1, len(path) - 1)
    share = (wanted - before)[:, None]
    return (1 - share) * path[before] + share * path[after]


def best_first(rollouts: pd.DataFrame) -> pd.DataFrame:
    """The rollouts by probability of success; unknown ones last, equal ones by key."""
    if PROBABILITY not in rollouts.columns:
        return rollouts.sort_values(KEY, kind="stable")
    by_key = rollouts.sort_values(KEY, kind="stable")
    return by_key.sort_values(PROBABILITY, ascending=False, na_position="last", kind="stable")
