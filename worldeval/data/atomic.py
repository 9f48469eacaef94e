"""Writing so that a kill, a full disk or a second writer never leaves half of something.

A file is written beside its place, synced and renamed: a reader sees the old one or the new one.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from worldeval.errors import StoreError

TEMPORARY = ".tmp"
"""Suffix of files under way; no reader of parquet or mp4 looks at it."""


def write_atomically(
    path: Path, write: Callable[[Path], None], *, sync: bool = True, sync_name: bool = False
) -> None:
    """Let ``write`` fill a temporary file, then sync it and move it to ``path``.

    On any error the temporary file is removed, ``path`` is as before, and the error is passed on.
    A sync outlasts a power cut and can take a tenth of a second on a busy disk, so: ``sync`` is
    for what cannot be made again, ``sync_name`` for what others build upon, such as a commit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    if temporary.is_symlink():  # or the one who put it there decides what is overwritten
        temporary.unlink()
    try:
        write(temporary)
        if sync:
            sync_file(temporary)
        os.replace(temporary, path)
        if sync_name:
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Have the operating system put the file's content on the disk (a full disk shows here)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the operating system put the folder's names on the disk."""
    if sys.platform != "win32":  # Windows cannot open folders, and syncs names itself
        sync_file(folder)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``path`` as a .npy file, wholly or not at all; nothing in it is pickled."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, numpy would add .npy to it
            np.save(file, array, allow_pickle=False)

    write_atomically(path, write)


def write_whole(target: Path, text: str) -> None:
    """Write a text file wholly or not at all, so that a reader sees the old or the new one."""
    # A lone surrogate (an undecodable file name as a policy's name) becomes "?".
    content = text.encode("utf-8", "replace")

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    try:
        write_atomically(target, write, sync=False)
    except OSError as error:
        raise StoreError(
            f"cannot write {target}: {error.strerror or error}; choose a writable folder with "
            f"free space"
        ) from error


class WriterLock:
    """One writer a store: an advisory lock that the operating system drops when a writer dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._release: weakref.finalize | None = None

    @property
    def held(self) -> bool:
        return self._release is not None and self._release.alive

    def acquire(self, wait_s: float = 0.0) -> None:
        """Take the lock. Raises StoreError if another writer has it, and goes on having it for
        ``wait_s`` seconds."""
        until = time.monotonic() + wait_s
        while not self.held:
            try:
                self._take()
            except StoreError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.01)

    def _take(self) -> None:
        # Never through a link, and a named pipe in its place is not waited for.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            descriptor = os.open(self._path, flags, 0o644)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR):
                raise
            raise StoreError(f"{self._path} is no file of ours; delete it and try again") from error
        try:
            _lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise StoreError(
                f"{self._path.parent} is being written by another process or another store "
                "object; close() that one first, or write to another folder"
            ) from None
        self._release = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        if self._release is not None:
            self._release()


@contextmanager
def alone(path: Path, wait_s: float = 10.0) -> Iterator[None]:
    """Wait until nobody else is in such a block for ``path``, and keep others waiting within it.

    Between processes and within one. StoreError after ``wait_s`` seconds.
    """
    lock = WriterLock(path.with_name(f".{path.name}.lock"))
    lock.acquire(wait_s)
    try:
        yield
    finally:
        lock.release()


def _lock(descriptor: int) -> None:
    """Lock an open file until it is closed; BlockingIOError if another process or object has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # a file system without locks (some network mounts): one writer is up to the user
