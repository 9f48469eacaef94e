"""Checksums for stores that were written before there were any.

Enters: a store in which nothing is damaged. Leaves: the same store, whose index notes the checksum
of every film and table. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa

from worldeval.data.atomic import WriterLock, sync_file
from worldeval.data.parquet import read_table
from worldeval.data.store import index, journal
from worldeval.data.store.checksums import checksum
from worldeval.data.store.layout import INFO_PATH, StoreLayout


def unsealed(root: Path) -> int:
    """Episodes of which some file has no checksum in the index."""
    layout = StoreLayout.from_info(index.read_info(root), str(root / INFO_PATH))
    rows = index.read_rows(root, layout)
    return sum(any(row[name] is None for name in layout.checksum_columns) for row in rows)


def seal(root: Path) -> int:
    """Note the checksums that are missing, and return of how many episodes.

    Raises StoreError, with nothing changed, if another process writes or a file is missing.
    """
    lock = WriterLock(root / ".writer.lock")
    try:
        lock.acquire()
        journal.finish(root)
        return _seal(root) if unsealed(root) else 0
    except OSError as error:
        raise index.write_error(root, error) from error
    finally:
        lock.release()


def _seal(root: Path) -> int:
    layout = StoreLayout.from_info(index.read_info(root), str(root / INFO_PATH))
    rows = index.read_rows(root, layout)
    files: list[Callable[[index.Row], str]] = [
        index.data_of,
        *(partial(index.video_of, key=key) for key in layout.video_keys),
    ]
    noted: dict[str, str] = {}
    count = 0
    for row in rows:
        before = [row[name] for name in layout.checksum_columns]
        for column, name_of in zip(layout.checksum_columns, files, strict=True):
            name = name_of(row)
            if row[column] is None:
                noted[name] = noted.get(name) or checksum(root / name)
                row[column] = noted[name]
        count += None in before
    staging = journal.begin(root)
    for path in index.episodes_files(root):  # file by file: what they hold besides stays as it is
        schema = layout.episodes_schema()
        table = read_table(path, schema, layout.checksum_columns)
        for name in layout.checksum_columns:
            number = schema.get_field_index(name)
            values = [rows[i][name] for i in table["episode_index"].to_pylist()]
            table = table.set_column(number, schema.field(number), pa.array(values, pa.string()))
        target = staging / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        index.write_episodes(table, target)
        sync_file(target)
    journal.decide(root, ())
    journal.finish(root)
    return count
