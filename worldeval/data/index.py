"""The small files of a store: info, tasks, episodes, statistics. Which file holds which episode.

Enters: the root of a store and its rows, one dict an episode with the columns of the episodes
parquet (but for statistics, which only ``write_stats`` reads). Leaves: files below ``meta/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data import statistics
from worldeval.data.atomic import TEMPORARY, write_atomically
from worldeval.data.lerobot import (
    FILES_PER_CHUNK,
    INFO_PATH,
    STATISTICS,
    STATS_PATH,
    TASKS_PATH,
    StoreLayout,
    data_path,
    episodes_path,
    video_path,
)
from worldeval.errors import StoreError

Row = dict[str, Any]


def read_info(root: Path) -> dict[str, Any]:
    """``info.json`` of the store at ``root``. Raises StoreError if there is no store."""
    path = root / INFO_PATH
    try:
        info = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"there is no episode store at {root} (no {INFO_PATH}); create it, or "
            "give the folder of one"
        ) from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}; restore it from a copy") from error
    if not isinstance(info, dict):
        raise StoreError(f"{path} is not a JSON object; restore it from a copy")
    return info


def write_json(path: Path, content: Mapping[str, Any], *, sync: bool = True) -> None:
    text = json.dumps(content, indent=1) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text)

    write_atomically(path, write, sync=sync, sync_name=sync)


def read_tasks(root: Path) -> list[str]:
    """The instructions; the place in the list is LeRobot's task_index."""
    table = _read(root / TASKS_PATH)
    pairs = sorted(zip(table["task_index"].to_pylist(), table["task"].to_pylist(), strict=True))
    return [task for _, task in pairs]


def write_tasks(root: Path, tasks: Sequence[str]) -> None:
    # LeRobot reads this file by pandas and wants the text as the index; these facts in the schema
    # say so without the half second that importing pandas takes.
    pandas = {
        "index_columns": ["task"],
        "columns": [
            {
                "name": name,
                "field_name": name,
                "pandas_type": kind,
                "numpy_type": numpy_kind,
                "metadata": None,
            }
            for name, kind, numpy_kind in (
                ("task_index", "int64", "int64"),
                ("task", "unicode", "object"),
            )
        ],
        "column_indexes": [],
    }
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())],
        metadata={b"pandas": json.dumps(pandas).encode()},
    )
    table = pa.table(
        [pa.array(range(len(tasks)), pa.int64()), pa.array(tasks, pa.string())], schema=schema
    )
    write_atomically(root / TASKS_PATH, lambda path: pq.write_table(table, path))


def episodes_files(root: Path) -> list[Path]:
    return sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet"))


def write_episodes(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, use_dictionary=False, write_page_checksum=True)


def episodes_stamp(root: Path) -> list[tuple[str, int, int]]:
    """Changes whenever somebody commits an episode."""
    stamps = [(path, path.stat()) for path in episodes_files(root)]
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stamps]


def read_rows(root: Path, layout: StoreLayout) -> list[Row]:
    """All committed episodes in order. Raises StoreError naming a damaged file."""
    names = [name for name in layout.episodes_schema().names if not name.startswith("stats/")]
    rows = [row for path in episodes_files(root) for row in _read(path, names).to_pylist()]
    for place, row in enumerate(rows):
        if row["episode_index"] != place:
            raise StoreError(
                f"{root}/meta/episodes has episode {row['episode_index']} in place of {place}; a "
                "file is missing or was copied twice, restore it from a copy"
            )
    return rows


def last_group(
    root: Path, rows: Sequence[Row], limit: int, known: pa.Table | None
) -> tuple[int, pa.Table | None]:
    """Where the next row goes: slot of the episodes parquet, and what it holds already.

    known: the content, if this writer wrote it itself.
    """
    if not rows:
        return 0, None
    slot = (
        rows[-1]["meta/episodes/chunk_index"] * FILES_PER_CHUNK
        + rows[-1]["meta/episodes/file_index"]
    )
    first = rows[-1]["episode_index"]
    while first and _place(rows[first - 1], "meta/episodes") == _place(rows[-1], "meta/episodes"):
        first -= 1
    if len(rows) - first >= limit:
        return slot + 1, None
    if known is None:
        known = _read(root / episodes_path(*_place(rows[-1], "meta/episodes")))
    return slot, known


def next_slot(rows: Sequence[Row], layout: StoreLayout) -> int:
    """The first number that no data file or video uses, nor any before it in order."""
    prefixes = ["data", *(f"videos/{key}" for key in layout.video_keys)]
    places = [_place(rows[-1], prefix) for prefix in prefixes] if rows else []
    return 1 + max((chunk * FILES_PER_CHUNK + file for chunk, file in places), default=-1)


def data_of(row: Row) -> str:
    return data_path(*_place(row, "data"))


def video_of(row: Row, key: str) -> str:
    return video_path(key, *_place(row, f"videos/{key}"))


def first_in_file(rows: Sequence[Row], i: int) -> int:
    """Index of the first episode in the data file of episode ``i``."""
    low, high = 0, i  # by bisection: files hold consecutive episodes in order
    while low < high:
        middle = (low + high) // 2
        if _place(rows[middle], "data") == _place(rows[i], "data"):
            high = middle
        else:
            low = middle + 1
    return low


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A data file, whose errors name it. Raises StoreError if it is missing or damaged."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing") from error
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def read_row_group(path: Path, group: int, length: int, columns: list[str]) -> pa.Table:
    """Columns of one episode. Raises StoreError if the rows are not there."""
    with opened(path) as file:
        rows = file.metadata.row_group(group).num_rows if group < file.num_row_groups else 0
        if rows != length:
            raise StoreError(f"{path} has {rows} rows for it, expected {length}")
        return file.read_row_group(group, columns=columns, use_threads=False)


def write_stats(root: Path, layout: StoreLayout) -> None:
    """``stats.json`` over all episodes, from the statistics of each in the episodes parquet."""
    tables = [_read(path) for path in episodes_files(root)]
    if not tables:
        return
    table = pa.concat_tables(tables)
    merged = {}
    for feature in layout.features():
        columns = {name: table[f"stats/{feature}/{name}"].to_pylist() for name in STATISTICS}
        merged[feature] = statistics.merge(
            [{name: column[i] for name, column in columns.items()} for i in range(len(table))]
        )
    write_json(root / STATS_PATH, merged)


def remove_unreferenced(root: Path, layout: StoreLayout, rows: Sequence[Row]) -> None:
    """Delete what a killed writer left, because LeRobot reads every parquet file that it finds."""
    wanted = {data_of(row) for row in rows}
    wanted |= {video_of(row, key) for row in rows for key in layout.video_keys}
    for pattern in ("data/chunk-*/file-*", "videos/*/chunk-*/file-*"):
        for path in root.glob(pattern):
            if path.relative_to(root).as_posix() not in wanted:
                path.unlink()
    for path in root.glob(f"meta/**/*{TEMPORARY}"):
        path.unlink()


def write_error(root: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{root} cannot be written: {error.strerror or error}; what was stored before is intact, "
        "free some space or make the folder writable, then resume"
    )


def _place(row: Row, prefix: str) -> tuple[int, int]:
    return row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"]


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(
            path,
            columns=columns,
            use_threads=False,
            partitioning=None,
            page_checksum_verification=True,
        )
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read: {error}; restore it from a copy") from error
