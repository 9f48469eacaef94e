"""A run whose rollouts lie at a URL too, while it goes on; and runs at URLs for those who read.

Enters: the folder of a run and a URL. Leaves: all its files there, each rollout as one unit soon
after it is made (``data/mirror.py``). A store that cannot be reached holds nobody up: the files
here are the truth, and are sent when it is back.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldeval.data.mirror import Mirror
from worldeval.data.provenance import MANIFEST, read_manifest, same_run
from worldeval.data.remote import RemoteFolder, url_of
from worldeval.errors import MismatchError, StoreError, WorldEvalError
from worldeval.evaluation.execution.parts import held_keys
from worldeval.terminal import printable

EVERY_S = 5.0
LAST_S = 600.0
"""For which the end of a run waits until all is sent."""
IN_A_HURRY_S = 20.0
"""The same for one that was interrupted."""


@contextmanager
def mirrored(folder: Path, url: str | None) -> Iterator[None]:
    """Keep ``folder`` at ``url`` too, while in this block and once more at its end.

    A folder without a run is filled from there first, so that another machine goes on. Raises
    StoreError where nothing can be written there, MismatchError where another run lies there.
    """
    if url is None:
        yield
        return
    remote = RemoteFolder(url)
    mirror = Mirror(folder, remote)
    _check(mirror)
    sender = _Sender(mirror)
    sender.start()
    try:
        yield
    except BaseException:
        sender.end(IN_A_HURRY_S, quietly=True)
        raise
    sender.end(LAST_S, quietly=False)


@contextmanager
def at_hand(place: Path, *, films: bool = False, put_back: bool = False) -> Iterator[Path]:
    """The folder of a run; of one at a URL a copy, which is kept to be renewed the next time.

    films: rollouts are looked at too. put_back: what is written into the copy is sent there.
    """
    url = url_of(place)
    if url is None:
        yield place
        return
    remote = RemoteFolder(url)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    copy = base / "worldeval" / "runs" / hashlib.sha256(remote.url.encode()).hexdigest()[:12]
    mirror = Mirror(copy, remote)
    if not mirror.acquire():
        raise StoreError(f"{remote.url} is being read by another process of yours; wait for it")
    try:
        mirror.fetch(films=films)
        if not any(copy.glob("**/meta/info.json")) and not (copy / MANIFEST).exists():
            raise StoreError(
                f"{remote.url} holds no rollouts; give the URL that a run had as its --mirror"
            )
        try:
            yield copy
        except WorldEvalError as error:
            raise type(error)(str(error).replace(str(copy), remote.url)) from error
        if put_back:
            mirror.put()
            print(f"sent to {remote.url}")
    finally:
        mirror.release()


def _check(mirror: Mirror) -> None:
    """Whether what lies there is of this run; filled from there, if there is none here yet."""
    folder, url = mirror.folder, mirror.remote.url
    there = mirror.remote.files()
    if MANIFEST not in there:
        return
    if not (folder / MANIFEST).exists():
        if not mirror.acquire():
            return
        try:
            mirror.fetch(films=True)
        finally:
            mirror.release()
        _tell(f"{folder} goes on with what lies at {url}: {len(held_keys(folder))} rollouts")
        return
    with tempfile.TemporaryDirectory() as place:
        Mirror(Path(place), mirror.remote).fetch(films=False)
        rollouts = held_keys(Path(place))
        if rollouts:
            _refuse_another(mirror, Path(place))
        lost = rollouts - held_keys(folder)
    if lost:
        raise StoreError(
            f"{url} holds {len(lost)} rollouts that {folder} lacks; take them in first: "
            f"`worldeval gather {folder} --from {url}`"
        )


def _refuse_another(mirror: Mirror, copy: Path) -> None:
    """MismatchError if the run.json that was fetched into ``copy`` is of another run than ours."""
    ours, theirs = read_manifest(mirror.folder), read_manifest(copy)
    if not same_run(ours, theirs):
        raise MismatchError(
            f"{mirror.remote.url} holds another run, begun at {theirs.get('time')}; "
            f"{mirror.folder} was begun at {ours.get('time')}. Give each machine a --mirror of its "
            "own, or, to continue that run, an --out that does not exist yet"
        )


class _Sender:
    """Sends every few seconds, in a thread of its own.

    Where two runs were given one URL in the same moment, neither saw the other when it began. So
    both look at the run.json there once more before they send again, and the one whose it no longer
    is sends nothing from then on.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._behind = False
        self._looked = False

    def start(self) -> None:
        """Try the store at once, so that a wrong URL or wrong credentials end the run before it
        begins; then go on in the background."""
        if self._mirror.acquire():
            self._mirror.put()
            self._mirror.remote.put(".mirror", b"worldeval writes here\n")
        self._thread.start()

    def end(self, patience_s: float, *, quietly: bool) -> None:
        """Send what is left. StoreError if it cannot be done in time, MismatchError if another run
        lies there by now; only told if ``quietly``."""
        self._stop.set()
        self._thread.join()
        mirror, url = self._mirror, self._mirror.remote.url
        try:
            if not mirror.acquire():
                return  # another process of this run is at it
            until = time.monotonic() + patience_s
            while True:
                try:
                    sent = self._send()
                    while sent and mirror.put():
                        continue
                    break
                except MismatchError as error:
                    if not quietly:
                        raise
                    return _tell(str(error))
                except StoreError as error:
                    if time.monotonic() > until:
                        sentence = (
                            f"the rollouts are in {mirror.folder}, but not all of them at {url}: "
                            f"{error}; then run the same command again"
                        )
                        if not quietly:
                            raise StoreError(sentence) from error
                        return _tell(sentence)
                    self._tell_behind(error)
                    time.sleep(min(EVERY_S, max(0.0, until - time.monotonic())))
        finally:
            mirror.release()

    def _send(self) -> int:
        """How many files were sent. MismatchError, and none, if another run lies there."""
        if not self._looked:
            remote = self._mirror.remote
            with tempfile.TemporaryDirectory() as place:
                copy = Path(place)
                version = remote.files().get(MANIFEST)
                if version is not None and remote.get(MANIFEST, copy / MANIFEST, version):
                    _refuse_another(self._mirror, copy)
            self._looked = True
        return self._mirror.put()

    def _work(self) -> None:
        pause = EVERY_S
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                if self._mirror.acquire():
                    self._send()
                if self._behind:
                    self._behind = False
                    _tell(f"{self._mirror.remote.url} has all rollouts again")
            except MismatchError as error:
                return _tell(f"the run goes on, but nothing more is sent: {error}")
            except WorldEvalError as error:
                self._tell_behind(error)
            pause = max(EVERY_S, 5 * (time.monotonic() - began))

    def _tell_behind(self, error: Exception) -> None:
        if not self._behind:
            self._behind = True
            _tell(f"the run goes on, its mirror waits: {error}")


def _tell(sentence: str) -> None:
    print(f"worldeval: {printable(sentence)}", file=sys.stderr, flush=True)
