"""An episode of one store as another one takes it over: its films copied, not coded anew.

Enters: a store and the number of an episode. Leaves: the ``Episode`` and its ``CodedViews`` for
``EpisodeStore.append``, equal in every column and every byte of film.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from worldeval.data.store import index
from worldeval.data.store.coding import CodedViews
from worldeval.data.store.episodes import EpisodeStore
from worldeval.types import Episode


class Source:
    """A store whose episodes go to another one. Nobody may write to it meanwhile."""

    def __init__(self, root: str | Path) -> None:
        self.store = EpisodeStore.open(root)
        self._table: pa.Table | None = None

    def episode(self, number: int, beside: Path) -> tuple[Episode, CodedViews | None]:
        """Episode ``number``, and copies of its films in the folder ``beside``, which is on the
        disk of the store that takes them; None where frames are lossless or films were merged.

        With films, the frames of the episode are black: only their shape counts then.
        """
        store = self.store
        films = store.own_films(number)
        if films is None:
            return store.episode(number), None
        copies = tuple(beside / f".carried-over-{view}.mp4" for view in range(len(films)))
        for film, copy in zip(films, copies, strict=True):
            shutil.copyfile(film, copy)
        coded = CodedViews(files=copies, statistics=self._statistics(number))
        return store.without_frames(number), coded

    def _statistics(self, number: int) -> tuple[dict[str, np.ndarray], ...]:
        if self._table is None:
            self._table = index.read_whole(self.store.root, self.store.layout)
        row = self._table.slice(number, 1)
        found = []
        for key in self.store.layout.video_keys:
            prefix = f"stats/{key}/"
            names = [name for name in row.schema.names if name.startswith(prefix)]
            found.append({n.removeprefix(prefix): np.asarray(row[n][0].as_py()) for n in names})
        return tuple(found)
