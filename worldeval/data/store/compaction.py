"""Merging the files of single episodes into few, in a way that no interruption can break.

Enters: a store and its rows. Leaves: merged files in the staging folder, and the journal that puts
them in place (``journal.py``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from worldeval.data.atomic import sync_file
from worldeval.data.parquet import opened, read_row_group
from worldeval.data.store import facts, index, journal
from worldeval.data.store.checksums import check_unchanged, checksum
from worldeval.data.store.layout import (
    StoreLayout,
    chunk_and_file,
    data_path,
    episodes_path,
    video_path,
)
from worldeval.data.store.rows import write_parquet
from worldeval.data.video import join_mp4, mp4_times
from worldeval.errors import DataError, StoreError

BYTES_PER_MB = 2**20


def prepare(
    root: Path,
    layout: StoreLayout,
    rows: Sequence[index.Row],
    sizes_mb: tuple[int, int],
    extra: Mapping[str, Any],
) -> None:
    """Write the merged files of all episodes into the staging folder, then the journal."""
    if not rows:
        return
    staging = journal.begin(root)
    try:
        _check_unchanged(root, layout, rows)  # or damage would get a checksum of its own
        merged = [dict(row) for row in rows]
        for key in layout.video_keys:
            places = _merge_video(root, staging, layout, rows, key, sizes_mb[1])
            merged = [row | place for row, place in zip(merged, places, strict=True)]
        pack = partial(facts.packed, layout, sizes_mb, extra)
        merged = _merge_data(root, staging, layout, rows, merged, sizes_mb[0], pack)
        _merge_episodes(root, staging, layout, merged)
    except (DataError, FileNotFoundError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise StoreError(
            f"{root} cannot be compacted, for a file is damaged: {error}; it is as it was, run "
            "verify() for a full list"
        ) from error
    old = {index.data_of(row) for row in rows}
    old |= {index.video_of(row, key) for row in rows for key in layout.video_keys}
    old |= {p.relative_to(root).as_posix() for p in index.episodes_files(root)}
    journal.decide(root, old)


def _check_unchanged(root: Path, layout: StoreLayout, rows: Sequence[index.Row]) -> None:
    named = {index.data_of(row): row["worldeval.checksum/data"] for row in rows}
    for key in layout.video_keys:
        named |= {index.video_of(row, key): row[f"worldeval.checksum/videos/{key}"] for row in rows}
    for name, noted in named.items():
        check_unchanged(root / name, noted)


def _merge_data(
    root: Path,
    staging: Path,
    layout: StoreLayout,
    rows: Sequence[index.Row],
    placed: Sequence[index.Row],
    limit_mb: int,
    pack: Callable[[Sequence[index.Row]], dict[str, str]],
) -> list[index.Row]:
    """Rewrite the data parquet, one row group an episode; ``placed`` with the new places."""
    schema = layout.data_schema()
    sizes = [_episode_bytes(root, rows, i) for i in range(len(rows))]
    merged: list[index.Row] = []
    for slot, members in enumerate(_groups(sizes, limit_mb * BYTES_PER_MB)):
        chunk, file = chunk_and_file(slot)
        target = staging / data_path(chunk, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        tables = (
            read_row_group(
                root / index.data_of(rows[i]),
                i - index.first_in_file(rows, i),
                rows[i]["length"],
                schema,
            ).cast(schema)
            for i in members
        )
        write_parquet(tables, target, schema=schema, metadata=pack([placed[i] for i in members]))
        sync_file(target)
        place = {
            "data/chunk_index": chunk,
            "data/file_index": file,
            "worldeval.checksum/data": checksum(target),
        }
        merged += [placed[i] | place for i in members]
    return merged


def _merge_video(
    root: Path,
    staging: Path,
    layout: StoreLayout,
    rows: Sequence[index.Row],
    key: str,
    limit_mb: int,
) -> list[dict[str, Any]]:
    """Join the mp4 files of one view packet by packet; where each episode lies in the new ones."""
    sources = list(dict.fromkeys(index.video_of(row, key) for row in rows))
    setups = [mp4_times(root / source)[1] for source in sources]
    sizes = [(root / source).stat().st_size for source in sources]
    place: dict[str, tuple[int, int, float]] = {}  # of a source: chunk, file, start in s
    frames_in = {
        source: sum(r["length"] for r in rows if index.video_of(r, key) == source)
        for source in sources
    }
    # Different set-ups (another x264) cannot share a file: one decoder would misread the other.
    groups = _groups(sizes, limit_mb * BYTES_PER_MB, lambda a, b: setups[a] == setups[b])
    for slot, members in enumerate(groups):
        chunk, file = chunk_and_file(slot)
        target = staging / video_path(key, chunk, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        join_mp4([root / sources[i] for i in members], target, layout.fps)
        sync_file(target)
        frames_before = 0
        for i in members:
            place[sources[i]] = (chunk, file, frames_before / layout.fps)
            frames_before += frames_in[sources[i]]
        found = len(mp4_times(target)[0])
        if found != frames_before:
            raise StoreError(
                f"{root}: the videos of {key} have {found} frames, expected "
                f"{frames_before}; run verify() and restore what is damaged"
            )
    updates = []
    noted = {p[:2]: checksum(staging / video_path(key, *p[:2])) for p in place.values()}
    for row in rows:
        chunk, file, shift = place[index.video_of(row, key)]
        start = shift + row[f"videos/{key}/from_timestamp"]
        updates.append(
            {
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": file,
                f"videos/{key}/from_timestamp": start,
                f"videos/{key}/to_timestamp": start + row["length"] / layout.fps,
                f"worldeval.checksum/videos/{key}": noted[chunk, file],
            }
        )
    return updates


def _merge_episodes(
    root: Path, staging: Path, layout: StoreLayout, merged: Sequence[dict[str, Any]]
) -> None:
    """One episodes parquet with the new places and the old statistics."""
    table = index.read_whole(root, layout)
    schema = table.schema
    for number, name in enumerate(schema.names):
        if name.startswith("meta/episodes/"):
            table = table.set_column(
                number, schema.field(number), pa.array([0] * len(table), pa.int64())
            )
        elif name.startswith(("data/", "videos/", "worldeval.checksum/")):
            values = pa.array([row[name] for row in merged], schema.field(number).type)
            table = table.set_column(number, schema.field(number), values)
    target = staging / episodes_path(0, 0)
    target.parent.mkdir(parents=True, exist_ok=True)
    index.write_episodes(table, target)
    sync_file(target)


def _episode_bytes(root: Path, rows: Sequence[index.Row], i: int) -> int:
    """What episode ``i`` takes in a data file: its columns and its share of the footer."""
    with opened(root / index.data_of(rows[i])) as file:
        footer = file.metadata.serialized_size
        groups = [file.metadata.row_group(g) for g in range(file.num_row_groups)]
    sizes = [sum(g.column(c).total_compressed_size for c in range(g.num_columns)) for g in groups]
    return sizes[i - index.first_in_file(rows, i)] + footer // len(groups)


def _groups(
    sizes: Sequence[int], limit: int, fits: Callable[[int, int], bool] = lambda a, b: True
) -> Iterator[list[int]]:
    """Consecutive runs of at most ``limit`` bytes whose neighbours fit together."""
    group: list[int] = []
    total = 0
    for i, size in enumerate(sizes):
        if group and (total + size > limit or not fits(group[-1], i)):
            yield group
            group, total = [], 0
        group.append(i)
        total += size
    if group:
        yield group
