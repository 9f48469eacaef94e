"""A policy server at the end of a websocket: connections, patience, and who is to blame.

Enters: requests as bytes. Leaves: the answers in the same order, or a PolicyError in one sentence.
The server speaks as openpi's and RoboArena's do: on connecting it sends its metadata, then answers
each binary message with one, and a **text** frame is its traceback, after which it hangs up.

What may happen in between is settled here, once:

==========================  =====================================================================
the connection is lost      connect again with growing pauses for ``reconnect_s``, ask the same
                            request again; a request that is lost 3 times is given up
no answer in ``timeout_s``  PolicyError, and the connection is thrown away: a late answer must not
                            be taken for the next one
a traceback                 PolicyError with its last line (all of it is the error's note)
other metadata on return    PolicyGoneError, which ends the run: it may be another policy
the server stays away       PolicyAwayError, with which the run ends: no rollout is marked as error.
                            At once for later requests, and PolicyGoneError after 8 in a row
==========================  =====================================================================

Requests of many rollouts go over a few connections at once. An openpi server answers one request
after the other, but reads the next while it thinks; keepalive pings are off because it cannot
answer them while it does. No request depends on another one, except in a ``Session``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection

from worldeval.errors import ConfigError, PolicyError, PolicyGoneError
from worldeval.policies.servers import msgpack_numpy
from worldeval.policies.servers.asking import Refusals, results
from worldeval.policies.servers.link import (
    Link,
    Request,
    ServerSettings,
    Session,
    from_text,
    is_traceback,
    short,
)


def websocket_url(rest: str, uri: str, *, tls: bool = False) -> str:
    """``//host:port/path`` of a policy's URI as a websocket URL."""
    try:
        parts = urlsplit(rest)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(
            f"policy {uri!r}: {error}; write {uri.split(':')[0]}://HOST:PORT"
        ) from error
    if not rest.startswith("//") or not host:
        raise ConfigError(f"policy {uri!r} names no server; write {uri.split(':')[0]}://HOST:PORT")
    if parts.username or parts.password:
        raise ConfigError(f"policy {uri!r}: take the password out and give api_key_env=VARIABLE")
    host = f"[{host}]" if ":" in host else host
    return f"{'wss' if tls else 'ws'}://{host}:{port or 8000}{parts.path}"


class Server:
    """A policy server and a few connections to it. ``close`` ends them from any thread."""

    def __init__(self, settings: ServerSettings, *, links: int | None = None) -> None:
        """links: connections that there may be; as many as may be used at once if None."""
        self.settings = settings
        self.metadata: dict[str, Any] = {}
        self.stop = threading.Event()
        self.refusals = Refusals()
        self._first: bytes | None = None
        self._lock = threading.Lock()
        self._links = [Link(self, i) for i in range(links or settings.connections)]
        self._workers = ThreadPoolExecutor(settings.connections, thread_name_prefix="policy-server")

    def connect(self) -> dict[str, Any]:
        """Open the first connection; the server's metadata."""
        self._links[0].open(self.settings.wait_s)
        return self.metadata

    def ask(
        self, requests: Sequence[Request], sessions: Sequence[Session] | None = None
    ) -> list[bytes | str]:
        """The answers, in order. Row i goes over connection i, or its session's, modulo all."""
        count = len(self._links) if sessions else self.settings.connections
        turns: dict[int, list[int]] = {}
        for row in range(len(requests)):
            turns.setdefault((sessions[row].link if sessions else row) % count, []).append(row)
        answers: list[bytes | str] = [b""] * len(requests)

        def take_turns(link: int) -> None:
            for row in turns[link]:
                session = sessions[row] if sessions else None
                answers[row] = self._links[link].ask(requests[row], session)

        if len(turns) == 1:
            try:
                take_turns(next(iter(turns)))
            except KeyboardInterrupt:
                self.close()
                raise
            return answers
        jobs = [self._workers.submit(take_turns, link) for link in sorted(turns)]
        results(jobs, self.close)
        return answers

    def close(self) -> None:
        self.stop.set()
        for link in self._links:
            link.drop()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def meet(self, connection: ClientConnection) -> None:
        """What is said on a new connection before its first request."""
        self.greet(connection.recv(timeout=self.settings.timeout_s))

    def inspect(self, request: Request, answer: bytes | str) -> None:
        """PolicyError where an answer is none; its connection is given up then."""
        if isinstance(answer, str) and (is_traceback(answer) or not request.text_is_fine):
            raise from_text(self.settings.url, request.of, answer)

    def greet(self, first: bytes | str) -> None:
        """Read the first message of a connection; every connection must begin with the same."""
        url = self.settings.url
        if isinstance(first, str):
            raise PolicyError(
                f"{url} began with the text {short(first)!r}, expected metadata in msgpack; is "
                "another kind of server at this address?"
            )
        with self._lock:
            if self._first is None:
                metadata = msgpack_numpy.unpack(first)
                if not isinstance(metadata, dict):
                    raise PolicyError(
                        f"{url} began with {type(metadata).__name__}, expected metadata as a map; "
                        "is another kind of server at this address?"
                    )
                self.metadata, self._first = metadata, first
            elif first != self._first:
                raise PolicyGoneError(
                    f"{url} came back as another server: its metadata was {self.metadata}, now it "
                    f"is {msgpack_numpy.unpack(first)}; serve the same policy, or give it another "
                    "name"
                )
        self.refusals.clear()
