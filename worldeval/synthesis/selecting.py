"""Rules applied one after the other, and what is left after each: the funnel.

Enters: ``Tables`` and the rules as they were chosen. Leaves: a ``Funnel``: keys after each stage,
scores, counts per task. Pure; nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.data.provenance import jsonable
from worldeval.data.tables import DECIDED
from worldeval.errors import DataError
from worldeval.synthesis.rules import Chosen
from worldeval.synthesis.tables import KEY, OUTCOME, TASK, Tables

if TYPE_CHECKING:
    import pandas as pd

IMAGINED, JUDGED = "imagined", "judged"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one rule kept. rule: as it would be given; scores: key -> its score; needs: columns of
    the table that it looked at."""

    name: str
    rule: str
    scores: dict[str, float]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """rollouts: the table that the rules saw. stages: after each rule. notes: what else is to be
    told."""

    rollouts: pd.DataFrame
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> list[str]:
        """Keys that every rule kept, in the order of the table."""
        last = set(self.stages[-1].scores) if self.stages else set(self.rollouts[KEY])
        return [key for key in self.rollouts[KEY] if key in last]

    def scores_of(self, key: str) -> dict[str, float]:
        """Rule -> the score by which it kept ``key``."""
        return {s.rule: round(s.scores[key], 6) for s in self.stages if key in s.scores}

    def lost_at(self, key: str) -> str:
        """The stage that ``key`` did not reach; "" if it was kept."""
        return next((stage.name for stage in self.stages if key not in stage.scores), "")

    def why_lost(self, key: str) -> str:
        """Why ``key`` was not kept, in words: the stage, what its rule looked at, and the rule; ""
        if it was kept."""
        stage = next((stage for stage in self.stages if key not in stage.scores), None)
        if stage is None:
            return ""
        row = self.rollouts[self.rollouts[KEY] == key].iloc[0]
        seen = ", ".join(f"{n} {_shown(row[n])}" for n in stage.needs if n in row.index)
        return f"not {stage.name}{f' ({seen})' if seen else ''}, by the rule {stage.rule}"

    def counts(self) -> pd.DataFrame:
        """Task (and "all") -> imagined, judged, and how many are left after each rule."""
        import pandas as pd

        rollouts = self.rollouts
        columns = {IMAGINED: set(rollouts[KEY])}
        if OUTCOME in rollouts.columns:
            columns[JUDGED] = set(rollouts[KEY][rollouts[OUTCOME].isin(DECIDED)])
        columns |= {stage.name: set(stage.scores) for stage in self.stages}
        rows = {}
        for task, some in [*rollouts.groupby(TASK, sort=False), ("all", rollouts)]:
            keys = set(some[KEY])
            rows[str(task)] = {name: len(keys & kept) for name, kept in columns.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns))

    def why_nothing(self) -> str:
        """One sentence, by stage, on how many were left."""
        total = self.counts().loc["all"]
        said = ", ".join(f"{count} {name}" for name, count in total.items())
        empty = next((s for s in self.stages if not s.scores), None)
        remedy = "" if empty is None else f" (rule {empty.rule})"
        return f"nothing survived the selection: {said}{remedy}"

    def to_json(self) -> dict[str, Any]:
        return {
            "rules": [stage.rule for stage in self.stages],
            "kept": len(self.kept),
            "tasks": jsonable(self.counts().to_dict(orient="index")),
            "notes": list(self.notes),
        }


def select(tables: Tables, rules: Sequence[Chosen], notes: Sequence[str] = ()) -> Funnel:
    """Apply ``rules`` in their order, each to what the one before kept.

    Raises DataError if a rule keeps a rollout that it was not given.
    """
    stages, left = [], tables
    for rule in rules:
        found = rule(left)
        scores = {str(key): float(score) for key, score in found.items()}
        strange = set(scores) - set(left.rollouts[KEY])
        if strange or len(scores) != len(found):
            raise DataError(
                f"rule {rule} kept {sorted(strange)[:1] or 'a rollout twice'}, expected keys of "
                "the rollouts that it was given, each once; mend the rule"
            )
        stages.append(
            Stage(name=rule.rule.stage, rule=str(rule), scores=scores, needs=rule.rule.needs)
        )
        left = left.only(scores)
    return Funnel(rollouts=tables.rollouts, stages=tuple(stages), notes=tuple(notes))


def _shown(value: Any) -> str:
    """A cell of the table for people."""
    if value is None or value != value:
        return "unknown"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
