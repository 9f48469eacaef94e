"""Films and previews of rollouts, made once and kept in the cache.

Enters: an episode of a store, named by identifiers (``Shown``). Leaves: paths of an H.264 film and
of a sheet of small pictures in the cache folder. What is kept is named after what was shown, so a
rollout that was made anew gets a new film, and two visitors who ask at once wait for one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from worldeval import EpisodeStore, WorldEvalError
from worldeval.reports.films import make_sheet, shipped_truth, write_film

from .context import Context
from .records import Rollout, identifier

MOST_KEPT = 4 * 2**30
"""Bytes of films and sheets in the cache; beyond it the oldest go."""
TRUE = "t"
"""Before a rollout's identifier: what truly happened instead."""
STORED = "s"
"""Before a dataset's identifier, "-" and the number of one of its episodes."""
_locks: defaultdict[Path, Lock] = defaultdict(Lock)


@dataclass(frozen=True)
class Shown:
    """One episode to look at. name: its identifier for routes."""

    name: str
    store: EpisodeStore
    episode: int
    rollout: Rollout | None
    """As the index knows it; None for shipped truth and for episodes of a dataset."""

    @cached_property
    def facts(self) -> dict[str, Any]:
        return self.store.facts(self.episode)

    @cached_property
    def version(self) -> str:
        """Changes when the rollout is made anew under the same name."""
        return identifier(self.store.root, json.dumps(self.facts, sort_keys=True, default=str))


def shown(context: Context, name: str) -> Shown:
    """What a route's identifier names. WorldEvalError if there is nothing of that name."""
    if name.startswith(TRUE):
        found = truth_of(context, context.rollout(name.removeprefix(TRUE)))
        if found is None:
            raise WorldEvalError("what truly happened from this start state is not known here")
        return found
    if name.startswith(STORED):
        return _stored(context, name)
    rollout = context.rollout(name)
    store = context.store(rollout)
    # By key: after a rollout was made anew its number may be another.
    return Shown(name, store, store.index_of(rollout.key), rollout)


def _stored(context: Context, name: str) -> Shown:
    """An episode of a dataset (``datasets.py``)."""
    dataset, _, number = name.removeprefix(STORED).partition("-")
    store = context.datasets.shown_store(dataset)
    known = number.isascii() and number.isdigit() and len(number) < 10
    if not known or int(number) >= len(store):
        raise WorldEvalError("there is no such episode in this dataset; choose one in the list")
    return Shown(name, store, int(number), None)


def truth_of(context: Context, rollout: Rollout) -> Shown | None:
    """The same policy from the same start state in a world that is no imagination."""
    other = context.index.in_truth(rollout)
    if other is not None:
        return shown(context, other.id)
    store = None if rollout.world != "imagination" else shipped_truth()
    if store is None or rollout.key not in store:
        return None
    return Shown(TRUE + rollout.id, store, store.index_of(rollout.key), None)


def film(context: Context, what: Shown) -> Path:
    """The film of all views."""

    def make(path: Path) -> None:
        write_film(path, what.store.frames(what.episode), what.store.layout.fps)

    return _kept(context.cache / "films" / f"{what.version}.mp4", make)


def sheet(context: Context, what: Shown, *, small: bool = False) -> tuple[Path, dict[str, Any]]:
    """A sheet of pictures and how it is laid out. small: few pictures, for a list."""
    path = context.cache / "sheets" / f"{what.version}-{'few' if small else 'all'}.jpg"

    def make(temporary: Path) -> None:
        length = int(what.facts["length"])
        times = sorted({round(i * (length - 1) / 11) for i in range(12)}) if small else None
        made = make_sheet(what.store.frames(what.episode, times=times))
        layout = {
            "columns": made.columns,
            "every": made.every,
            "count": made.count,
            "height": made.size[0],
            "width": made.size[1],
            "rows": -(-made.count // made.columns),
        }
        _written(path.with_suffix(".json"), json.dumps(layout).encode())
        temporary.write_bytes(made.jpeg)

    _kept(path, make)
    layout: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return path, layout


def _kept(path: Path, make: Callable[[Path], None]) -> Path:
    if path.is_file():
        return path
    with _locks[path]:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
            os.close(handle)
            try:
                make(Path(name))
                os.replace(name, path)
            finally:
                Path(name).unlink(missing_ok=True)
    _locks.pop(path, None)
    return path


def _written(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def tidy(cache: Path, most: int = MOST_KEPT) -> int:
    """Delete the oldest films and sheets beyond ``most`` bytes; how many went."""
    files = [file for kind in ("films/*.mp4", "sheets/*.jpg") for file in cache.glob(kind)]
    sizes = {file: file.stat() for file in files}
    total, gone = sum(stat.st_size for stat in sizes.values()), 0
    for file in sorted(files, key=lambda file: sizes[file].st_mtime):
        if total <= most:
            break
        total -= sizes[file].st_size
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)  # how a sheet is laid out
        gone += 1
    return gone
