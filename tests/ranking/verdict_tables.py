"""Small verdict tables, written as letters."""

from __future__ import annotations

import pandas as pd

LETTERS = {"s": "success", "f": "failure", "u": "undecided", "e": "error"}


def table(world: str = "imagination", **policies: dict[str, str]) -> pd.DataFrame:
    """``table(good={"push": "ssf"})``: three rollouts of one policy on one task."""
    rows = [
        {
            "key": f"{policy}/{task}/{number}",
            "policy": policy,
            "task": task,
            "start_id": f"{task}/{number}",
            "world": world,
            "judge": "test judge",
            "outcome": LETTERS[letter],
            "probability": None,
        }
        for policy, tasks in policies.items()
        for task, letters in tasks.items()
        for number, letter in enumerate(letters)
    ]
    return pd.DataFrame(rows)


IMAGINED = table(
    bad={"push": "ffff", "pull": "sfff"},
    good={"push": "sssu", "pull": "sesf"},
    fair={"push": "ssff", "pull": "sfff"},
)
TRUE = table(
    "metaworld",
    bad={"push": "ffff", "pull": "ffff"},
    good={"push": "ssss", "pull": "ssff"},
    fair={"push": "sfff", "pull": "ssff"},
)
