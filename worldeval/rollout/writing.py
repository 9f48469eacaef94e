"""Rollouts that are over are written by a thread of its own, while others go on.

Enters: episodes, in the order in which the store is to have them. Leaves: the store with them. Most
of the time that writing takes is spent in H.264 and in waiting for the disk, where Python's other
threads run. What waits to be written is held in memory, so at most ``MOST_WAITING_BYTES`` of it.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import StoreError
from worldeval.rollout.pausing import append_when_possible
from worldeval.types import Episode

MOST_WAITING_BYTES = 256 * 2**20


class Writing:
    """Writes into one store. disk_wait_s: how long to wait for space on a full disk.

    Whoever makes one calls ``finish``, or ``stop`` where something went wrong; until then nobody
    else may write into the store or close it.
    """

    def __init__(self, store: EpisodeStore, disk_wait_s: float = 0.0) -> None:
        self._store, self._disk_wait_s = store, disk_wait_s
        self._changed = threading.Condition()
        self._waiting: deque[Episode] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, episode: Episode) -> None:
        """Have it written behind those before it. Raises what an earlier one could not be written
        for: neither that nor any later one is, until ``stop``."""
        with self._changed:
            self._waiting.append(episode)
            self._changed.notify_all()
            self._raise()
            if self._thread is None:
                self._ended = False
                self._thread = threading.Thread(target=self._work, name="writing", daemon=True)
                self._thread.start()
            while len(self._waiting) > 1 and self._bytes() > MOST_WAITING_BYTES:
                self._changed.wait()
                self._raise()

    def finish(self) -> None:
        """Wait until all are written. Raises as ``put``."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    def stop(self) -> tuple[Episode, ...]:
        """Write what waits as far as the disk takes it at once, and return what it refuses.

        It is not interrupted itself: a film that is under way is finished first.
        """
        self._disk_wait_s = 0.0
        while self._thread is not None:
            with suppress(BaseException):  # Ctrl-C again: it is what we are about
                self.finish()
        refused: list[Episode] = []
        self._error = None
        for episode in self._waiting:
            try:
                self._store.append(episode)
            except StoreError:
                refused.append(episode)
        self._waiting.clear()
        return tuple(refused)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _bytes(self) -> int:
        return sum(episode.frames.nbytes for episode in self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                episode = self._waiting[0]
            try:
                append_when_possible(self._store, episode, lambda: self._disk_wait_s)
            except BaseException as error:  # raised where the rollouts are made
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()
