"""Episodes on disk: the one form of every episode, recorded or imagined.

A store is a LeRobotDataset v3.0 (``data/store/layout.py``) with one data file and one mp4 per view
per episode until ``compact`` merges them. What enters and leaves is ``worldeval.types.Episode``.

An episode exists once its row stands in the episodes parquet, which is replaced atomically after
its files are on the disk. So a kill at any moment loses the episode under way at most; what it
leaves behind is referred to by no row and set aside before the next episode. Recordings that no row
names are never deleted or overwritten, for their index may be lost (``repair``). One writer at a
time; any number of readers, which see what was there when they opened the store.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from worldeval.data import origin
from worldeval.data.atomic import write_atomically
from worldeval.data.store import compaction, contents, facts, index, journal, rows
from worldeval.data.store.checksums import checksum
from worldeval.data.store.coding import CodedViews
from worldeval.data.store.layout import (
    DATA_FILES_SIZE_IN_MB,
    INFO_PATH,
    VIDEO_FILES_SIZE_IN_MB,
    StoreLayout,
    chunk_and_file,
    data_path,
    episodes_path,
    video_path,
)
from worldeval.data.store.reading import StoredEpisodes
from worldeval.data.store.rows import Trajectory
from worldeval.data.store.verification import Damage
from worldeval.data.video import write_mp4
from worldeval.errors import ConfigError, DataError, MismatchError, StoreError
from worldeval.types import Episode

__all__ = ["Damage", "EpisodeStore", "Trajectory"]

ROWS_PER_FILE = 50
"""Episodes in one episodes parquet while writing: each append rewrites it, each open reads all."""

_COLUMNS_OF_METADATA = ("episode_index", "key", "task", "instruction", "length", "success")


class EpisodeStore(StoredEpisodes):
    """A folder of episodes that can be appended to and read by index or key.

    Make one by ``create``, ``open`` or ``open_or_create``; use it as a context manager or call
    ``close``, which writes the statistics over all episodes that LeRobot's training wants.
    """

    def __init__(self, root: str | Path) -> None:
        """Use ``open``, ``create`` or ``open_or_create``."""
        self._tasks: list[str] = []
        self._group: pa.Table | None = None
        self._unfinished: list[str] = []  # files of an append of our own that failed
        self._schema: pa.Schema | None = None
        super().__init__(root)
        self.extra: dict[str, Any] = dict(self.info["worldeval"].get("extra", {}))
        self._sizes_mb = (
            int(self.info.get("data_files_size_in_mb", DATA_FILES_SIZE_IN_MB)),
            int(self.info.get("video_files_size_in_mb", VIDEO_FILES_SIZE_IN_MB)),
        )
        self._dirty = False

    @classmethod
    def create(
        cls,
        root: str | Path,
        *,
        views: Sequence[str],
        image_size: tuple[int, int],
        pose_names: Sequence[str],
        action_names: Sequence[str],
        steps_per_frame: int,
        fps: float,
        robot_type: str,
        images: str = "video",
        expert_actions: bool = False,
        joint_names: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> EpisodeStore:
        """Make an empty store at ``root``, which must not hold one yet.

        The arguments are those of ``StoreLayout``; extra: JSON-able facts about the whole store.
        """
        layout = StoreLayout(
            views=tuple(views),
            image_size=image_size,
            pose_names=tuple(pose_names),
            action_names=tuple(action_names),
            steps_per_frame=steps_per_frame,
            fps=fps,
            robot_type=robot_type,
            images=images,
            expert_actions=expert_actions,
            joint_names=tuple(joint_names),
        )
        root = Path(root)
        if (root / INFO_PATH).exists():
            raise StoreError(f"{root} already holds a store; open it, or choose another folder")
        if index.holds_recordings(root):
            raise StoreError(
                f"{root} holds recordings of a store whose {INFO_PATH} is lost; "
                f"{index.remedy(root)}, or choose another folder"
            )
        info = layout.info(
            episodes=0,
            frames=0,
            tasks=0,
            extra=extra or {},
            sizes_mb=(DATA_FILES_SIZE_IN_MB, VIDEO_FILES_SIZE_IN_MB),
        )
        try:
            index.write_tasks(root, [])
            index.write_json(root / INFO_PATH, info)
        except OSError as error:
            raise index.write_error(root, error) from error
        return cls(root)

    @classmethod
    def create_like(cls, root: str | Path, other: EpisodeStore) -> EpisodeStore:
        """Make an empty store at ``root`` that takes the episodes of ``other``, with its facts."""
        return cls.create(root, **asdict(other.layout), extra=other.extra)

    @classmethod
    def open(cls, root: str | Path) -> EpisodeStore:
        """Open the store at ``root``. Raises StoreError if there is none or it is damaged."""
        return cls(root)

    @classmethod
    def open_or_create(cls, root: str | Path, **arguments: Any) -> EpisodeStore:
        """Open the store at ``root``, or make it by ``create(root, **arguments)``.

        Raises MismatchError naming the field in which an existing store differs; ``extra`` may,
        but for the mark of synthetic episodes (``data/origin.py``).
        """
        if not (Path(root) / INFO_PATH).exists():
            return cls.create(root, **arguments)
        store = cls(root)
        wanted = StoreLayout(**{k: v for k, v in arguments.items() if k != "extra"})
        difference = store.layout.difference(wanted)
        if difference:
            raise MismatchError(f"{store.root}: {difference}; choose another folder")
        origin.check_mark(store, arguments.get("extra"))
        return store

    def append(self, episode: Episode, coded: CodedViews | None = None) -> int:
        """Add an episode atomically and return its index.

        coded: its frames as files on the same disk, coded by another process and moved into this
            store of images="video"; of ``episode.frames``, only the shape counts then.
        Raises MismatchError or DataError if it does not fit into the store, and StoreError if the
        folder cannot be written (a full disk); the store is then as it was.
        """
        self.layout.check(episode)
        extra = _as_json(episode)
        try:
            self._begin_writing()
            if episode.key in self:
                raise DataError(
                    f"{self.root} already has an episode {episode.key!r}; skip the keys in "
                    "store.keys to resume, or choose another key"
                )
            return self._append(episode, extra, coded)
        except OSError as error:
            raise index.write_error(self.root, error) from error

    def compact(self, *, data_mb: int | None = None, video_mb: int | None = None) -> None:
        """Merge the files of single episodes into files of at most ``data_mb`` and ``video_mb``.

        None takes the store's own sizes (100 and 200 MB). No frame is encoded again. An
        interruption leaves the old files or, once all new ones are written, leads to the new.
        """
        sizes_mb = (data_mb or self._sizes_mb[0], video_mb or self._sizes_mb[1])
        for size in sizes_mb:
            if not 1 <= size <= index.MOST_MB:
                raise ConfigError(
                    f"the largest file is to have {size} MB, expected 1 to {index.MOST_MB}"
                )
        try:
            self._begin_writing(appending=False)
            self._sizes_mb = sizes_mb
            compaction.prepare(self.root, self.layout, self._rows, sizes_mb, self.extra)
            journal.finish(self.root)
        except OSError as error:
            raise index.write_error(self.root, error) from error
        self._reload()
        self._dirty = True
        self.close()

    def close(self) -> None:
        """Write totals and statistics if anything was appended, and let another writer in."""
        try:
            for name in self._unfinished:
                (self.root / name).unlink(missing_ok=True)
            self._unfinished = []
            if self._dirty:
                index.write_stats(self.root, self.layout)
                self._write_info()
                contents.remove_halves(self.root)
                self._dirty = False
        except OSError as error:
            raise index.write_error(self.root, error) from error
        finally:
            self._lock.release()

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, episode: Episode, extra: str, coded: CodedViews | None) -> int:
        number, layout = len(self), self.layout
        if coded is not None and len(coded.files) != len(layout.video_keys):
            raise MismatchError(
                f"episode {episode.key!r} comes with {len(coded.files)} coded videos, the store "
                f"keeps {len(layout.video_keys)}"
            )
        first_row = self._rows[-1]["dataset_to_index"] if self._rows else 0
        if episode.instruction not in self._tasks:
            index.write_tasks(self.root, [*self._tasks, episode.instruction])
            self._tasks.append(episode.instruction)
        table, measured = rows.encode(
            layout,
            episode,
            index=number,
            first_row=first_row,
            task_index=self._tasks.index(episode.instruction),
            coded=coded,
        )
        chunk, file = chunk_and_file(index.next_slot(self._rows, layout))
        row: index.Row = {
            "episode_index": number,
            "tasks": [episode.instruction],
            "length": episode.length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": first_row,
            "dataset_to_index": first_row + episode.length,
            "worldeval.key": episode.key,
            "worldeval.task": episode.task,
            "worldeval.success": None if episode.success is None else bool(episode.success),
            "worldeval.success_known": episode.success_at is not None,
            "worldeval.extra": extra,
        }
        videos = [video_path(key, chunk, file) for key in layout.video_keys]
        self._unfinished = [*videos, data_path(chunk, file)]
        for view, (key, name) in enumerate(zip(layout.video_keys, videos, strict=True)):
            write = (
                partial(os.replace, coded.files[view])
                if coded
                else partial(write_mp4, frames=episode.frames[:, view], fps=layout.fps)
            )
            write_atomically(self.root / name, write)
            row |= {
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": file,
                f"videos/{key}/from_timestamp": 0.0,
                f"videos/{key}/to_timestamp": episode.length / layout.fps,
                f"worldeval.checksum/videos/{key}": checksum(self.root / name),
            }
        # The table comes last and says all that the index will: where it lies, the videos do too.
        place = self.root / data_path(chunk, file)
        metadata = facts.packed(layout, self._sizes_mb, self.extra, [row])
        write = partial(rows.write_parquet, [table], schema=table.schema, metadata=metadata)
        write_atomically(place, write)
        row["worldeval.checksum/data"] = checksum(place)
        self._commit(row, measured)
        self._unfinished = []
        return number

    def _commit(self, row: index.Row, measured: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the last episodes parquet by one with this row too: from here on it exists."""
        schema = self._schema or self.layout.episodes_schema()
        slot, earlier = index.last_group(self.root, self._rows, ROWS_PER_FILE, self._group, schema)
        chunk, file = chunk_and_file(slot)
        row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        statistics = {
            f"stats/{feature}/{name}": np.asarray(value).tolist()
            for feature, values in measured.items()
            for name, value in values.items()
        }
        added = pa.Table.from_pylist([row | statistics], schema=schema)
        group = added if earlier is None else pa.concat_tables([earlier, added])
        write_atomically(
            self.root / episodes_path(chunk, file),
            partial(index.write_episodes, group),
            sync_name=True,
        )
        self._mark, self._group = journal.mark(self.root), group
        self._rows.append(row)
        self._index_of[row["worldeval.key"]] = row["episode_index"]
        with suppress(OSError):  # only other readers want the totals, and close() tries again
            self._write_info(sync=False)

    def _load(self) -> None:
        super()._load()
        self._tasks = index.read_tasks(self.root)
        self._group = None

    def _changed(self) -> bool:
        return not self._lock.held and super()._changed()  # while we write nobody moves anything

    def _begin_writing(self, *, appending: bool = True) -> None:
        """Become the one writer, and see what others wrote before that.

        Raises StoreError, with nothing changed, where a part of the store is a link or lies there
        without a name in the index. appending: then one unnamed episode is set aside: that which
        a killed writer was about.
        """
        if self._lock.held:
            return
        contents.refuse_links(self.root)
        self._lock.acquire()
        try:
            if index.episodes_stamp(self.root) != self._seen:
                self._reload()
            self._check_names(appending)
            sealed = index.has_checksums(self.root, self.layout)
            self._schema = self.layout.episodes_schema(checksums=sealed)
        except BaseException:
            self._lock.release()
            raise

    def _check_names(self, appending: bool) -> None:
        found = contents.recordings(self.root)
        unnamed = index.unnamed(found, self._rows, self.layout)
        slot = index.next_slot(self._rows, self.layout)
        if appending and unnamed and contents.left_by_a_killed_writer(unnamed, slot):
            contents.set_aside(self.root, unnamed)
        elif unnamed:
            raise StoreError(
                f"{self.root / unnamed[0]} "
                f"{'is' if len(unnamed) == 1 else f'and {len(unnamed) - 1} other files are'} named "
                f"by no episode of the index; nothing was changed, let `worldeval store repair "
                f"{self.root}` take in what is whole"
            )

    def _write_info(self, *, sync: bool = True) -> None:
        self._dirty = True
        self.info = self.layout.info(
            episodes=len(self),
            frames=self._rows[-1]["dataset_to_index"] if self._rows else 0,
            tasks=len(self._tasks),
            sizes_mb=self._sizes_mb,
            extra=self.extra,
        )
        index.write_json(self.root / INFO_PATH, self.info, sync=sync)


def _as_json(episode: Episode) -> str:
    """The extra facts as strict JSON: numpy numbers become numbers, NaN and infinity null."""
    taken = sorted(set(episode.extra) & set(_COLUMNS_OF_METADATA))
    if taken:
        raise DataError(
            f"episode {episode.key!r} has extra facts {taken}, which are columns of their own; "
            "rename them"
        )
    try:
        return json.dumps(
            {name: _plain(value) for name, value in episode.extra.items()}, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"episode {episode.key!r} has extra facts that are not JSON: {error}; give numbers, "
            "text, booleans or None"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
