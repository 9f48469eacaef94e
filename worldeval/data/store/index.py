"""The small files of a store: info, tasks, episodes, statistics. Which file holds which episode.

Enters: the root of a store and its rows, one dict an episode with the columns of the episodes
parquet (but for statistics, which only ``write_stats`` reads). Leaves: files below ``meta/``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldeval.data.atomic import write_atomically
from worldeval.data.files import parsed_json, read_json
from worldeval.data.parquet import MOST_ROWS, check_columns, opened, read_table
from worldeval.data.readers.film_spans import FilmSpan
from worldeval.data.store import statistics
from worldeval.data.store.layout import (
    DATA_FILES_SIZE_IN_MB,
    FILES_PER_CHUNK,
    FORMAT,
    INFO_PATH,
    STATISTICS,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_FILES_SIZE_IN_MB,
    StoreLayout,
    data_path,
    episodes_path,
    video_path,
)
from worldeval.errors import StoreError

Row = dict[str, Any]
MOST_MB = 2**20
"""No file of a store is to become larger."""
SIZES_MB = (("data", DATA_FILES_SIZE_IN_MB), ("video", VIDEO_FILES_SIZE_IN_MB))
"""The two sizes in ``info.json``, and what they are where it does not say."""
_TASKS = pa.schema([("task_index", pa.int64()), ("task", pa.string())])


def read_info(root: Path) -> dict[str, Any]:
    """``info.json`` of the store at ``root``. Raises StoreError if there is no store."""
    path = root / INFO_PATH
    if not os.path.lexists(path):
        if holds_recordings(root):
            raise StoreError(f"{root} has recordings but no {INFO_PATH}; {remedy(root)}")
        raise StoreError(
            f"there is no episode store at {root} (no {INFO_PATH}); create it, or "
            "give the folder of one"
        )
    try:
        info = read_json(path, strict=True, error=StoreError)
    except StoreError as error:
        raise StoreError(f"{path} cannot be read: {error}; {remedy(root)}") from error
    own = info.get("worldeval") if isinstance(info, dict) else None
    if not isinstance(own, dict) or own.get("format") != FORMAT:
        raise StoreError(
            f"{root} is no store of worldeval (its 'worldeval' entry is not of format {FORMAT!r}); "
            "give a folder that EpisodeStore.create made"
        )
    wrong = _wrong_in_info(info)
    if wrong:
        raise StoreError(f"{path} has {wrong}; {remedy(root)}")
    return info


def _wrong_in_info(info: Mapping[str, Any]) -> str | None:
    for name, least, most in (
        ("total_episodes", 0, MOST_ROWS),
        ("total_frames", 0, 2**53),
        ("total_tasks", 0, MOST_ROWS),
        ("data_files_size_in_mb", 1, MOST_MB),
        ("video_files_size_in_mb", 1, MOST_MB),
    ):
        value = info.get(name, least)
        if type(value) is not int or not least <= value <= most:
            return f"{name} = {value!r:.80}, expected a whole number from {least} to {most}"
    if not isinstance(info["worldeval"].get("extra", {}), dict):
        return "an 'extra' entry that is no object"
    return None


def holds_recordings(root: Path) -> bool:
    """Whether anything of a store lies there, even if its ``info.json`` is lost."""
    return any(
        next(iter(root.glob(pattern)), None) is not None
        for pattern in (
            "data/chunk-*/file-*",
            "videos/*/chunk-*/file-*",
            "meta/episodes/chunk-*/file-*",
        )
    )


def remedy(root: Path) -> str:
    """What to do about an index that is damaged while the recordings may be whole."""
    return f"restore meta/ from a copy, or let `worldeval store repair {root}` rebuild it"


def write_json(path: Path, content: Mapping[str, Any], *, sync: bool = True) -> None:
    text = json.dumps(content, indent=1) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text)

    write_atomically(path, write, sync=sync, sync_name=sync)


def read_tasks(root: Path) -> list[str]:
    """The instructions; the place in the list is LeRobot's task_index."""
    path = root / TASKS_PATH
    try:
        table = read_table(path, _TASKS)
    except StoreError as error:
        raise StoreError(f"{error}; {remedy(root)}") from error
    tasks = dict(zip(table["task_index"].to_pylist(), table["task"].to_pylist(), strict=True))
    if sorted(tasks, key=str) != sorted(range(len(table)), key=str) or None in tasks.values():
        raise StoreError(f"{path} does not number its tasks from 0 on; {remedy(root)}")
    return [tasks[number] for number in range(len(table))]


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
    schema = _TASKS.with_metadata({b"pandas": json.dumps(pandas).encode()})
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


def read_rows(root: Path, layout: StoreLayout, *, counted: int = 0) -> list[Row]:
    """All committed episodes in order. Raises StoreError naming a damaged file.

    counted: episodes that ``info.json`` counts; fewer in the index are a lost part of it.
    """
    try:
        rows = [row for path in episodes_files(root) for row in read_file(path, layout)]
    except StoreError as error:
        raise StoreError(f"{error}; {remedy(root)}") from error
    for place, row in enumerate(rows):
        if row["episode_index"] != place:
            raise StoreError(
                f"{root}/meta/episodes has episode {row['episode_index']} in place of {place}; a "
                f"file is missing or was copied twice, {remedy(root)}"
            )
    if len(rows) < counted:
        raise StoreError(
            f"{root}/meta/episodes names {len(rows)} episodes, {INFO_PATH} counts {counted}: a "
            f"part of the index is lost; nothing was changed, {remedy(root)}"
        )
    return rows


