"""Servers that answer one observation a call: a batch goes over a few connections at once.

Enters: requests as bytes, and how to make a connection. Leaves: the answers, in order. For servers
without a hello (OpenVLA's, GR00T's, vla-evaluation-harness's); those with one are in ``remote.py``.
A request whose connection is lost is asked again on a new one, ``LOSSES`` times; one that is not
answered in ``timeout_s`` is given up, and its connection with it. A server that stays away ends the
run as one with a hello does, and marks no rollout as error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from worldeval.errors import PolicyError
from worldeval.policies.servers.asking import Refusals, results
from worldeval.policies.servers.link import LOSSES, PAUSE_S, Lost, Request, ServerSettings, Session


class Connection(Protocol):
    """One connection, opened when it is made."""

    def exchange(self, request: Request) -> bytes:
        """The answer. Raises Lost where the connection ended before it, PolicyError where the
        server refuses or takes too long."""
        ...

    def close(self) -> None:
        """End it, and with it an exchange that another thread waits for."""
        ...


class Pool:
    """A server and a few connections to it; stands where ``remote.Server`` does."""

    def __init__(self, settings: ServerSettings, connect: Callable[[], Connection]) -> None:
        """connect: a connection; raises Lost where nobody answers."""
        self.settings = settings
        self._connect = connect
        self._links: list[Connection | None] = [None] * settings.connections
        self._locks = [threading.Lock() for _ in self._links]
        self._workers = ThreadPoolExecutor(settings.connections, thread_name_prefix="policy-server")
        self._stop = threading.Event()
        self._met, self._refusals = False, Refusals()

    def open(self) -> None:
        """Open the first connection, so that who is there is known."""
        with self._locks[0]:
            self._open(0)

    def ask(
        self, requests: Sequence[Request], sessions: Sequence[Session] | None = None
    ) -> list[bytes | str]:
        """The answers, in order; row i goes over connection i modulo all."""
        count = len(self._links)
        jobs = [
            self._workers.submit(self._turns, link, requests[link::count])
            for link in range(min(count, len(requests)))
        ]
        parts = results(jobs, self.close)
        return [parts[row % count][row // count] for row in range(len(requests))]

    def close(self) -> None:
        self._stop.set()
        self._workers.shutdown(wait=False, cancel_futures=True)
        for number, link in enumerate(self._links):
            if link is not None:
                link.close()
                self._links[number] = None

    def _turns(self, number: int, requests: Sequence[Request]) -> list[bytes]:
        with self._locks[number]:
            return [self._ask(number, request) for request in requests]

    def _ask(self, number: int, request: Request) -> bytes:
        lost = ""
        for _ in range(LOSSES):
            link = self._links[number] or self._open(number)
            try:
                return link.exchange(request)
            except Lost as error:
                lost = str(error)
                self._drop(number)
            except BaseException:  # a late answer must not meet the next request
                self._drop(number)
                raise
        raise PolicyError(
            f"{self.settings.url} hung up {LOSSES} times when asked for {request.of} ({lost}); "
            "look at the server's own output, this request may be what stops it"
        )

    def _open(self, number: int) -> Connection:
        patience_s = self.settings.reconnect_s if self._met else self.settings.wait_s
        if self._refusals.count:  # once it was given up, nobody waits for it again
            patience_s = 0
        until_s, pause_s = time.monotonic() + patience_s, PAUSE_S[0]
        while True:
            link = None
            try:
                link = self._links[number] = self._connect()
                self._met = True
                self._refusals.clear()
            except Lost as error:
                if time.monotonic() + pause_s > until_s:
                    raise self._refusals.add(self.settings.url, str(error), patience_s) from error
            if self._stop.is_set():  # looked at once the link is kept: close() may have missed it
                self._drop(number)
                raise PolicyError(f"the connections to {self.settings.url} were closed here")
            if link is not None:
                return link
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S[1])

    def _drop(self, number: int) -> None:
        link, self._links[number] = self._links[number], None
        if link is not None:
            link.close()
