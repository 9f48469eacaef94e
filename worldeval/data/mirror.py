"""A run's folder, kept at a URL too. The files here are the truth; there lies their copy.

Enters: a folder and a ``RemoteFolder``. Leaves: the files that changed, there or here. A rollout
appears there as one unit, as it does on the disk: its films and its table first, and last the index
that names it. To that end files are sent in the order in which a store writes them, and read here
and fetched from there in the opposite one: an index never names what does not lie there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from worldeval.data.atomic import TEMPORARY, WriterLock, write_whole
from worldeval.data.files import load_json
from worldeval.data.provenance import MANIFEST
from worldeval.data.remote import RemoteFolder, Version
from worldeval.data.store.contents import SET_ASIDE
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import StoreError

RECORD = ".mirrored.json"
LOCK = ".mirror.lock"
ATTEMPTS = 5
"""To fetch a folder that changes meanwhile."""

_STEPS = [
    re.compile(pattern)
    for pattern in (
        r"(.*/)?(data|videos)/.*|run\.json",
        r"(.*/)?meta/tasks\.parquet",
        r"(.*/)?meta/episodes/.*",
        r"(.*/)?meta/info\.json",
        r".*",
    )
]
_HIDDEN = re.compile(r"\.parts|\.progress-.*\.json")
"""Of the hidden names those that are news to others."""

Stamp = tuple[int, int]
"""Size and time of change of a file here."""


class Mirror:
    """Sends what changed in ``folder``, and fetches what changed there. One process at a time:
    ``acquire`` first."""

    def __init__(self, folder: Path, remote: RemoteFolder) -> None:
        self.folder, self.remote = folder, remote
        self._lock = WriterLock(folder / LOCK)
        self._sent: dict[str, Stamp] = {}
        self._there: dict[str, Version] = {}

    def acquire(self) -> bool:
        """Whether this process is the one that mirrors the folder, now if not before."""
        if self._lock.held:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except StoreError:
            return False
        self._remember()
        return True

    def release(self) -> None:
        self._lock.release()

    def put(self) -> int:
        """Send what changed since the last time, and delete there what is gone here; how many files
        that were. StoreError if it cannot be done; what was sent stays recorded."""
        # First of all what is gone: where a part is, the index read after it has its rollouts.
        gone = self._sent.keys() - self._files().keys()
        small: dict[str, tuple[Stamp, bytes]] = {}
        try:
            # Each is looked at when its turn comes: an index is never older than what counts it.
            for name in sorted(filter(_step, self._files()), key=_order, reverse=True):
                stamp = self._stamp(self.folder / name)
                if stamp != self._sent.get(name) and stamp is not None:
                    small[name] = stamp, (self.folder / name).read_bytes()
            films = [
                (name, stamp)
                for name, stamp in self._files().items()
                if self._sent.get(name) != stamp and not _step(name)
            ]
            for name, stamp in sorted(films):
                self.remote.put(name, self.folder / name)
                self._sent[name] = stamp
        except FileNotFoundError:
            return 0  # it was moved meanwhile: the next time sees where to
        finally:
            self._record()
        for name in sorted(small, key=_order):
            stamp, content = small[name]
            self.remote.put(name, content)
            self._sent[name] = stamp
        for name in sorted(gone, key=_order, reverse=True):
            self.remote.delete(name)
            del self._sent[name]
        self._record()
        return len(films) + len(small) + len(gone)

    def fetch(self, *, films: bool) -> None:
        """Make the folder what lies there. films: data and films too, not the tables alone. Files
        that are here alone stay."""
        for _ in range(ATTEMPTS):
            if self._fetched(lambda name: _step(name) > 0 or name == MANIFEST) and (
                not films or self._fetched(self._named())
            ):
                return self._record()
        raise StoreError(
            f"{self.remote.url} changes faster than it can be read; try again when nobody writes it"
        )

    def _fetched(self, wanted: Callable[[str], bool]) -> bool:
        """Whether all that is wanted lies here now, as it was listed."""
        there = self.remote.files()
        for name in sorted(filter(wanted, there), key=_order, reverse=True):
            version, path = there[name], self._inside(name)
            if self._there.get(name) == version and self._stamp(path) == self._sent.get(name):
                continue
            if not self.remote.get(name, path, version):
                return False
            self._there[name] = version
            self._sent[name] = self._stamp(path) or (0, 0)
        for name in [name for name in self._sent if name not in there]:
            self._inside(name).unlink(missing_ok=True)
            self._sent.pop(name)
            self._there.pop(name, None)
        return True

    def _named(self) -> Callable[[str], bool]:
        """What is wanted of the rollouts: the files that an index names. A machine that was lost
        may have left others there, for which no index came."""
        named, roots = set(), []
        for info in self.folder.glob("**/meta/info.json"):
            root = info.parent.parent
            inside = root.relative_to(self.folder).as_posix()
            roots.append("" if inside == "." else f"{inside}/")
            named |= {roots[-1] + name for name in EpisodeStore.open(root).files()}

        def wanted(name: str) -> bool:
            below = any(name.startswith((f"{r}data/", f"{r}videos/")) for r in roots)
            return name in named or (not below and _step(name) == 0)

        return wanted

    def _inside(self, name: str) -> Path:
        """A name there never leads out of the folder here."""
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or not name:
            raise StoreError(f"{self.remote.url} holds {name!r}, which is no file of a run")
        return self.folder / name

    def _files(self) -> dict[str, Stamp]:
        return {name: stamp for name, stamp in _walked(self.folder, "") if name != RECORD}

    def _stamp(self, path: Path) -> Stamp | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def _remember(self) -> None:
        """What was sent to this URL or fetched from it, as far as it still lies there."""
        self._sent, self._there = {}, {}
        try:
            kept = load_json(self.folder / RECORD)
            if kept["url"] != self.remote.url:
                return
            files = {
                str(name): ((int(size), int(time)), mark and Version(int(mark[0]), str(mark[1])))
                for name, (size, time, mark) in kept["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        there = self.remote.files()
        for name, (stamp, version) in files.items():
            if name in there and there[name].size == stamp[0]:
                self._sent[name] = stamp
                if version:
                    self._there[name] = version

    def _record(self) -> None:
        files = {name: (*stamp, self._there.get(name)) for name, stamp in self._sent.items()}
        try:
            write_whole(
                self.folder / RECORD, json.dumps({"url": self.remote.url, "files": files}) + "\n"
            )
        except StoreError:
            return  # a full disk: it is sent again then


def _walked(folder: Path, prefix: str) -> Iterator[tuple[str, Stamp]]:
    """Every file that others may read, with its stamp; no link, nothing that is under way."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return  # gone meanwhile
    for entry in entries:
        if entry.name.startswith(".") and not _HIDDEN.fullmatch(entry.name):
            continue
        if entry.name.endswith(TEMPORARY) or entry.name == SET_ASIDE or entry.is_symlink():
            continue
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walked(Path(entry.path), f"{name}/")
            continue
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        yield name, (found.st_size, found.st_mtime_ns)


def _step(name: str) -> int:
    return next(i for i, pattern in enumerate(_STEPS) if pattern.fullmatch(name))


def _order(name: str) -> tuple[int, str]:
    return _step(name), name