def read_file(path: Path, layout: StoreLayout, *, statistics: bool = False) -> list[Row]:
    """The rows of one file of the index. Raises StoreError for what no episode can have."""
    schema = layout.episodes_schema()
    kept = [field for field in schema if statistics or not field.name.startswith("stats/")]
    table = read_table(path, pa.schema(kept), layout.checksum_columns)
    keys = [f"videos/{key}" for key in layout.video_keys]
    places = [f"{p}/{n}_index" for p in ("data", *keys, "meta/episodes") for n in ("chunk", "file")]
    counts = ["episode_index", "dataset_from_index", "dataset_to_index", *places]
    seconds = [f"{key}/{n}_timestamp" for key in keys for n in ("from", "to")]
    # Of a text its bytes and of a list its items are counted.
    measures = {
        **{name: (pc.binary_length, 1, 2**31) for name in ("worldeval.key", "worldeval.extra")},
        **{name: (pc.binary_length, 0, 2**31) for name in ("worldeval.task",)},
        **{name: (lambda column: column, 0, 2**53) for name in counts},
        **{name: (lambda column: column, 0, 1e9) for name in seconds},
        "length": (lambda column: column, 1, MOST_ROWS),
        "tasks": (pc.list_value_length, 1, MOST_ROWS),
        "worldeval.success_known": (lambda column: pc.cast(column, pa.int8()), 0, 1),
    }
    for name, (measure, least, most) in measures.items() if len(table) else ():
        values = measure(table.column(name))
        right = pc.and_(pc.greater_equal(values, least), pc.less_equal(values, most))
        if not pc.all(pc.fill_null(right, False)).as_py():  # NaN is nowhere between
            place = pc.index(pc.fill_null(right, False), False).as_py()
            raise StoreError(
                f"{path} has {name} = {table.column(name)[place].as_py()!r:.80} in row {place}, "
                "which no episode can have"
            )
    return table.to_pylist()


def extra_of(row: Row) -> dict[str, Any]:
    """The facts of an episode. ValueError if they are not JSON."""
    found = parsed_json(row["worldeval.extra"])
    if not isinstance(found, dict):
        raise ValueError(f"they are {found!r:.80}, expected an object")
    return found


def read_whole(root: Path, layout: StoreLayout) -> pa.Table:
    """The index with its statistics, in one table; checksums that were never noted are null."""
    schema = layout.episodes_schema()
    tables = [read_table(path, schema, layout.checksum_columns) for path in episodes_files(root)]
    return pa.concat_tables([schema.empty_table(), *tables])


def has_checksums(root: Path, layout: StoreLayout) -> bool:
    """Whether new rows carry checksums: all files of the index must have the same columns.

    Raises StoreError if a column is missing, for then nothing can be appended.
    """
    names = set(layout.checksum_columns)
    found = []
    for path in episodes_files(root):
        with opened(path) as file:
            check_columns(path, file.schema_arrow, layout.episodes_schema(checksums=False))
            found.append(names <= set(file.schema_arrow.names))
    return all(found)


def last_group(
    root: Path, rows: Sequence[Row], limit: int, known: pa.Table | None, schema: pa.Schema
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
        path = root / episodes_path(*_place(rows[-1], "meta/episodes"))
        known = read_table(path, schema)
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


def span_of(root: Path, row: Row, key: str) -> FilmSpan:
    """Which part of its film an episode claims."""
    start, end = (row[f"videos/{key}/{name}_timestamp"] for name in ("from", "to"))
    path = root / video_of(row, key)
    return FilmSpan(path=path, start_s=start, to_s=end, rows=row["length"])


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


def write_stats(root: Path, layout: StoreLayout) -> None:
    """``stats.json`` over all episodes, from the statistics of each in the episodes parquet."""
    table = read_whole(root, layout)
    if len(table):
        write_json(root / STATS_PATH, stats_of(table, layout))


def stats_of(table: pa.Table, layout: StoreLayout) -> dict[str, Any]:
    """Statistics over all episodes of the index ``table``, but those too damaged to have any."""
    table = table.filter(pc.is_valid(table[f"stats/action/{STATISTICS[0]}"]))
    if not len(table):
        return {}
    merged = {}
    for feature in layout.features():
        columns = {name: table[f"stats/{feature}/{name}"].to_pylist() for name in STATISTICS}
        merged[feature] = statistics.merge(
            [{name: column[i] for name, column in columns.items()} for i in range(len(table))]
        )
    return merged


def named(rows: Sequence[Row], layout: StoreLayout) -> set[str]:
    """The data files and videos of all episodes."""
    data = {data_of(row) for row in rows}
    return data | {video_of(row, key) for row in rows for key in layout.video_keys}


def unnamed(names: Iterable[str], rows: Sequence[Row], layout: StoreLayout) -> list[str]:
    """Those of the files ``names`` that no episode names."""
    wanted = named(rows, layout)
    return [name for name in names if name not in wanted]


def write_error(root: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{root} cannot be written: {error.strerror or error}; what was stored before is intact, "
        "free some space or make the folder writable, then resume"
    )


def _place(row: Row, prefix: str) -> tuple[int, int]:
    return row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"]
