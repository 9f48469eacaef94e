"""Reading a whole store to name what is damaged.

Every row group, every PNG and every video packet is looked at; video pictures are decoded too,
because a flipped byte inside a packet does not change their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from worldeval.data import index, rows
from worldeval.data.lerobot import StoreLayout
from worldeval.data.video import mp4_times, read_mp4
from worldeval.errors import DataError

TOLERANCE_S = 1e-4
"""How far a frame may lie from its time; LeRobot's own tolerance."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is wrong: in which file, for which episode, and what."""

    path: Path
    episode_index: int
    what: str


def verify(root: Path, layout: StoreLayout, table: Sequence[index.Row]) -> list[Damage]:
    """All damage in the episodes ``table`` of the store at ``root``."""
    damage: list[Damage] = []
    keys: set[str] = set()
    times: dict[Path, np.ndarray] = {}
    frames_in: Counter[Path] = Counter()
    for row in table:
        for key in layout.video_keys:
            frames_in[root / index.video_of(row, key)] += row["length"]
    next_row = 0
    for i, row in enumerate(table):
        meta = root / "meta/episodes"
        if row["worldeval.key"] in keys:
            damage.append(
                Damage(
                    path=meta,
                    episode_index=i,
                    what=f"a second episode with key {row['worldeval.key']!r}",
                )
            )
        keys.add(row["worldeval.key"])
        if row["dataset_from_index"] != next_row or (
            row["dataset_to_index"] - row["dataset_from_index"] != row["length"]
        ):
            damage.append(Damage(path=meta, episode_index=i, what="its rows are counted wrongly"))
        next_row = row["dataset_to_index"]
        path = root / index.data_of(row)
        what = _attempt(path, partial(_check_rows, path, layout, table, i))
        if what:
            damage.append(Damage(path=path, episode_index=i, what=what))
        for key in layout.video_keys:
            video = root / index.video_of(row, key)
            check = partial(_check_video, video, layout, row, key, frames_in, times)
            what = _attempt(video, check)
            if what:
                damage.append(Damage(path=video, episode_index=i, what=what))
    return damage


def _attempt(path: Path, check: Callable[[], str | None]) -> str | None:
    if not path.is_file():
        return "the file is missing"
    try:
        return check()
    except (DataError, OSError) as error:
        return str(error)


def _check_rows(path: Path, layout: StoreLayout, table: Sequence[index.Row], i: int) -> str | None:
    length = table[i]["length"]
    data = index.read_row_group(
        path, i - index.first_in_file(table, i), length, layout.data_schema().names
    )
    if set(data["episode_index"].to_pylist()) != {i}:
        return f"its rows belong to another episode than {i}"
    first = table[i]["dataset_from_index"]
    if data["index"].to_pylist() != list(range(first, first + length)):
        return "its rows are not in order"
    if not np.isfinite(rows.trajectory(layout, data).poses).all():
        return "its poses hold NaN"
    if not layout.video_keys:
        rows.images(layout, data, layout.views, np.arange(length))
    return None


def _check_video(
    path: Path,
    layout: StoreLayout,
    row: index.Row,
    key: str,
    frames_in: Mapping[Path, int],
    times: dict[Path, np.ndarray],
) -> str | None:
    if path not in times:
        times[path] = mp4_times(path)[0]
    if len(times[path]) != frames_in[path]:
        return f"it has {len(times[path])} frames, expected {frames_in[path]}"
    start = row[f"videos/{key}/from_timestamp"]
    wanted = start + np.arange(row["length"]) / layout.fps
    first = int(np.searchsorted(times[path], start - TOLERANCE_S))
    found = times[path][first : first + row["length"]]
    if len(found) != len(wanted) or np.abs(found - wanted).max() > TOLERANCE_S:
        return f"its frames do not lie at {start:.3f} s and after"
    height, width = read_mp4(path, start_s=start, count=row["length"]).shape[1:3]
    if (height, width) != layout.image_size:
        expected = "x".join(str(side) for side in layout.image_size)
        return f"it has {height}x{width} px, expected {expected} px"
    return None
