"""Merging the files of single episodes into few, in a way that no interruption can break.

First all new files are written into a staging folder: the store is untouched. Then a journal names
each move and each deletion; writing it is the moment of decision. Carrying it out can be repeated
from any point, which ``finish`` does whenever a store with a journal is opened.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data import index
from worldeval.data.atomic import sync_file, sync_folder
from worldeval.data.lerobot import (
    StoreLayout,
    chunk_and_file,
    data_path,
    episodes_path,
    video_path,
)
from worldeval.data.rows import parquet_options
from worldeval.data.video import join_mp4, mp4_times
from worldeval.errors import DataError, StoreError

JOURNAL = "meta/compaction.json"
STAGING = ".compaction"
BYTES_PER_MB = 2**20


def prepare(
    root: Path, layout: StoreLayout, rows: Sequence[index.Row], sizes_mb: tuple[int, int]
) -> None:
    """Write the merged files of all episodes into the staging folder, then the journal."""
    staging = root / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    if not rows:
        return
    try:
        merged = _merge_data(root, staging, layout, rows, sizes_mb[0])
        for key in layout.video_keys:
            places = _merge_video(root, staging, layout, rows, key, sizes_mb[1])
            merged = [row | place for row, place in zip(merged, places, strict=True)]
        _merge_episodes(root, staging, layout, merged)
    except (DataError, FileNotFoundError) as error:
        raise StoreError(
            f"{root} cannot be compacted, for a file is damaged: {error}; it is as it was, run "
            "verify() for a full list"
        ) from error
    new = sorted(p.relative_to(staging).as_posix() for p in staging.rglob("file-*"))
    old = {index.data_of(row) for row in rows}
    old |= {index.video_of(row, key) for row in rows for key in layout.video_keys}
    old |= {p.relative_to(root).as_posix() for p in index.episodes_files(root)}
    index.write_json(root / JOURNAL, {"moves": new, "deletions": sorted(old - set(new))})


def interrupted(root: Path) -> bool:
    """Whether a compaction was decided and not carried out to its end."""
    return (root / JOURNAL).exists()


def finish(root: Path) -> None:
    """Carry out the journal of a compaction, if there is one; repeatable from any point."""
    journal = root / JOURNAL
    if not interrupted(root):
        return
    try:
        plan = json.loads(journal.read_text())
        for name in [*plan["moves"], *plan["deletions"]]:
            if not name.startswith(("data/", "videos/", "meta/episodes/")) or ".." in name:
                raise ValueError(f"it names {name!r}, which is no file of a store")
        for name in plan["moves"]:
            source, target = root / STAGING / name, root / name
            if source.exists():  # else it was moved before the interruption
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
        for name in plan["deletions"]:
            (root / name).unlink(missing_ok=True)
        for folder in {(root / name).parent for name in plan["moves"]}:
            sync_folder(folder)
        journal.unlink()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{root}: an interrupted compaction cannot be finished: {error}; make the folder "
            "writable and open it again"
        ) from error
    shutil.rmtree(root / STAGING, ignore_errors=True)
    for folder in [
        *root.glob("data/chunk-*"),
        *root.glob("videos/*/chunk-*"),
        *root.glob("meta/episodes/chunk-*"),
    ]:
        if not any(folder.iterdir()):
            folder.rmdir()


def _merge_data(
    root: Path, staging: Path, layout: StoreLayout, rows: Sequence[index.Row], limit_mb: int
) -> list[dict[str, Any]]:
    """Rewrite the data parquet, one row group an episode; the new place of each episode."""
    schema = layout.data_schema()
    sizes = [_episode_bytes(root, rows, i) for i in range(len(rows))]
    merged: list[dict[str, Any]] = []
    for slot, members in enumerate(_groups(sizes, limit_mb * BYTES_PER_MB)):
        chunk, file = chunk_and_file(slot)
        target = staging / data_path(chunk, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(target, schema, **parquet_options(schema)) as writer:
            for i in members:
                group = i - index.first_in_file(rows, i)
                table = index.read_row_group(
                    root / index.data_of(rows[i]), group, rows[i]["length"], schema.names
                )
                writer.write_table(table.cast(schema), row_group_size=len(table))
                merged.append({**rows[i], "data/chunk_index": chunk, "data/file_index": file})
        sync_file(target)
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
    for row in rows:
        chunk, file, shift = place[index.video_of(row, key)]
        start = shift + row[f"videos/{key}/from_timestamp"]
        updates.append(
            {
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": file,
                f"videos/{key}/from_timestamp": start,
                f"videos/{key}/to_timestamp": start + row["length"] / layout.fps,
            }
        )
    return updates


def _merge_episodes(
    root: Path, staging: Path, layout: StoreLayout, merged: Sequence[dict[str, Any]]
) -> None:
    """One episodes parquet with the new places and the old statistics."""
    schema = layout.episodes_schema()
    table = pa.concat_tables(
        [pq.read_table(p, partitioning=None) for p in index.episodes_files(root)]
    ).cast(schema)
    for number, name in enumerate(schema.names):
        if name.startswith("meta/episodes/"):
            table = table.set_column(
                number, schema.field(number), pa.array([0] * len(table), pa.int64())
            )
        elif name.startswith(("data/", "videos/")):
            values = pa.array([row[name] for row in merged], schema.field(number).type)
            table = table.set_column(number, schema.field(number), values)
    target = staging / episodes_path(0, 0)
    target.parent.mkdir(parents=True, exist_ok=True)
    index.write_episodes(table, target)
    sync_file(target)


def _episode_bytes(root: Path, rows: Sequence[index.Row], i: int) -> int:
    """What episode ``i`` takes in a data file: its columns and its share of the footer."""
    with index.opened(root / index.data_of(rows[i])) as file:
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
