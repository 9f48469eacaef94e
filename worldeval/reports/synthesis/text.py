"""The funnel of a selection, and where the time went, as text for a terminal.

Enters: counts per task and stage, seconds by part. Leaves: lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

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
    known = {name: value for name, value in seconds.items() if value >= 0.005 * wall_s}
    rest = max(0.0, wall_s - sum(known.values()))
    parts = sorted(known.items(), key=lambda item: (item[0] != WORLD_MODEL, -item[1]))
    said = [f"{name} {100 * value / wall_s:.0f} %" for name, value in parts]
    if rest >= 0.005 * wall_s:
        said.append(f"rest {100 * rest / wall_s:.0f} %")
    rate = f", {frames / wall_s:.1f} frames/s" if frames else ""
    return f"{wall_s:.0f} s{rate}: {', '.join(said)}"
