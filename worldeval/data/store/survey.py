"""The data tables of a store as they lie on the disk, whatever the index says of them.

Enters: the root of a store. Leaves: which episodes are in which table, each table's own copy of the
index, and statistics measured anew. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from worldeval.data.parquet import check_columns, opened, read_row_group
from worldeval.data.store import contents, facts, index, rows, statistics
from worldeval.data.store.layout import SUCCESS, StoreLayout
from worldeval.data.video import read_mp4
from worldeval.errors import StoreError


@dataclass(frozen=True, kw_only=True)
class Table:
    """One data file: the episodes in it, one per row group, and its own copy of the index."""

    name: str
    """Relative to the store."""
    episodes: list[int]
    first_rows: list[int]
    lengths: list[int]
    tasks: list[int]
    kept: facts.Facts | None

    def copy_of(self, number: int) -> index.Row | None:
        """The index row of an episode as the table keeps it, without where the table lies."""
        group = self.episodes.index(number)
        row = self.kept.rows[group] if self.kept and group < len(self.kept.rows) else {}
        return dict(row) if row.get("episode_index") == number else None

    def read(self, root: Path, number: int, schema: pa.Schema) -> pa.Table:
        """Columns of one episode. Raises StoreError if they are damaged."""
        group = self.episodes.index(number)
        return read_row_group(root / self.name, group, self.lengths[group], schema)


def tables_in(root: Path) -> tuple[list[Table], list[str]]:
    """All data tables in the order of their numbers, and what is wrong with those left out."""
    found, wrong = [], []
    for name in contents.recordings(root):
        if name.startswith("data/") and contents.slot_of(name) is not None:
            try:
                found.append(_look_at(root, name))
            except StoreError as error:
                wrong.append(str(error))
    return found, wrong


def any_flag(root: Path, layout: StoreLayout, table: Table, number: int) -> bool:
    """Whether the world flagged success at any frame of an episode."""
    data = table.read(root, number, pa.schema([layout.data_schema().field(SUCCESS)]))
    return any(data[SUCCESS].to_pylist())


def measured(root: Path, layout: StoreLayout, table: Table, row: index.Row) -> dict[str, Any]:
    """The columns of the index with an episode's statistics; of pictures as the videos show them.

    Raises StoreError or DataError if the episode is damaged.
    """
    schema = layout.data_schema()
    data = table.read(root, row["episode_index"], schema)
    found: dict[str, Mapping[str, Any]] = {
        name: statistics.of_values(rows.numbers(data, name).reshape(len(data), -1))
        for name in schema.names
        if name not in layout.image_keys
    }
    for view, key in zip(layout.views, layout.image_keys, strict=True):
        if layout.video_keys:
            start = row[f"videos/{key}/from_timestamp"]
            path, size = root / index.video_of(row, key), layout.image_size
            frames = read_mp4(path, start_s=start, count=row["length"], size=size)
        else:
            frames = rows.images(layout, data, [view], np.arange(len(data)))[:, 0]
        found[key] = statistics.of_frames(frames)
    return {
        f"stats/{feature}/{name}": np.asarray(value).tolist()
        for feature, values in found.items()
        for name, value in values.items()
    }


def _look_at(root: Path, name: str) -> Table:
    path = root / name
    wanted = pa.schema([(n, pa.int64()) for n in ("episode_index", "index", "task_index")])
    numbers: list[list[int]] = []
    lengths = []
    with opened(path) as file:
        check_columns(path, file.schema_arrow, wanted)
        kept = facts.unpacked(file.metadata.metadata)
        for group in range(file.num_row_groups):
            part = file.read_row_group(group, columns=wanted.names, use_threads=False)
            if not len(part) or any(part[n].null_count for n in wanted.names):
                raise StoreError(f"{path} has rows without numbers")
            numbers.append([part[n][0].as_py() for n in wanted.names])
            lengths.append(len(part))
    episodes, first_rows, tasks = map(list, zip(*numbers, strict=True)) if numbers else ([], [], [])
    if episodes != list(range(episodes[0], episodes[0] + len(episodes)) if episodes else []):
        raise StoreError(f"{path} does not hold consecutive episodes")
    return Table(
        name=name,
        episodes=episodes,
        first_rows=first_rows,
        lengths=lengths,
        tasks=tasks,
        kept=kept,
    )
