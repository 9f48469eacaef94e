"""The tables of the index, and what makes a hundred thousand rollouts as quick as a hundred.

Names (policies, tasks, instructions, ...) repeat, so text is looked for in the table of different
names, and the rollouts of the names found come from an index. Each order that
a list can have is an index too, so that a page of it is read and not sorted.
"""

from __future__ import annotations

VERSION = 6
NAMED = ("policy", "task", "start_id", "world", "judge", "instruction")
"""Columns with few different values."""
# What is shown, and the columns by which; the last makes every order total.
ORDERS = {
    "": ("policy and task", ("run", "policy", "task", "start_id", "id")),
    "trust": ("least trusted first", ("COALESCE(trust, 2)", "id")),
    "doubt": ("judge least sure first", ("COALESCE(ABS(probability - 0.5), 2)", "id")),
    "failing": ("least probable first", ("COALESCE(probability, 2)", "id")),
    "longest": ("longest first", ("-length", "id")),
}
_INDEXES = {
    **{f"in_order_{name}": columns for name, (_, columns) in ORDERS.items()},
    "by_policy": ("policy", "task", "outcome"),
    "by_task": ("task", "outcome"),
    "by_run": ("run", "task", "start_id"),
    "by_start": ("start_id",),
    "by_world": ("world",),
    "by_instruction": ("instruction",),
    "by_judge": ("judge",),
    "by_outcome": ("outcome",),
    "by_truth": ("true_outcome", "outcome", "run"),
    "by_trust": ("trust",),
    "by_trusted": ("trusted", "run"),
    "by_probability": ("probability",),
    "by_store": ("store",),
}


def _indexed(column: str) -> str:
    return column if column.isidentifier() else f"({column})"


SCHEMA = (
    """CREATE TABLE runs (id TEXT PRIMARY KEY, name TEXT, folder TEXT, begun DOUBLE PRECISION,
 changed DOUBLE PRECISION, policies INTEGER, rollouts INTEGER, expected INTEGER, judged INTEGER,
 decided INTEGER, stamp TEXT, note TEXT)""",
    "CREATE TABLE stores (path TEXT PRIMARY KEY, run TEXT, stamp TEXT, note TEXT)",
    """CREATE TABLE rollouts (id TEXT PRIMARY KEY, run TEXT, store TEXT, episode INTEGER, key TEXT,
 policy TEXT, task TEXT, start_id TEXT, world TEXT, instruction TEXT, seed BIGINT,
 length INTEGER, outcome TEXT, probability DOUBLE PRECISION, judge TEXT, reason TEXT, frames TEXT,
 trusted INTEGER, trust DOUBLE PRECISION, true_outcome TEXT, error TEXT)""",
    "CREATE TABLE names (field TEXT, value TEXT, PRIMARY KEY (field, value))",
    *(
        f"CREATE INDEX {name} ON rollouts ({', '.join(map(_indexed, columns))})"
        for name, columns in _INDEXES.items()
    ),
)
"""For SQLite and for Postgres alike."""
TABLES = ("runs", "stores", "rollouts", "names")
