"""The funnel of a selection, and where the time went, as text for a terminal.

Enters: counts per task and stage, seconds by part. Leaves: lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from worldeval.rollout.progress import percentages

if TYPE_CHECKING:
    import pandas as pd

WORLD_MODEL = "world model"


def funnel_text(counts: pd.DataFrame) -> str:
    """One line per task (the last is "all"), one column per stage."""
    return table_text("task", counts, [[str(int(value)) for value in row] for row in counts.values])


def table_text(title: str, frame: pd.DataFrame, cells: Sequence[Sequence[str]]) -> str:
    """The rows and columns of ``frame`` with these cells; ``title`` stands above its index."""
    heads = [str(name) for name in frame.columns]
    names = [str(name) for name in frame.index]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    first = max(map(len, [title, *names]))
    lines = ["  ".join([title.ljust(first), *map(str.rjust, heads, widths)])]
    for name, row in zip(names, cells, strict=True):
        lines.append("  ".join([name.ljust(first), *map(str.rjust, row, widths)]))
    return "\n".join(lines)


def time_text(seconds: Mapping[str, float], wall_s: float, frames: int) -> str:
    """Where the time of a run went, in shares of all of it."""
    if wall_s <= 0:
        return ""
    rest = max(0.0, wall_s - sum(seconds.values()))
    shares = percentages({**seconds, "rest": rest})
    order = sorted(seconds, key=lambda name: (name != WORLD_MODEL, -seconds[name]))
    said = [f"{name} {shares[name]} %" for name in [*order, "rest"] if shares[name]]
    rate = f", {frames / wall_s:.1f} frames/s" if frames else ""
    return f"{wall_s:.0f} s{rate}: {', '.join(said)}"
