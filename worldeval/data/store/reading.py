"""The reading half of an episode store: episodes, frames and a table of what there is.

Enters: a folder laid out as ``data/store/layout.py`` says. Leaves: ``worldeval.types.Episode`` and
parts of it, read when asked for. Nothing here writes, but for the end of a compaction that was
killed. While another process compacts the store, readers wait, read the index again and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from worldeval.data.atomic import WriterLock
from worldeval.data.parquet import read_row_group
from worldeval.data.readers.film_spans import contradictions
from worldeval.data.store import index, journal, rows, verification
from worldeval.data.store.checksums import check_unchanged
from worldeval.data.store.layout import INFO_PATH, StoreLayout
from worldeval.data.store.rows import Trajectory
from worldeval.data.store.verification import Damage
from worldeval.data.video import read_mp4
from worldeval.errors import DataError, StoreError
from worldeval.types import Episode

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")
_ATTEMPTS = 20
_MOST_CHECKED = 32 * 2**20
"""Bytes of a film whose checksum is compared when it is first read; of larger ones, the size."""


class StoredEpisodes:
    """The episodes of a store by index or key, as they were when it was opened."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._lock = WriterLock(self.root / ".writer.lock")
        self._unchanged: set[tuple[str, str | None]] = set()  # files whose checksum was compared
        self.info: dict[str, Any] = {}
        self._rows: list[index.Row] = []
        self._index_of: dict[str, int] = {}
        self._reload()

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

    def files(self) -> set[str]:
        """Names, relative to ``root``, of the data files and videos of all episodes."""
        return index.named(self._rows, self.layout)

    def metadata(self) -> pd.DataFrame:
        """One row an episode: episode_index, key, task, instruction, length, success, and extras.

        success is nullable (pandas "boolean"). An extra that an episode lacks is None.
        """
        import pandas as pd

        extras = [self._extra(row) for row in self._rows]
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

    def facts(self, i: int) -> dict[str, Any]:
        """Row ``i`` of ``metadata()``, without reading the others; of extras, those it has."""
        row = self._row(i)
        return {
            **self._extra(row),
            "episode_index": row["episode_index"],
            "key": row["worldeval.key"],
            "task": row["worldeval.task"],
            "instruction": row["tasks"][0],
            "length": row["length"],
            "success": row["worldeval.success"],
        }

    def index_of(self, key: str) -> int:
        """Index of the episode ``key``. Raises DataError if there is none."""
        if key not in self._index_of:
            raise DataError(
                f"{self.root} has no episode {key!r}; it has {len(self)} others, "
                "listed by store.metadata()"
            )
        return self._index_of[key]

    def by_key(self, key: str) -> Episode:
        """The episode ``key``. Raises DataError if there is none."""
        return self.episode(self.index_of(key))

    def episode(self, i: int) -> Episode:
        """Episode ``i`` with all frames. Raises StoreError naming the file that is damaged."""
        return replace(self.without_frames(i), frames=self.frames(i))

    def without_frames(self, i: int) -> Episode:
        """Episode ``i`` of which no frame is read: they are black, and only their shape counts."""
        row, path, layout = self._row(i), self.trajectory(i), self.layout
        shape = (row["length"], len(layout.views), *layout.image_size, 3)
        return Episode(
            key=row["worldeval.key"],
            task=row["worldeval.task"],
            instruction=row["tasks"][0],
            views=layout.views,
            frames=np.broadcast_to(np.zeros((), np.uint8), shape),
            poses=path.poses,
            actions=path.actions,
            success_at=path.success_at if row["worldeval.success_known"] else None,
            expert_actions=path.expert_actions,
            joints=path.joints,
            success=row["worldeval.success"],
            extra=self._extra(row),
        )

    def trajectory(self, i: int) -> Trajectory:
        """Poses and control steps of episode ``i`` without touching its frames."""
        layout, columns = self.layout, rows.trajectory_columns(self.layout)
        return self._read(i, lambda row: rows.trajectory(layout, self._table(i, row, columns)))

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
            raise DataError(f"episode {i} has frames 0..{length - 1}, asked for {wanted.tolist()}")
        if not layout.video_keys:
            keys = [layout.image_key(view) for view in views]
            return self._read(
                i, lambda row: rows.images(layout, self._table(i, row, keys), views, wanted)
            )
        decoded = [
            self._read(i, partial(self._film, layout.image_key(view), wanted)) for view in views
        ]
        return np.stack(decoded, axis=1)

    def own_films(self, i: int) -> tuple[Path, ...] | None:
        """The film of each view that holds episode ``i`` and nothing else; None where frames are
        lossless, or films were merged."""
        row, keys = self._row(i), self.layout.video_keys
        names = {key: index.video_of(row, key) for key in keys}
        shared = any(
            other is not row and index.video_of(other, key) == name
            for key, name in names.items()
            for other in self._rows[max(0, i - 1) : i + 2]
        )
        return None if shared or not keys else tuple(self.root / name for name in names.values())

    def verify(self) -> list[Damage]:
        """Read everything and name what is damaged; an empty list means that all is well."""
        return verification.verify(self.root, self._lock).damages

    def _reload(self) -> None:
        """Read the index; again where it was replaced meanwhile."""
        for _ in range(_ATTEMPTS):
            journal.settle(self.root, self._lock)
            self._mark, self._seen = journal.mark(self.root), index.episodes_stamp(self.root)
            try:
                self._load()
            except StoreError:
                changed = index.episodes_stamp(self.root) != self._seen
                if changed or journal.changed_since(self.root, self._mark):
                    continue
                raise
            if not journal.interrupted(self.root):
                return
        raise StoreError(f"{self.root} is being changed all the time; run this again later")

    def _load(self) -> None:
        # The counts are read before the rows, so that a writer can only make them too small.
        self.info = index.read_info(self.root)
        self.layout = StoreLayout.from_info(self.info, str(self.root / INFO_PATH))
        self._schemas: dict[tuple[str, ...], pa.Schema] = {}  # of the columns asked for
        counted = self.info.get("total_episodes", 0)
        self._rows = index.read_rows(self.root, self.layout, counted=counted)
        self._index_of = {row["worldeval.key"]: row["episode_index"] for row in self._rows}

    def _changed(self) -> bool:
        """Whether files may lie elsewhere than the rows say; asked after reading them."""
        return journal.changed_since(self.root, self._mark)

    def _read(self, i: int, read: Callable[[index.Row], _T]) -> _T:
        """What ``read`` makes of the row of episode ``i``; again if its files were moved meanwhile.

        Without looking, a reader could be given another episode of the same length: compaction
        uses the old names for new files.
        """
        for _ in range(_ATTEMPTS):
            row, damage = self._row(i), None
            try:
                found = read(row)
            except (DataError, OSError) as error:
                damage = error
            if not self._changed():
                if damage is None:
                    return found
                raise StoreError(
                    f"episode {i} of {self.root} is damaged: {damage}; `worldeval store verify "
                    f"{self.root}` names all that is damaged, restore it from a copy"
                ) from damage
            before = [(row["worldeval.key"], row["length"]) for row in self._rows]
            self._reload()
            after = [(row["worldeval.key"], row["length"]) for row in self._rows]
            if after[: len(before)] != before:
                raise StoreError(
                    f"{self.root} was replaced by other episodes while it was read; run this again"
                )
            if damage is None and self._row(i) == row:  # somebody appended, nothing moved
                return found
        raise StoreError(f"{self.root} is being changed all the time; run this again later")

    def _row(self, i: int) -> dict[str, Any]:
        if not 0 <= i < len(self._rows):
            raise DataError(f"{self.root} has no episode {i}; it has {len(self)}, from 0 on")
        return self._rows[i]

    def _table(self, i: int, row: index.Row, columns: Sequence[str]) -> pa.Table:
        """Columns of the rows of episode ``i``; each episode is one row group of its data file.

        Of the file only the size is compared: what is read has checksums of its own.
        """
        wanted = self._schemas.get(tuple(columns))
        if wanted is None:
            schema = self.layout.data_schema()
            wanted = pa.schema([schema.field(name) for name in columns])
            self._schemas[tuple(columns)] = wanted
        return read_row_group(
            self.root / index.data_of(row),
            i - index.first_in_file(self._rows, i),
            row["length"],
            wanted,
            row["worldeval.checksum/data"],
        )

    def _film(self, key: str, wanted: np.ndarray, row: index.Row) -> np.ndarray:
        """The frames ``wanted`` (N, H, W, 3) of one view."""
        name = index.video_of(row, key)
        noted = row[f"worldeval.checksum/videos/{key}"]
        if (name, noted) not in self._unchanged:
            check_unchanged(self.root / name, noted, most_bytes=_MOST_CHECKED)
            self._unchanged.add((name, noted))
        span = index.span_of(self.root, row, key)
        if wrong := contradictions({row["episode_index"]: span}, self.layout.fps):
            raise StoreError(f"view {key}: {', '.join(wrong.values())}; {index.remedy(self.root)}")
        count = int(wanted.max()) + 1 if wanted.size else 1
        size = self.layout.image_size
        return read_mp4(span.path, start_s=span.start_s, count=count, size=size)[wanted]

    def _extra(self, row: index.Row) -> dict[str, Any]:
        try:
            return index.extra_of(row)
        except ValueError as error:
            raise StoreError(
                f"{self.root}/meta/episodes has unreadable facts of episode "
                f"{row['episode_index']}: {error}; {index.remedy(self.root)}"
            ) from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, {len(self)} episodes)"
