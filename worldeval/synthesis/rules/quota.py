"""Keep at most so many rollouts of each task and of each instruction."""

from __future__ import annotations

import pandas as pd

from worldeval.errors import ConfigError
from worldeval.synthesis.rules.distinct import best_first
from worldeval.synthesis.tables import INSTRUCTION, KEY, TASK, Tables

STAGE = "within the quota"
NEEDS = ()


def select(
    tables: Tables, *, per_task: int | None = None, per_instruction: int | None = None
) -> pd.Series:
    """Keys -> rank within the task (from 1), best first, of at most ``per_task`` of each task and
    ``per_instruction`` of each instruction; None sets no bound."""
    for name, count in (("per_task", per_task), ("per_instruction", per_instruction)):
        if count is not None and count < 1:
            raise ConfigError(f"{name} is {count!r}, expected 1 or more")
    found = best_first(tables.rollouts)
    if per_instruction is not None:
        found = found.groupby([TASK, INSTRUCTION], sort=False).head(per_instruction)
    if per_task is not None:
        found = found.groupby(TASK, sort=False).head(per_task)
    ranks = found.groupby(TASK, sort=False).cumcount() + 1
    return ranks.set_axis(found[KEY]).astype(float)
