"""One connection to a policy server, opened when it is needed and again when it is lost.

Enters: a ``Request``. Leaves: its answer, or a PolicyError that says what the server did instead.
What is done in each case stands in ``remote.py``, which owns a few of these.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.policies.servers import msgpack_numpy
from worldeval.policies.servers.asking import no_tls

if TYPE_CHECKING:
    from worldeval.policies.servers.remote import Server

log = logging.getLogger(__name__)

LOSSES = 3
"""A request whose connection is lost this many times is what kills the server."""
TCP_TIMEOUT_S = 10.0
PAUSE_S = (0.05, 2.0)
"""The first and the longest pause between two attempts to connect."""
TOO_BIG = 1009
"""Code with which our side closes a connection whose message is larger than allowed."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where the server is and how long it may take.

    connections: how many requests may be on their way at once. timeout_s: for one answer; the
    first one of a JAX server compiles for a minute. wait_s: for a server that is still starting.
    reconnect_s: for one that was there and went away.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    connections: int = 4
    timeout_s: float = 120.0
    wait_s: float = 0.0
    reconnect_s: float = 120.0

    def __post_init__(self) -> None:
        if type(self.connections) is not int or not 1 <= self.connections <= 64:
            raise ConfigError(f"connections is {self.connections!r}, expected 1 to 64")
        for name in ("timeout_s", "wait_s", "reconnect_s"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < float("inf") or (name == "timeout_s" and not value):
                raise ConfigError(f"{name} is {value!r}, expected a number of seconds")


def key_of(api_key_env: str | None, uri: str) -> str | None:
    """The key in a variable of the environment; a URI is kept in records, so it has no place."""
    if api_key_env is None:
        return None
    key = os.environ.get(api_key_env)
    if not key:
        raise ConfigError(
            f"policy {uri!r}: api_key_env is {api_key_env!r}, but the environment has no such "
            "variable; export it"
        )
    return key


@dataclass(frozen=True, kw_only=True)
class Request:
    """One message, who it is for (words for an error), whether text is a good answer, and whether
    there is an answer at all."""

    data: bytes
    of: str
    text_is_fine: bool = False
    answered: bool = True


@dataclass(kw_only=True)
class Session:
    """Requests that the server remembers, so that they can be told again to one that forgot.

    past: everything that was asked, beginning with the reset. epoch: of its connection when the
    server last knew them all; they are told again, answers unread, when that has changed.
    """

    past: list[Request]
    link: int
    epoch: int = -1


class Lost(Exception):
    """The connection ended before the answer."""


class Link:
    """One connection, opened when needed and again when lost."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self._settings = server.settings
        self._number = number
        self._connection: ClientConnection | None = None
        self._tcp: socket.socket | None = None
        self._opened = ExitStack()
        self._lock = threading.Lock()
        self.epoch = 0
        """How many times it was opened."""

    def ask(self, request: Request, session: Session | None = None) -> bytes | str:
        with self._lock:
            lost = ""
            for _ in range(LOSSES):
                try:
                    if self._connection is None:
                        # Once it was given up, nobody waits for it again, until it is back.
                        patience_s = (
                            0 if self._server.refusals.count else self._settings.reconnect_s
                        )
                        self.open(patience_s)
                    if session is None:
                        return self._exchange(request)
                    if session.epoch != self.epoch:
                        for past in session.past:
                            self._exchange(past)
                        session.epoch = self.epoch
                    answer = self._exchange(request)
                    session.past.append(request)
                    return answer
                except Lost as error:
                    lost = str(error)
                    log.info("%s: lost while asked for %s (%s)", self.url, request.of, lost)
            raise PolicyError(
                f"{self.url} hung up {LOSSES} times when asked for {request.of} ({lost}); look at "
                "the server's own output, this request may be what stops it"
            )

    @property
    def url(self) -> str:
        return self._settings.url

    def open(self, patience_s: float) -> None:
        """Connect, trying again for ``patience_s``."""
        until_s = time.monotonic() + patience_s
        pause_s = PAUSE_S[0]
        while True:
            try:
                self._open_once()
                return
            except (OSError, InvalidHandshake, ConnectionClosed, EOFError) as error:
                if refused := no_tls(self.url, error):
                    raise refused from error
                if isinstance(error, InvalidStatus) and error.response.status_code < 500:
                    raise self._turned_away(error.response.status_code) from error
                if self._server.stop.is_set():
                    raise Lost("the connection was closed on this side") from error
                if time.monotonic() + pause_s > until_s:
                    raise self._server.refusals.add(self.url, _why(error), patience_s) from error
            except MismatchError:
                raise
            except ValueError as error:  # a redirect, which a given socket cannot follow
                raise PolicyError(
                    f"{self.url} cannot be connected to ({error}); give the server's own address"
                ) from error
            if self._number == 0 and pause_s == PAUSE_S[0]:
                log.warning(
                    "waiting for the policy server at %s, at most %g s", self.url, patience_s
                )
            self._server.stop.wait(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S[1])

    def _open_once(self) -> None:
        parts = urlsplit(self.url)
        assert parts.hostname is not None  # websocket_url made it
        # A server that is thinking accepts connections but does not speak: patience for the
        # handshake, none for the network.
        tcp = socket.create_connection((parts.hostname, parts.port or 8000), TCP_TIMEOUT_S)
        tcp.settimeout(None)
        self._tcp = tcp
        opened = ExitStack()
        settings = self._settings
        connection = opened.enter_context(
            connect(
                self.url,
                sock=tcp,
                compression=None,
                max_size=msgpack_numpy.MAX_BYTES,
                additional_headers=(
                    {"Authorization": f"Api-Key {settings.api_key}"} if settings.api_key else None
                ),
                open_timeout=settings.timeout_s,
                ping_interval=None,
                close_timeout=1.0,
            )
        )
        try:
            self._server.meet(connection)
        except BaseException:
            _hang_up(connection, opened)
            raise
        self._connection, self._opened = connection, opened
        self.epoch += 1
        if self._server.stop.is_set():
            self.drop()

    def _exchange(self, request: Request) -> bytes | str:
        """Send and receive once, in ``timeout_s`` together."""
        connection, late = self._connection, threading.Event()
        if connection is None or self._server.stop.is_set():
            raise Lost("the connection was closed on this side")

        def give_up() -> None:
            late.set()
            shut(connection.socket)

        # Only a closed socket wakes a thread whose message the server does not read.
        alarm = threading.Timer(self._settings.timeout_s, give_up)
        alarm.daemon = True
        alarm.start()
        try:
            connection.send(request.data)
            answer = connection.recv() if request.answered else b""
        except (ConnectionClosed, OSError) as error:
            self.drop()
            if late.is_set():
                raise PolicyError(
                    f"{self.url} did not answer for {request.of} within "
                    f"{self._settings.timeout_s:g} s; look whether it hangs, or give more timeout_s"
                ) from error
            if isinstance(error, ConnectionClosed) and error.sent and error.sent.code == TOO_BIG:
                raise PolicyError(
                    f"{self.url} answered for {request.of} with a message of more than "
                    f"{msgpack_numpy.MAX_BYTES} bytes, expected a chunk of actions"
                ) from error
            raise Lost(_why(error)) from error
        except BaseException:  # Ctrl-C: an answer still to come must not meet the next request
            self.drop()
            raise
        finally:
            alarm.cancel()
        try:
            if request.answered:
                self._server.inspect(request, answer)
        except PolicyError:  # what else the server says must not meet the next request
            self.drop()
            raise
        return answer

    def _turned_away(self, status: int) -> PolicyError:
        remedy = (
            "give api_key_env=VARIABLE with its key" if status in (401, 403) else "correct its path"
        )
        return PolicyError(f"{self.url} refused the connection with HTTP {status}; {remedy}")

    def drop(self) -> None:
        """End the connection, or the attempt at one, from any thread."""
        connection, self._connection = self._connection, None
        if self._tcp is not None:
            shut(self._tcp)
        if connection is not None:
            _hang_up(connection, self._opened)


def shut(open_: socket.socket) -> None:
    """End what any thread sends or waits for on a socket; closing it alone wakes nobody."""
    try:
        open_.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was faster
        return


def _hang_up(connection: ClientConnection, opened: ExitStack) -> None:
    shut(connection.socket)
    opened.close()


def is_traceback(text: str) -> bool:
    return "Traceback (most recent call last)" in text


def from_text(url: str, of: str, text: str) -> PolicyError:
    """What to raise where a server answers with text."""
    if not is_traceback(text):
        return PolicyError(
            f"{url} answered for {of} with the text {short(text)!r}, expected actions in msgpack"
        )
    last = [line for line in text.splitlines() if line.strip()][-1].strip()
    error = PolicyError(
        f"{url} failed on {of}: {short(last)} (the last line of the server's traceback); mend the "
        "server, or send it the observation that its policy was trained for"
    )
    error.add_note(text)
    return error


def short(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
