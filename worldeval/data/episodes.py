"""Episodes on disk: the one form of every episode, recorded or imagined.

A store is a LeRobotDataset v3.0 (``data/lerobot.py``) with one data file and one mp4 a view per
episode until ``compact`` merges them. What enters and leaves is ``worldeval.types.Episode``.

An episode exists once its row stands in the episodes parquet, which is replaced atomically after
its files are on the disk. So a kill at any moment loses the episode under way at most; what it
leaves behind is referred to by no row and overwritten by the next episode. One writer at a time;
any number of readers, which see what was there when they opened the store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data import compaction, index, rows, verification
from worldeval.data.atomic import WriterLock, write_atomically
from worldeval.data.lerobot import (
    ACTION,
    DATA_FILES_SIZE_IN_MB,
    EXPERT,
    INFO_PATH,
    STATE,
    SUCCESS,
    VIDEO_FILES_SIZE_IN_MB,
    StoreLayout,
    chunk_and_file,
    data_path,
    episodes_path,
    video_path,
)
from worldeval.data.rows import Trajectory
from worldeval.data.verification import Damage
from worldeval.data.video import read_mp4, write_mp4
from worldeval.errors import DataError, MismatchError, StoreError
from worldeval.types import Episode

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Damage", "EpisodeStore", "Trajectory"]

ROWS_PER_FILE = 50
"""Episodes in one episodes parquet while writing: each append rewrites it, each open reads all."""

_BASE_COLUMNS = ("episode_index", "key", "task", "instruction", "length", "success")


class EpisodeStore:
    """A folder of episodes that can be appended to and read by index or key.

    Make one by ``create``, ``open`` or ``open_or_create``; use it as a context manager or call
    ``close``, which writes the statistics over all episodes that LeRobot's training wants.
    """

    def __init__(self, root: str | Path) -> None:
        """Use ``open``, ``create`` or ``open_or_create``."""
        self.root = Path(root)
        info = index.read_info(self.root)
        compaction.finish(self.root)
        self.layout = StoreLayout.from_info(info, str(self.root))
        self.extra: dict[str, Any] = dict(info["worldeval"].get("extra", {}))
        self._sizes_mb = (int(info.get("data_files_size_in_mb", DATA_FILES_SIZE_IN_MB)),
                          int(info.get("video_files_size_in_mb", VIDEO_FILES_SIZE_IN_MB)))
        self._lock = WriterLock(self.root / ".writer.lock")
        self._dirty = False
        self._reload()

    @classmethod
    def create(
        cls, root: str | Path, *, views: Sequence[str], image_size: tuple[int, int],
        pose_names: Sequence[str], action_names: Sequence[str], steps_per_frame: int, fps: float,
        robot_type: str, images: str = "video", expert_actions: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> EpisodeStore:
        """Make an empty store at ``root``, which must not hold one yet.

        The arguments are those of ``StoreLayout``; extra: JSON-able facts about the whole store.
        """
        layout = StoreLayout(
            views=tuple(views), image_size=image_size, pose_names=tuple(pose_names),
            action_names=tuple(action_names), steps_per_frame=steps_per_frame, fps=fps,
            robot_type=robot_type, images=images, expert_actions=expert_actions,
        )
        root = Path(root)
        if (root / INFO_PATH).exists():
            raise StoreError(f"{root} already holds a store; open it, or choose another folder")
        info = layout.info(episodes=0, frames=0, tasks=0, extra=extra or {},
                           sizes_mb=(DATA_FILES_SIZE_IN_MB, VIDEO_FILES_SIZE_IN_MB))
        try:
            index.write_tasks(root, [])
            index.write_json(root / INFO_PATH, info)
        except OSError as error:
            raise index.write_error(root, error) from error
        return cls(root)

    @classmethod
    def open(cls, root: str | Path) -> EpisodeStore:
        """Open the store at ``root``. Raises StoreError if there is none or it is damaged."""
        return cls(root)

    @classmethod
    def open_or_create(cls, root: str | Path, **arguments: Any) -> EpisodeStore:
        """Open the store at ``root``, or make it by ``create(root, **arguments)``.

        Raises MismatchError naming the field in which an existing store differs; ``extra`` may.
        """
        if not (Path(root) / INFO_PATH).exists():
            return cls.create(root, **arguments)
        store = cls(root)
        wanted = StoreLayout(**{k: v for k, v in arguments.items() if k != "extra"})
        difference = store.layout.difference(wanted)
        if difference:
            raise MismatchError(f"{store.root}: {difference}; choose another folder")
        return store

    def append(self, episode: Episode) -> int:
        """Add an episode atomically and return its index.

        Raises MismatchError or DataError if it does not fit into the store, and StoreError if the
        folder cannot be written (a full disk); the store is then as it was.
        """
        self.layout.check(episode)
        extra = _plain(episode)
        try:
            self._begin_writing()
            if episode.key in self._index_of:
                raise DataError(
                    f"{self.root} already has an episode {episode.key!r}; skip the keys in "
                    "store.keys to resume, or choose another key"
                )
            return self._append(episode, extra)
        except OSError as error:
            raise index.write_error(self.root, error) from error

    def _append(self, episode: Episode, extra: str) -> int:
        number, layout = len(self._rows), self.layout
        first_row = self._rows[-1]["dataset_to_index"] if self._rows else 0
        tasks = self._tasks
        if episode.instruction not in tasks:
            tasks = [*tasks, episode.instruction]
            index.write_tasks(self.root, tasks)
        table, measured = rows.encode(
            layout, episode, index=number, first_row=first_row,
            task_index=tasks.index(episode.instruction),
        )
        self._tasks = tasks
        chunk, file = chunk_and_file(index.next_slot(self._rows, layout))
        write_atomically(self.root / data_path(chunk, file),
                         lambda path: rows.write_parquet(table, path))
        row: dict[str, Any] = {
            "episode_index": number, "tasks": [episode.instruction], "length": episode.length,
            "data/chunk_index": chunk, "data/file_index": file,
            "dataset_from_index": first_row, "dataset_to_index": first_row + episode.length,
            "worldeval.key": episode.key, "worldeval.task": episode.task,
            "worldeval.success": None if episode.success is None else bool(episode.success),
            "worldeval.success_known": episode.success_at is not None, "worldeval.extra": extra,
        }
        for view, key in enumerate(layout.video_keys):
            frames = episode.frames[:, view]
            write_atomically(self.root / video_path(key, chunk, file),
                             lambda path, frames=frames: write_mp4(path, frames, layout.fps))
            row |= {f"videos/{key}/chunk_index": chunk, f"videos/{key}/file_index": file,
                    f"videos/{key}/from_timestamp": 0.0,
                    f"videos/{key}/to_timestamp": episode.length / layout.fps}
        self._commit(row, measured)
        return number

    def _commit(self, row: dict[str, Any], measured: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the last episodes parquet by one with this row too: from here on it exists."""
        slot, earlier = index.last_group(self.root, self._rows, ROWS_PER_FILE, self._group)
        chunk, file = chunk_and_file(slot)
        row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        statistics = {f"stats/{feature}/{name}": np.asarray(value).tolist()
                      for feature, values in measured.items() for name, value in values.items()}
        schema = self.layout.episodes_schema()
        added = pa.Table.from_pylist([row | statistics], schema=schema)
        group = added if earlier is None else pa.concat_tables([earlier, added])
        write_atomically(self.root / episodes_path(chunk, file),
                         lambda path: pq.write_table(group, path, use_dictionary=False))
        self._group = group
        self._rows.append(row)
        self._index_of[row["worldeval.key"]] = row["episode_index"]
        with suppress(OSError):  # only other readers want the totals, and close() tries again
            self._write_info()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._index_of

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(i) for i in range(len(self)))

    @property
    def keys(self) -> set[str]:
        """Keys of all episodes; those to skip when a run is resumed."""
        return set(self._index_of)

    def metadata(self) -> pd.DataFrame:
        """One row an episode: episode_index, key, task, instruction, length, success, and extras.

        success is nullable (pandas "boolean"). An extra that an episode lacks is None.
        """
        import pandas as pd

        extras = [json.loads(row["worldeval.extra"]) for row in self._rows]
        columns: dict[str, Any] = {
            "episode_index": [row["episode_index"] for row in self._rows],
            "key": [row["worldeval.key"] for row in self._rows],
            "task": [row["worldeval.task"] for row in self._rows],
            "instruction": [row["tasks"][0] for row in self._rows],
            "length": [row["length"] for row in self._rows],
            "success": pd.array([row["worldeval.success"] for row in self._rows], dtype="boolean"),
        }
        for name in dict.fromkeys(name for extra in extras for name in extra):
            values = [extra.get(name) for extra in extras]
            same = len({type(value) for value in values}) == 1
            columns[name] = values if same else pd.Series(values, dtype=object)
        return pd.DataFrame(columns)

    def index_of(self, key: str) -> int:
        """Index of the episode ``key``. Raises DataError if there is none."""
        if key not in self._index_of:
            raise DataError(f"{self.root} has no episode {key!r}; it has {len(self)} others, "
                            "listed by store.metadata()")
        return self._index_of[key]

    def by_key(self, key: str) -> Episode:
        """The episode ``key``. Raises DataError if there is none."""
        return self.episode(self.index_of(key))

    def episode(self, i: int) -> Episode:
        """Episode ``i`` with all frames. Raises StoreError naming the file that is damaged."""
        row, path = self._row(i), self.trajectory(i)
        return Episode(
            key=row["worldeval.key"], task=row["worldeval.task"], instruction=row["tasks"][0],
            views=self.layout.views, frames=self.frames(i), poses=path.poses,
            actions=path.actions,
            success_at=path.success_at if row["worldeval.success_known"] else None,
            expert_actions=path.expert_actions, success=row["worldeval.success"],
            extra=json.loads(row["worldeval.extra"]),
        )

    def trajectory(self, i: int) -> Trajectory:
        """Poses and control steps of episode ``i`` without touching its frames."""
        names = [STATE, ACTION, SUCCESS, *([EXPERT] if self.layout.expert_actions else [])]
        return rows.trajectory(self.layout, self._table(i, names))

    def frames(
        self, i: int, views: Sequence[str] | None = None, times: Iterable[int] | None = None
    ) -> np.ndarray:
        """Frames (T, V, H, W, 3) uint8 of episode ``i``.

        views: names, in the order wanted; None for all. times: frame indices; None for all.
        """
        row, layout = self._row(i), self.layout
        views = layout.views if views is None else tuple(views)
        unknown = set(views) - set(layout.views)
        if unknown:
            raise DataError(f"{self.root} has no view {sorted(unknown)}, only {layout.views}")
        length = row["length"]
        wanted = np.arange(length) if times is None else np.asarray(list(times), np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= length):
            raise DataError(f"episode {i} has frames 0 to {length - 1}, asked for {wanted.tolist()}")
        if not layout.video_keys:
            table = self._table(i, [layout.image_key(view) for view in views])
            return self._guard(i, lambda: rows.images(layout, table, views, wanted))
        frames = np.empty((len(wanted), len(views), *layout.image_size, 3), np.uint8)
        for place, view in enumerate(views):
            key = layout.image_key(view)
            path = self.root / index.video_of(row, key)
            start = row[f"videos/{key}/from_timestamp"]
            count = int(wanted.max()) + 1 if wanted.size else 1
            decoded = self._guard(i, lambda p=path, s=start, n=count: read_mp4(
                p, start_s=s, count=n))
            frames[:, place] = decoded[wanted]
        return frames

    def compact(self, *, data_mb: int | None = None, video_mb: int | None = None) -> None:
        """Merge the files of single episodes into files of at most ``data_mb`` and ``video_mb``.

        None takes the store's own sizes (100 and 200 MB). No frame is encoded again. An
        interruption leaves the old files or, once all new ones are written, leads to the new.
        """
        self._sizes_mb = (data_mb or self._sizes_mb[0], video_mb or self._sizes_mb[1])
        try:
            self._begin_writing()
            compaction.prepare(self.root, self.layout, self._rows, self._sizes_mb)
            compaction.finish(self.root)
        except OSError as error:
            raise index.write_error(self.root, error) from error
        self._reload()
        self._dirty = True
        self.close()

    def verify(self) -> list[Damage]:
        """Read everything and name what is damaged; an empty list means that all is well."""
        return verification.verify(self.root, self.layout, self._rows)

    def close(self) -> None:
        """Write totals and statistics if anything was appended, and let another writer in."""
        if self._dirty:
            try:
                index.write_stats(self.root, self.layout)
                self._write_info()
                index.remove_unreferenced(self.root, self.layout, self._rows)
            except OSError as error:
                raise index.write_error(self.root, error) from error
            self._dirty = False
        self._lock.release()

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reload(self) -> None:
        self._rows = index.read_rows(self.root, self.layout)
        self._tasks = index.read_tasks(self.root)
        self._index_of = {row["worldeval.key"]: row["episode_index"] for row in self._rows}
        self._group: pa.Table | None = None
        self._seen = index.episodes_stamp(self.root)

    def _begin_writing(self) -> None:
        """Become the one writer, and see what others wrote before that."""
        if self._lock.held:
            return
        self._lock.acquire()
        if index.episodes_stamp(self.root) != self._seen:
            self._reload()

    def _write_info(self) -> None:
        self._dirty = True
        index.write_json(self.root / INFO_PATH, self.layout.info(
            episodes=len(self._rows),
            frames=self._rows[-1]["dataset_to_index"] if self._rows else 0,
            tasks=len(self._tasks), sizes_mb=self._sizes_mb, extra=self.extra,
        ))

    def _row(self, i: int) -> dict[str, Any]:
        if not 0 <= i < len(self._rows):
            raise DataError(f"{self.root} has no episode {i}; it has {len(self)}, from 0 on")
        return self._rows[i]

    def _table(self, i: int, columns: list[str]) -> pa.Table:
        """Columns of the rows of episode ``i``; each episode is one row group of its data file."""
        row = self._row(i)
        path = self.root / index.data_of(row)
        group = i - index.first_in_file(self._rows, i)
        return self._guard(i, lambda: index.read_row_group(path, group, row["length"], columns))

    def _guard(self, i: int, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (DataError, OSError, pa.ArrowException) as error:
            raise StoreError(
                f"episode {i} of {self.root} is damaged: {error}; run verify() for a full list"
            ) from error

    def __repr__(self) -> str:
        return f"EpisodeStore({str(self.root)!r}, {len(self)} episodes)"


def _plain(episode: Episode) -> str:
    """The extra facts as strict JSON: numpy numbers become numbers, NaN and infinity null."""
    taken = sorted(set(episode.extra) & set(_BASE_COLUMNS))
    if taken:
        raise DataError(
            f"episode {episode.key!r} has extra facts {taken}, which are columns of their own; "
            "rename them"
        )
    try:
        return json.dumps({name: _plain_value(value) for name, value in episode.extra.items()},
                          allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"episode {episode.key!r} has extra facts that are not JSON: {error}; give numbers, "
            "text, booleans or None"
        ) from error


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
