"""A funnel on the disk: ``selection.parquet`` beside ``funnel.json``, one row per rollout.

Enters: a ``Funnel``. Leaves: a table of what the rules saw and how each of them scored, which
becomes the same ``Funnel`` again. It is written whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path

from worldeval.data.tables import read_parquet
from worldeval.errors import DataError
from worldeval.judging.tables import write_table
from worldeval.synthesis.selecting import Funnel, Stage
from worldeval.synthesis.tables import KEY, no_rollouts

FILE = "selection.parquet"
STAGES, NOTES = "stages", "notes"
PASSED, SCORE = "passed", "score {}"
"""Columns: how many rules kept a rollout, and its score by the first, the second ... of them."""


def write_selection(funnel: Funnel, out: Path) -> None:
    """Write ``funnel`` to ``out``."""
    known = [*no_rollouts().rollouts.columns, "judge"]
    table = funnel.rollouts[[name for name in known if name in funnel.rollouts.columns]].copy()
    table[PASSED] = 0
    for number, stage in enumerate(funnel.stages):
        table[PASSED] += table[KEY].isin(set(stage.scores))
        table[SCORE.format(number)] = table[KEY].map(stage.scores).astype(float)
    stages = [[stage.name, stage.rule, list(stage.needs)] for stage in funnel.stages]
    table.attrs = {STAGES: json.dumps(stages), NOTES: json.dumps(list(funnel.notes))}
    write_table(table, out / FILE)


def read_selection(out: Path) -> Funnel:
    """The funnel that was written to ``out``. DataError if there is none, or no such table."""
    path = out / FILE
    if not path.exists():
        raise DataError(
            f"{out} does not say which rollouts were kept and why: there is no {FILE}. If an "
            "earlier version wrote it, run the same `worldeval synthesize` again: nothing is "
            "imagined again"
        )
    table = read_parquet(path)
    try:
        stages, columns = [], [PASSED]
        for number, (name, rule, needs) in enumerate(json.loads(table.attrs[STAGES])):
            columns.append(SCORE.format(number))
            kept = table[table[PASSED] > number]
            scores = dict(zip(kept[KEY].map(str), kept[columns[-1]].map(float), strict=True))
            needed = tuple(map(str, needs))
            stages.append(Stage(name=str(name), rule=str(rule), scores=scores, needs=needed))
        return Funnel(
            rollouts=table.drop(columns=columns),
            stages=tuple(stages),
            notes=tuple(map(str, json.loads(table.attrs[NOTES]))),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} is not the table of a selection; run the same `worldeval synthesize` again: "
            "nothing is imagined again"
        ) from error
