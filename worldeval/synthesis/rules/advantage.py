"""Keep the best rollout of each varied start, where it is better than the policy is there."""

from __future__ import annotations

import pandas as pd

from worldeval.errors import ConfigError
from worldeval.synthesis.tables import ADVANTAGE, KEY, TRIED_ONCE, Tables

STAGE = "better than the policy's own value"
NEEDS = (ADVANTAGE,)


def select(tables: Tables, *, margin: float = 0.1) -> pd.Series:
    """Keys -> advantage, of the best of each start if it is above ``margin``: what the policy does
    well anyway teaches it nothing.

    Raises ConfigError where every start was tried once: nothing says what the policy is worth.
    """
    rollouts = tables.rollouts
    if len(rollouts) and rollouts[ADVANTAGE].isna().all():
        raise ConfigError(TRIED_ONCE)
    known = rollouts[rollouts[ADVANTAGE].notna()]
    best = known.sort_values(ADVANTAGE, ascending=False, kind="stable").drop_duplicates("group")
    scores = best.set_index(KEY)[ADVANTAGE].astype(float)
    return scores[scores > margin]
