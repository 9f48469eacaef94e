"""Parquet tables whose columns are checked before anything is believed.

Enters: a path and the columns that must be there. Leaves: a table of exactly these columns, without
holes. Whatever is wrong with a file ends in a StoreError that names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data.store.checksums import check_unchanged
from worldeval.errors import StoreError

MOST_ROWS = 10_000_000
"""Of a small table and of an episode: four days at 30 frames per second."""


@contextmanager
def opened(path: Path, noted: str | None = None) -> Iterator[pq.ParquetFile]:
    """A parquet file. Raises StoreError naming it if it, or what is read of it, is damaged.

    noted: its checksum, of which only the size is compared: its pages have checksums of their own.
    """
    try:
        check_unchanged(path, noted, most_bytes=0)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except StoreError:
        raise
    # A flipped bit in the footer can be anything: a name that is no text, a type that is unknown,
    # a size beyond all memory.
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        MemoryError,
        pa.ArrowException,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(f"{path} cannot be read: {reason}") from error


def read_table(path: Path, schema: pa.Schema, optional: Collection[str] = ()) -> pa.Table:
    """The columns of ``schema`` of a whole file; ``optional`` ones are null where it has none."""
    with opened(path) as file:
        if file.metadata.num_rows > MOST_ROWS:
            raise StoreError(f"{path} has {file.metadata.num_rows} rows, more than {MOST_ROWS}")
        there = [name for name in schema.names if name not in optional or _has(file, name)]
        check_columns(path, file.schema_arrow, pa.schema([schema.field(name) for name in there]))
        table = file.read(columns=there, use_threads=False)
        columns = [
            table.column(field.name).cast(field.type)
            if field.name in there
            else pa.nulls(len(table), field.type)
            for field in schema
        ]
        found = pa.table(columns, schema=schema)
        found.validate(full=True)  # texts that are none, lists that end beyond their values
        return found


def read_row_group(
    path: Path, group: int, length: int, columns: pa.Schema, noted: str | None = None
) -> pa.Table:
    """Columns of one episode. Raises StoreError if the rows are not there, or have holes."""
    with opened(path, noted) as file:
        rows = file.metadata.row_group(group).num_rows if group < file.num_row_groups else 0
        if rows != length:
            raise StoreError(f"{path} has {rows} rows for it, expected {length}")
        table = file.read_row_group(group, columns=columns.names, use_threads=False)
        if table.schema != columns:  # seldom, so that reading need not look at each
            check_columns(path, file.schema_arrow, columns)
    for name, column in zip(table.column_names, table.itercolumns(), strict=True):
        if column.null_count:
            raise StoreError(f"{path} has no value in {column.null_count} {name!r}")
    return table


def check_columns(path: Path, found: pa.Schema, expected: pa.Schema) -> None:
    """Raise StoreError unless ``found`` has all columns of ``expected``, of their kinds."""
    for field in expected:
        places = found.get_all_field_indices(field.name)
        if len(places) != 1:
            count = "no column" if not places else f"{len(places)} columns"
            raise StoreError(f"{path} has {count} {field.name!r}; it is damaged or was changed")
        kind = found.field(places[0]).type
        if kind != field.type and not _alike(kind, field.type):
            raise StoreError(
                f"{path} has {kind} in column {field.name!r}, expected {field.type}; it was changed"
            )


def _has(file: pq.ParquetFile, name: str) -> bool:
    return name in file.schema_arrow.names


def _alike(one: pa.DataType, other: pa.DataType) -> bool:
    """Equal but for the names of list items and 32 or 64 bit offsets, as other writers choose."""
    if pa.types.is_fixed_size_list(one) != pa.types.is_fixed_size_list(other):
        return False
    if pa.types.is_fixed_size_list(one):
        return one.list_size == other.list_size and _alike(one.value_type, other.value_type)
    lists = (pa.types.is_list, pa.types.is_large_list)
    if any(test(one) for test in lists):
        return any(test(other) for test in lists) and _alike(one.value_type, other.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string)
    if any(test(one) for test in texts):
        return any(test(other) for test in texts)
    return bool(one == other)
