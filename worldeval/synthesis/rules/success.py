"""Keep what the judge calls a success with enough confidence."""

from __future__ import annotations

import pandas as pd

from worldeval.errors import ConfigError
from worldeval.synthesis.tables import KEY, OUTCOME, PROBABILITY, Tables
from worldeval.types import Outcome

STAGE = "judged a success"
NEEDS = (OUTCOME, PROBABILITY)


def select(tables: Tables, *, threshold: float = 0.8) -> pd.Series:
    """Keys -> probability of success, of those of at least ``threshold``; where the judge gives no
    probability, its verdict alone counts (as a probability of 1)."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold!r}, expected a probability from 0 to 1")
    found = tables.rollouts[tables.rollouts[OUTCOME] == Outcome.SUCCESS.value]
    scores = found.set_index(KEY)[PROBABILITY].astype(float).fillna(1.0)
    return scores[scores >= threshold].sort_values(ascending=False, kind="stable")
