"""Keep what came far enough along its task, whatever the verdict."""

from __future__ import annotations

import pandas as pd

from worldeval.synthesis.tables import KEY, PROGRESS, Tables

STAGE = "far enough along"
NEEDS = (PROGRESS,)


def select(tables: Tables, *, least: float = 0.8) -> pd.Series:
    """Keys -> highest progress, of those with at least ``least`` of the way (1: solved)."""
    scores = tables.rollouts.set_index(KEY)[PROGRESS].astype(float)
    return scores[scores >= least].sort_values(ascending=False, kind="stable")
