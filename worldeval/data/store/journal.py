"""Many files replaced by others as if at once: what is decided is carried out, whoever is killed.

All new files are first written into a staging folder: the store is untouched. Then a journal names
each move, with the file's checksum, and each deletion; writing it is the moment of decision.
Carrying it out can be repeated from any point, which happens whenever a store with a journal is
opened. Readers that run meanwhile see from ``changed_since`` that what they read may have moved.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from worldeval.data.atomic import WriterLock, sync_folder
from worldeval.data.files import read_json
from worldeval.data.store import contents, index
from worldeval.data.store.checksums import check_unchanged, checksum
from worldeval.data.store.layout import INFO_PATH, STATS_PATH, TASKS_PATH, episodes_path
from worldeval.errors import DataError, StoreError

JOURNAL = "meta/compaction.json"
STAGING = ".compaction"
MOST_SECONDS = 120.0
"""For which an opening or reading waits until another process has carried out its journal."""

_FIRST = episodes_path(0, 0)
_FOLDERS = ("data/", "videos/", "meta/episodes/")
_SMALL = (INFO_PATH, TASKS_PATH, STATS_PATH)


def begin(root: Path) -> Path:
    """An empty staging folder."""
    staging = root / STAGING
    contents.refuse_links(root)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    return staging


def decide(root: Path, deletions: Collection[str]) -> None:
    """Write the journal: all staged files are to move into the store, ``deletions`` to go."""
    staging = root / STAGING
    moves = {
        path.relative_to(staging).as_posix(): checksum(path)
        for path in sorted(staging.rglob("*"))
        if path.is_file()
    }
    journal = {"moves": moves, "deletions": sorted(set(deletions) - set(moves))}
    index.write_json(root / JOURNAL, journal)


def interrupted(root: Path) -> bool:
    """Whether something was decided and not carried out to its end."""
    return os.path.lexists(f"{root}/{JOURNAL}")


def settle(root: Path, lock: WriterLock) -> None:
    """Carry out what a killed process decided; wait where a living one is about it.

    Raises StoreError if it takes longer than two minutes or cannot be done.
    """
    until = time.monotonic() + MOST_SECONDS
    while interrupted(root):
        if lock.held:
            return finish(root)
        try:
            lock.acquire()
        except StoreError:
            if time.monotonic() > until:
                raise StoreError(
                    f"{root} is being compacted or repaired by another process; run this again "
                    "when that one is done"
                ) from None
            time.sleep(0.02)
            continue
        try:
            finish(root)
        finally:
            lock.release()


def finish(root: Path) -> None:
    """Carry out the journal, if there is one; repeatable from any point. For the writer only."""
    if not interrupted(root):
        return
    with _errors_told(root):
        contents.refuse_links(root)
        plan = read_json(root / JOURNAL, "journal", error=StoreError)
        # Journals of earlier versions are lists, without checksums.
        moves = plan["moves"] if isinstance(plan["moves"], dict) else dict.fromkeys(plan["moves"])
        deletions = list(plan["deletions"])
        for name in [*moves, *deletions]:
            allowed = name.startswith(_FOLDERS) or (name in _SMALL and name in moves)
            if not allowed or ".." in name.split("/"):
                raise ValueError(f"it names {name!r}, which is no file of a store")
        if deletions and not any(name.startswith("meta/episodes/") for name in moves):
            raise ValueError("it deletes files and has no index that goes without them")
        for name, expected in moves.items():  # all are there before anything is replaced
            staged = root / STAGING / name
            check_unchanged(staged if staged.exists() else root / name, expected)
        for name in moves:
            source, target = root / STAGING / name, root / name
            if source.exists():  # else it was moved before the interruption
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
        for name in deletions:
            (root / name).unlink(missing_ok=True)
        for folder in {(root / name).parent for name in moves}:
            sync_folder(folder)
        (root / JOURNAL).unlink()
    shutil.rmtree(root / STAGING, ignore_errors=True)
    for folder in [
        *root.glob("data/chunk-*"),
        *root.glob("videos/*/chunk-*"),
        *root.glob("meta/episodes/chunk-*"),
    ]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


Mark = tuple[int, int, int] | None


def mark(root: Path) -> Mark:
    """Changes with each compaction and each repair: both replace the first file of the index."""
    try:
        found = os.stat(f"{root}/{_FIRST}")
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def changed_since(root: Path, seen: Mark) -> bool:
    """Whether files may have moved since ``seen``; asked after reading. Two stats, no more."""
    return interrupted(root) or mark(root) != seen


@contextmanager
def _errors_told(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, DataError) as error:
        raise StoreError(
            f"{root}: an interrupted compaction cannot be finished: {error}; no recording was "
            "deleted, make the folder writable and whole and open it again"
        ) from error
