"""Keep rollouts whose frames look like frames: no flicker, no collapse into blur."""

from __future__ import annotations

import pandas as pd

from worldeval.errors import ConfigError
from worldeval.synthesis.tables import ARTEFACTS, KEY, Tables

STAGE = "without artefacts"
NEEDS = (ARTEFACTS,)


def select(tables: Tables, *, most: float = 0.1) -> pd.Series:
    """Keys -> share of frames without artefacts, of those with at most ``most`` such frames."""
    if not 0 <= most <= 1:
        raise ConfigError(f"most is {most!r}, expected a share of the frames from 0 to 1")
    shares = tables.rollouts.set_index(KEY)[ARTEFACTS].astype(float)
    return 1 - shares[shares <= most].sort_values(kind="stable")
