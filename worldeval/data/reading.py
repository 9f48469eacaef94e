"""The reading half of an episode store: episodes, frames and a table of what there is.

Enters: a folder laid out as ``data/lerobot.py`` says. Leaves: ``worldeval.types.Episode`` and
parts of it, read when asked for. Nothing here writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from worldeval.data import index, rows, verification
from worldeval.data.lerobot import StoreLayout
from worldeval.data.rows import Trajectory
from worldeval.data.verification import Damage
from worldeval.data.video import read_mp4
from worldeval.errors import DataError, StoreError
from worldeval.types import Episode

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")


class StoredEpisodes:
    """The episodes of a store by index or key, as they were when it was opened."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.info = index.read_info(self.root)
        self.layout = StoreLayout.from_info(self.info, str(self.root))
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

    def facts(self, i: int) -> dict[str, Any]:
        """Row ``i`` of ``metadata()``, without reading the others; of extras, those it has."""
        row = self._row(i)
        return {
            **json.loads(row["worldeval.extra"]),
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
        row, path = self._row(i), self.trajectory(i)
        return Episode(
            key=row["worldeval.key"],
            task=row["worldeval.task"],
            instruction=row["tasks"][0],
            views=self.layout.views,
            frames=self.frames(i),
            poses=path.poses,
            actions=path.actions,
            success_at=path.success_at if row["worldeval.success_known"] else None,
            expert_actions=path.expert_actions,
            joints=path.joints,
            success=row["worldeval.success"],
            extra=json.loads(row["worldeval.extra"]),
        )

    def trajectory(self, i: int) -> Trajectory:
        """Poses and control steps of episode ``i`` without touching its frames."""
        return rows.trajectory(self.layout, self._table(i, rows.trajectory_columns(self.layout)))

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
            table = self._table(i, [layout.image_key(view) for view in views])
            return self._guard(i, partial(rows.images, layout, table, views, wanted))
        frames = np.empty((len(wanted), len(views), *layout.image_size, 3), np.uint8)
        for place, view in enumerate(views):
            key = layout.image_key(view)
            path = self.root / index.video_of(row, key)
            start = row[f"videos/{key}/from_timestamp"]
            count = int(wanted.max()) + 1 if wanted.size else 1
            decoded = self._guard(i, partial(read_mp4, path, start_s=start, count=count))
            frames[:, place] = decoded[wanted]
        return frames

    def verify(self) -> list[Damage]:
        """Read everything and name what is damaged; an empty list means that all is well."""
        return verification.verify(self.root, self.layout, self._rows)

    def _reload(self) -> None:
        self._rows = index.read_rows(self.root, self.layout)
        self._index_of = {row["worldeval.key"]: row["episode_index"] for row in self._rows}

    def _row(self, i: int) -> dict[str, Any]:
        if not 0 <= i < len(self._rows):
            raise DataError(f"{self.root} has no episode {i}; it has {len(self)}, from 0 on")
        return self._rows[i]

    def _table(self, i: int, columns: list[str]) -> pa.Table:
        """Columns of the rows of episode ``i``; each episode is one row group of its data file."""
        row = self._row(i)
        path = self.root / index.data_of(row)
        group = i - index.first_in_file(self._rows, i)
        return self._guard(i, partial(index.read_row_group, path, group, row["length"], columns))

    def _guard(self, i: int, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except (DataError, OSError) as error:
            raise StoreError(
                f"episode {i} of {self.root} is damaged: {error}; `worldeval store verify "
                f"{self.root}` names all that is damaged, restore it from a copy"
            ) from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, {len(self)} episodes)"
