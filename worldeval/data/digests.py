"""Short names for exactly this content: of a file, a folder, a checkpoint, the episodes of a store.

Enters: paths. Leaves: twelve hexadecimal digits that change when the content does, and stay when it
is only copied, moved, or merged into fewer files. Checkpoints and stores say themselves what they
hold, so gigabytes of them are not read; what else there is, is read, once per process.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data import checkpoint
from worldeval.data.store import index, journal
from worldeval.data.store.layout import INFO_PATH
from worldeval.errors import CheckpointError, ConfigError, StoreError

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore

DIGITS = 12
READ_BYTES = 32 * 2**30
"""Of a folder with more than so much in it, ..."""
READ_FILES = 20_000
"""... or so many files, each is known by its size and time instead of by what is in it."""
LEFT_OUT = frozenset({"__pycache__", ".git", ".hg", ".svn", ".ipynb_checkpoints"})
"""Folders that decide nothing and change by themselves."""


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def of_json(value: Any) -> str:
    """Of a value that JSON knows; mappings in any order."""
    return of_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def of_arrays(*arrays: np.ndarray | None) -> str:
    """Of the values, types and shapes of some arrays, in their order."""
    taken = hashlib.sha256()
    for array in arrays:
        if array is None:
            taken.update(b"none")
        else:
            taken.update(f"{array.dtype} {array.shape}".encode())
            taken.update(np.ascontiguousarray(array).data)
    return taken.hexdigest()[:DIGITS]


def of_path(path: str | Path, *, but: Path | None = None) -> str:
    """Of whatever lies at ``path``: a store, a checkpoint, a folder, a file.

    but: a folder below it that does not count (the one that is being written). Raises ConfigError
    for what cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        return of_file(path)
    if (path / INFO_PATH).is_file() and (found := _store_at(path)) is not None:
        return found
    try:
        return of_checkpoint(path)
    except CheckpointError:  # a folder of another kind, or a damaged one: what is in it decides
        return of_folder(path, but=but)


def of_checkpoint(folder: str | Path) -> str:
    """Of a checkpoint of ours: its weights, as their recorded sha256, and its configuration.

    Whoever loads it compares the weights with that record. CheckpointError if it is none.
    """
    return checkpoint.digest(folder, settings=True)


def of_file(path: str | Path) -> str:
    """Of a regular file. ConfigError if there is none, or it cannot be read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            raise ConfigError(f"{path} is neither a file nor a folder, so it cannot be compared")
        return _read(os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} cannot be read (there is nothing there); check the spelling of the path"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error}), so it cannot be told whether it "
            "has changed; make it readable"
        ) from error


@functools.lru_cache(maxsize=65536)
def _read(path: str, inode: int, size: int, time_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def of_folder(folder: Path, *, but: Path | None = None) -> str:
    """Of all regular files below a folder, by their place in it; links are followed."""
    files = sorted(_files(folder, but))
    sizes = [os.stat(path) for _, path in files]
    whole = len(files) <= READ_FILES and sum(status.st_size for status in sizes) <= READ_BYTES
    return of_json(
        [
            [name, of_file(path) if whole else f"{status.st_size} {status.st_mtime_ns}"]
            for (name, path), status in zip(files, sizes, strict=True)
        ]
    )


def _files(folder: Path, but: Path | None) -> Iterator[tuple[str, str]]:
    out, seen = but and os.path.realpath(but), set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or real == out:  # a link back to where we come from
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [name for name in inner if name not in LEFT_OUT]
        for name in names:
            path = os.path.join(place, name)
            if os.path.isfile(path):
                yield os.path.relpath(path, folder).replace(os.sep, "/"), path


def _store_at(folder: Path) -> str | None:
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.errors import WorldEvalError

    try:
        return of_store(EpisodeStore.open(folder))
    except WorldEvalError:  # another program's dataset: a folder of files
        return None


def of_store(store: EpisodeStore) -> str:
    """Of all episodes of a store in their order; ``worldeval store compact`` does not change it."""
    return of_json(list(of_episodes(store).items()))


def of_episodes(store: EpisodeStore) -> dict[str, str]:
    """Key -> digest of each episode of a store.

    Of what its index keeps: instruction, task, outcome, facts (of a rollout with the seconds that
    each chunk took, which no second run repeats), and the statistics of every feature, frames
    included. No frame is read. Raises StoreError if the index cannot be read.
    """
    root, until = store.root, time.monotonic() + journal.MOST_SECONDS
    while True:
        mark, trouble, stamp = journal.mark(root), None, None
        try:
            stamp = index.episodes_stamp(root)
            found = _of_rows(root, tuple(stamp))
            if store.keys <= found.keys() and not journal.changed_since(root, mark):
                return {key: digest for key, digest in found.items() if key in store}
        except (OSError, LookupError, ValueError, pa.ArrowException) as error:
            trouble = error
        # Somebody may be compacting the store: files of its index go and come meanwhile.
        still = not journal.changed_since(root, mark) and stamp == index.episodes_stamp(root)
        if still or time.monotonic() > until:
            raise StoreError(
                f"the index of {root} cannot be read ({trouble or 'it lacks episodes'}); "
                f"`worldeval store verify {root}` names what is damaged"
            ) from trouble
        time.sleep(0.05)


@functools.lru_cache(maxsize=64)
def _of_rows(root: Path, stamp: tuple[tuple[str, int, int], ...]) -> dict[str, str]:
    """Of all episodes in the index at ``root``; ``stamp`` changes with it."""
    found: dict[str, str] = {}
    for path in index.episodes_files(root):
        with pq.ParquetFile(path) as file:
            names = [
                name
                for name in sorted(file.schema_arrow.names)
                if name.startswith("stats/") and name.rpartition("/")[2] in _MEASURES
            ]
            columns = ["worldeval.key", *_FACTS, *names]
            table = file.read(columns=columns, use_threads=False)
        facts = [table[name].to_pylist() for name in _FACTS]
        measured = [_numbers(table[name].combine_chunks(), len(table)) for name in names]
        for i, key in enumerate(table["worldeval.key"].to_pylist()):
            said = json.dumps([column[i] for column in facts]).encode()
            found[key] = of_bytes(said + b"".join(column[i] for column in measured))
    return found


_FACTS = ("length", "tasks", "worldeval.task", "worldeval.success", "worldeval.extra")
_MEASURES = ("mean", "std", "min", "max")


def _numbers(column: pa.Array, rows: int) -> list[bytes]:
    """A column of numbers, or of nested lists of them, row by row."""
    if column.null_count:  # never measured
        return [json.dumps(value).encode() for value in column.to_pylist()]
    while isinstance(column, pa.ListArray | pa.FixedSizeListArray | pa.LargeListArray):
        column = column.flatten()
    values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64).reshape(rows, -1)
    return [row.tobytes() for row in values]


def of_inputs(*places: str | Path | None) -> dict[str, dict[str, str]]:
    """What ``provenance`` keeps of the stores, checkpoints and files that decide a result.

    Places where nothing is are left out: whoever opens them says so better.
    """
    found = {}
    for place in dict.fromkeys(str(place) for place in places if place is not None):
        path = Path(place)
        if (path / INFO_PATH).is_file() and (episodes := _store_at(path)) is not None:
            found[f"store {place}"] = {"episodes": episodes}
        elif path.exists():
            found[place] = {"content": of_path(path)}
    return found
