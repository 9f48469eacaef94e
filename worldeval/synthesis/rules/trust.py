"""Keep rollouts in which imagination seems not to have left reality."""

from __future__ import annotations

import pandas as pd

from worldeval.synthesis.tables import DISTRUST, KEY, TRUSTED, Tables

STAGE = "trusted"
NEEDS = (TRUSTED, DISTRUST)


def select(tables: Tables) -> pd.Series:
    """Keys -> how little each is distrusted (negative distrust), of those that are trusted."""
    rollouts = tables.rollouts
    trusted = rollouts[rollouts[TRUSTED].fillna(False).astype(bool)]
    return -trusted.set_index(KEY)[DISTRUST].astype(float).sort_values(kind="stable")
