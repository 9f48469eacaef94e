"""Rollouts as tables: what the worlds themselves knew, in the form of a verdict table.

Enters: a store of rollouts. Leaves: pandas tables that ranking and reports read, one row per
rollout (``rollout_table``) or one row per chunk (``chunk_table``). No frames are read.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import OUTCOME_COLUMNS
from worldeval.errors import DataError
from worldeval.types import Outcome

TRUTH = "world"
"""Name of the judge in tables of what the world's own flag says."""


def rollout_table(store: EpisodeStore) -> pd.DataFrame:
    """One row per rollout with the world's own outcome, in the order of the store.

    Columns: those of a verdict table (``judge`` is "world", ``probability`` is missing), then
    instruction, split, seed, steps (control steps), frames and error (text, empty if none).
    Worlds without a success flag leave "undecided".
    """
    rollouts = store.metadata()
    absent = [c for c in ("policy", "start_id", "world", "outcome") if c not in rollouts.columns]
    if absent:
        if len(rollouts) == 0:
            return pd.DataFrame(columns=list(OUTCOME_COLUMNS))
        raise DataError(
            f"the store has no column {absent[0]!r}, expected a store of rollouts; make one with "
            "`worldeval rollout`"
        )
    known = {outcome.value for outcome in Outcome}
    strange = rollouts.loc[~rollouts["outcome"].isin(known)]
    if len(strange):
        raise DataError(
            f"rollout {strange.iloc[0]['key']!r} has outcome {strange.iloc[0]['outcome']!r}, "
            f"expected one of {sorted(known)}"
        )
    table = pd.DataFrame(
        {
            "key": rollouts["key"],
            "policy": rollouts["policy"],
            "task": rollouts["task"],
            "start_id": rollouts["start_id"],
            "world": rollouts["world"],
            "judge": TRUTH,
            "outcome": rollouts["outcome"],
            "probability": pd.Series([float("nan")] * len(rollouts), index=rollouts.index),
            "instruction": rollouts["instruction"],
            "frames": rollouts["length"],
        }
    )
    for column in ("split", "seed", "steps", "error"):
        if column in rollouts.columns:
            table[column] = rollouts[column]
    return table.reset_index(drop=True)


def chunk_table(store: EpisodeStore) -> pd.DataFrame:
    """One row per chunk: key, chunk, step, seconds by part, and whatever the world reported."""
    rows: list[dict[str, Any]] = []
    rollouts = store.metadata()
    if "chunks" not in rollouts.columns:
        return pd.DataFrame(columns=["key", "chunk", "step"])
    for key, text in zip(rollouts["key"], rollouts["chunks"], strict=True):
        for number, chunk in enumerate(json.loads(text)):
            seconds = {f"seconds_{k}": v for k, v in chunk.pop("seconds", {}).items()}
            rows.append({"key": key, "chunk": number, **chunk, **seconds})
    return pd.DataFrame(rows)
