"""Keep what people labelled a success."""

from __future__ import annotations

import pandas as pd

from worldeval.synthesis.tables import KEY, LABEL, Tables
from worldeval.types import Outcome

STAGE = "chosen by hand"
NEEDS = (LABEL,)


def select(tables: Tables) -> pd.Series:
    """Keys -> 1, of those that the majority of ``--labels`` calls a success."""
    rollouts = tables.rollouts
    found = rollouts[rollouts[LABEL] == Outcome.SUCCESS.value]
    return found.set_index(KEY)[LABEL].map(lambda _: 1.0).astype(float)
