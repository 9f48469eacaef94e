"""The rows of one episode of a LeRobot dataset, found by its number and put in order of time.

Enters: an index and the number of an episode. Leaves: its columns, row 0 first, each checked for
its kind. Which file an episode is in, and which row comes first, is what ``episode_index`` and
``frame_index`` say, as in LeRobot itself; pointers and places in a file are hints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldeval.data.readers.film import TOLERANCE
from worldeval.data.readers.lerobot_index import LeRobotIndex
from worldeval.errors import DataError

EPISODE, FRAME, TIME, INDEX, TASK = (
    "episode_index", "frame_index", "timestamp", "index", "task_index",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EpisodeRows:
    """files: where they were found. order: row k was the order[k]-th of those found.

    times_s: (N,) since the begin of the episode. ordered: whether a column says which comes first.
    """

    files: tuple[Path, ...]
    columns: pa.Table
    order: np.ndarray
    times_s: np.ndarray
    ordered: bool

    def __len__(self) -> int:
        return len(self.order)

    @property
    def path(self) -> Path:
        """The file that errors name."""
        return self.files[0]

    def numbers(self, name: str, width: int) -> np.ndarray:
        """(N, width) float64. Raises DataError for a missing column and for what is no number."""
        if name not in self.columns.column_names:
            raise DataError(f"{self.path} has no column {name!r}, which info.json promises")
        column = self.columns.column(name).combine_chunks()
        found = column.type
        for _ in range(4):  # numbers in lists of lists, as some writers keep shape [1, 7]
            kind = column.type
            if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)
                    or pa.types.is_fixed_size_list(kind)):  # fmt: skip
                break
            lengths = set(pc.unique(pc.list_value_length(column)).to_pylist())
            if len(lengths) > 1 or None in lengths:
                raise DataError(
                    f"{self.path}: {name!r} is not a regular array of numbers (rows of "
                    f"{', '.join(map(str, sorted(lengths, key=str)))} values); fetch it again"
                )
            column = column.flatten()
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise DataError(f"{self.path}: {name!r} holds {found}, expected numbers")
        values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
        if len(values) != len(self) * width:
            raise DataError(
                f"{self.path}: {name!r} has {len(values) / len(self):g} numbers per row, expected "
                f"{width}"
            )
        return values.reshape(-1, width)

    def changes(self, name: str) -> list[Any]:
        """A column without repetitions of the row before; none if there is no column."""
        if name not in self.columns.column_names:
            return []
        values = self.columns.column(name).to_pylist()
        return [v for k, v in enumerate(values) if k == 0 or v != values[k - 1]]


class RowFinder:
    """Finds rows of episodes, also where the index points to a wrong file."""

    def __init__(self, index: LeRobotIndex, rates_hz: Sequence[float]) -> None:
        """rates_hz: rows per second that timestamps may count."""
        self.index, self.rates_hz = index, tuple(rates_hz)
        self._ranges: dict[Path, tuple[int, int] | None] | None = None

    def rows(self, episode: int, wanted: Iterable[str]) -> EpisodeRows:
        """The rows of an episode with those of the columns ``wanted`` that there are.

        Raises DataError unless they are all there, once, and in an order that can be told.
        """
        expected = self.index.length(episode)
        columns = sorted({*wanted, EPISODE, FRAME, TIME, INDEX})
        pointed: Path | None = None
        problem: DataError | None = None
        found: dict[Path, pa.Table] = {}
        try:
            pointed = self.index.path(episode, "data_path", "data")
            found[pointed] = _read(pointed, episode, columns)
        except DataError as error:
            problem = error
        rows = found.get(pointed) if pointed else None
        if rows is None or len(rows) != expected or self._strange(rows, episode):
            for path in self._others(episode, pointed):
                table = _read(path, episode, columns)
                if len(table):
                    found[path] = table
        found = {path: table for path, table in found.items() if len(table)}
        count = sum(map(len, found.values()))
        where = pointed or self.index.root
        if count == 0 and problem is not None:
            raise problem
        if count != expected:
            names = ", ".join(str(path) for path in found if path != pointed)
            raise DataError(
                f"{where} has {len(found.get(where, ()))} rows of episode {episode}, expected "
                f"{expected}" + (f" ({count} with those in {names})" if names else "")
                + "; fetch it again, or leave the episode out"
            )  # fmt: skip
        files = tuple(sorted(found))
        table = pa.concat_tables([found[path] for path in files], promote_options="permissive")
        order, times, ordered = _in_order(table, files[0], self.rates_hz)
        return EpisodeRows(
            files=files,
            columns=table.take(order) if np.any(np.diff(order) != 1) else table,
            order=order,
            times_s=times,
            ordered=ordered,
        )

    def _strange(self, table: pa.Table, episode: int) -> bool:
        """Whether rows of the right number may be those of another dataset, badly merged."""
        promised = self.index.dataset_range(episode)
        if promised is None or INDEX not in table.column_names or not len(table):
            return False
        try:
            low, high = pc.min_max(table.column(INDEX)).as_py().values()
        except pa.ArrowException:
            return True
        return (low, high) != (promised.start, promised.stop - 1)

    def _others(self, episode: int, pointed: Path | None) -> list[Path]:
        """Files that may have rows of an episode, other than the one the index points to."""
        if self.index.version != "v3.0":  # a file an episode, perhaps in another chunk
            name = "*" if pointed is None else pointed.name
            return [p for p in sorted(self.index.root.glob(f"data/*/{name}")) if p != pointed]
        if self._ranges is None:
            self._ranges = {
                path: _episodes_in(path)
                for path in sorted(self.index.root.glob("data/**/*.parquet"))
            }
        return [
            path
            for path, bounds in self._ranges.items()
            if path != pointed and (bounds is None or bounds[0] <= episode <= bounds[1])
        ]


def _read(path: Path, episode: int, columns: Sequence[str]) -> pa.Table:
    """The rows of an episode in one file."""
    if not path.is_file():
        raise DataError(f"{path} is missing; fetch it again")
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
        if EPISODE not in schema.names or not pa.types.is_integer(schema.field(EPISODE).type):
            kind = schema.field(EPISODE).type if EPISODE in schema.names else "no such column"
            raise DataError(f"{path}: {EPISODE!r} is {kind}, expected whole numbers")
        doubled = {name for name in columns if schema.names.count(name) > 1}
        if doubled:
            raise DataError(f"{path} has two columns named {', '.join(sorted(doubled))}; keep one")
        return pq.read_table(
            path,
            columns=[name for name in columns if name in schema.names],
            filters=[(EPISODE, "=", episode)],
            partitioning=None,
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch it again") from error


def _episodes_in(path: Path) -> tuple[int, int] | None:
    """First and last number of the episodes in a file, by its statistics; None if it has none."""
    if not path.is_file():  # a pipe waits for ever
        return None
    try:
        with pq.ParquetFile(path) as file:
            place = file.schema_arrow.names.index(EPISODE)
            name = file.schema_arrow.names[place]
            groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
        bounds = [
            column.statistics
            for group in groups
            for column in map(group.column, range(group.num_columns))
            if column.path_in_schema == name
        ]
    except (pa.ArrowException, OSError, ValueError):
        return (0, -1)  # a file of something else, or a damaged one: it has no rows to give
    if len(bounds) < len(groups) or not all(s is not None and s.has_min_max for s in bounds):
        return None
    return min(s.min for s in bounds), max(s.max for s in bounds)


def _in_order(
    table: pa.Table, path: Path, rates_hz: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The order of the rows, their times in s, and whether a column said so."""
    count = len(table)
    times = _counted(table, TIME, path)
    frames = _counted(table, FRAME, path)
    order = np.arange(count)
    if frames is not None:
        order = np.argsort(frames, kind="stable")
        if not np.array_equal(frames[order], np.arange(count)):
            raise DataError(f"{path}: {_what_is_wrong(frames[order])}")
    elif times is not None:
        order = np.argsort(times, kind="stable")
    elif (places := _counted(table, INDEX, path)) is not None:  # the row of the whole dataset
        order = np.argsort(places, kind="stable")
        if np.any(np.diff(places[order]) != 1):
            raise DataError(
                f"{path}: index has rows twice or leaves rows out, and no frame_index or timestamp "
                "says which row comes first; fetch it again"
            )
        return order, np.arange(count) / rates_hz[0], True
    if times is None:
        return order, np.arange(count) / rates_hz[0], frames is not None
    times = times[order]
    for rate in rates_hz:
        late = np.abs(times * rate - np.arange(count))
        if late.max() <= TOLERANCE:
            return order, times, True
    late = np.abs(times * rates_hz[0] - np.arange(count))
    row = int(np.argmax(late > TOLERANCE))
    raise DataError(
        f"{path}: timestamp of row {row} is {times[row]:.3f} s, expected {row / rates_hz[0]:.3f} s "
        f"at {rates_hz[0]:g} Hz; frame_index and timestamp contradict each other, or its clock is "
        "not that of info.json: resample it"
    )


def _counted(table: pa.Table, name: str, path: Path) -> np.ndarray | None:
    """A column of one finite number per row, (N,) float64; None if there is no such column."""
    if name not in table.column_names:
        return None
    column = table.column(name).combine_chunks()
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        column = column.flatten()
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(f"{path}: {name!r} holds {column.type}, expected numbers")
    values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    if len(values) != len(table) or not np.isfinite(values).all():
        raise DataError(f"{path}: {name!r} has rows without a number; fetch it again")
    return values


def _what_is_wrong(frames: np.ndarray) -> str:
    """Of ``frame_index`` in order, which should be 0, 1, 2, ..."""
    repeated = frames[1:][np.diff(frames) == 0]
    if len(repeated):
        return f"frame_index {repeated[0]:g} stands in more than one row; leave one of them"
    missing = sorted(set(range(int(min(frames[-1], 1e6)) + 1)) - set(frames.tolist()))
    lacking = f", {missing[0]} is missing ({len(missing)} in all)" if missing else ""
    return (
        f"frame_index runs from {frames[0]:g} to {frames[-1]:g} in {len(frames)} rows{lacking}; "
        "expected 0, 1, 2, ... without holes"
    )
