"""LeRobotDataset v3.0: many episodes in one parquet file and one film per view, and an index.

Read by lerobot 0.4 and later. A file is closed when it has grown to the size that ``info.json``
says; films are strung together packet by packet, so no picture is coded twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data.store import index, statistics
from worldeval.data.store.layout import (
    DATA_FILES_SIZE_IN_MB,
    STATISTICS,
    STATS_PATH,
    VIDEO_FILES_SIZE_IN_MB,
    chunk_and_file,
    data_path,
    episodes_path,
    video_path,
)
from worldeval.data.video import join_mp4
from worldeval.data.writers.lerobot import Written, plain
from worldeval.data.writers.lerobot_rows import RowForm


class WriterV30:
    """Gathers episodes into files as they come."""

    def __init__(self, folder: Path, form: RowForm) -> None:
        self.folder, self.form = folder, form
        self._rows: list[dict[str, Any]] = []
        self._stats: list[dict[str, Any]] = []
        self._data: pq.ParquetWriter | None = None
        self._data_slot = 0
        self._films: dict[str, list[Path]] = {view: [] for view in form.views}
        self._film_slot = dict.fromkeys(form.views, 0)
        self._film_rows = dict.fromkeys(form.views, 0)
        self._film_bytes = dict.fromkeys(form.views, 0)

    def add(self, episode: Written) -> None:
        """See ``lerobot.Writer``."""
        row: dict[str, Any] = {
            "episode_index": episode.index,
            "tasks": [episode.instruction],
            "length": episode.length,
            "dataset_from_index": episode.first,
            "dataset_to_index": episode.first + episode.length,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            **episode.provenance,
        }
        row["data/chunk_index"], row["data/file_index"] = self._add_rows(episode)
        for view, film in zip(self.form.views, episode.films, strict=True):
            row |= self._add_film(view, film, episode)
        for feature, values in episode.stats.items():
            row |= {f"stats/{feature}/{name}": v for name, v in plain(values).items()}
        self._rows.append(row)
        self._stats.append({name: plain(values) for name, values in episode.stats.items()})

    def _add_rows(self, episode: Written) -> tuple[int, int]:
        path = self.folder / data_path(*chunk_and_file(self._data_slot))
        if self._data is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(path, self.form.schema())
        table = self.form.table(episode.values)
        self._data.write_table(table, row_group_size=len(table))
        place = chunk_and_file(self._data_slot)
        if path.stat().st_size >= DATA_FILES_SIZE_IN_MB * 2**20:
            self._data.close()
            self._data, self._data_slot = None, self._data_slot + 1
        return place

    def _add_film(self, view: str, film: Path, episode: Written) -> dict[str, Any]:
        part = self.folder / "parts" / f"{len(self._rows):06d}" / film.name
        part.parent.mkdir(parents=True, exist_ok=True)
        os.replace(film, part)
        size = part.stat().st_size
        limit = VIDEO_FILES_SIZE_IN_MB * 2**20
        if self._films[view] and self._film_bytes[view] + size > limit:
            self._close_film(view)
        self._films[view].append(part)
        chunk, file = chunk_and_file(self._film_slot[view])
        start = self._film_rows[view]
        self._film_rows[view] += episode.length
        self._film_bytes[view] += size
        return {
            f"videos/{view}/chunk_index": chunk,
            f"videos/{view}/file_index": file,
            f"videos/{view}/from_timestamp": start / self.form.fps,
            f"videos/{view}/to_timestamp": (start + episode.length) / self.form.fps,
        }

    def _close_film(self, view: str) -> None:
        target = self.folder / video_path(view, *chunk_and_file(self._film_slot[view]))
        target.parent.mkdir(parents=True, exist_ok=True)
        join_mp4(self._films[view], target, self.form.fps)
        for part in self._films[view]:
            part.unlink()
        self._films[view] = []
        self._film_slot[view] += 1
        self._film_rows[view] = self._film_bytes[view] = 0

    def finish(self, tasks: Sequence[str]) -> dict[str, Any]:
        """See ``lerobot.Writer``."""
        if self._data is not None:
            self._data.close()
        for view in self.form.views:
            self._close_film(view)
        for folder in sorted((self.folder / "parts").iterdir()):
            folder.rmdir()
        (self.folder / "parts").rmdir()
        path = self.folder / episodes_path(0, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._rows, schema=self._schema()), path)
        index.write_json(
            self.folder / STATS_PATH,
            {
                feature: statistics.merge([stats[feature] for stats in self._stats])
                for feature in self._stats[0]
            },
        )
        index.write_tasks(self.folder, list(tasks))
        return {
            "data_files_size_in_mb": DATA_FILES_SIZE_IN_MB,
            "video_files_size_in_mb": VIDEO_FILES_SIZE_IN_MB,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        }

    def _schema(self) -> pa.Schema:
        """Columns of the index, also where a value is unknown in every episode."""
        whole, real, text = pa.int64(), pa.float64(), pa.string()
        columns: list[tuple[str, pa.DataType]] = [
            ("episode_index", whole),
            ("tasks", pa.list_(text)),
            ("length", whole),
            ("data/chunk_index", whole),
            ("data/file_index", whole),
            ("dataset_from_index", whole),
            ("dataset_to_index", whole),
        ]
        for view in self.form.views:
            columns += [(f"videos/{view}/{name}_index", whole) for name in ("chunk", "file")]
            columns += [(f"videos/{view}/{name}_timestamp", real) for name in ("from", "to")]
        for feature in self._stats[0]:
            numbers: pa.DataType = pa.list_(real)
            if feature in self.form.views:
                numbers = pa.list_(pa.list_(numbers))
            columns += [
                (f"stats/{feature}/{name}", pa.list_(whole) if name == "count" else numbers)
                for name in STATISTICS
            ]
        columns += [(f"meta/episodes/{name}_index", whole) for name in ("chunk", "file")]
        columns += [("key", text), ("task", text), ("success", pa.bool_()), ("extra", text)]
        return pa.schema(columns)
