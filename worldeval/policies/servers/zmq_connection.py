"""One connection to a ZeroMQ server that answers each request (REQ and REP).

Enters: a request as bytes. Leaves: its answer. ZeroMQ itself never says that nobody is there: it
waits and connects again for ever. Here its events are watched, so that a server that is away, one
that dies while it thinks, and one that hangs are three different things. Needs pyzmq.
"""

from __future__ import annotations

import socket
import threading
import time
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from worldeval.errors import MissingDependencyError, PolicyError
from worldeval.policies.servers.link import TCP_TIMEOUT_S, Lost, Request, ServerSettings
from worldeval.policies.servers.msgpack_numpy import MAX_BYTES

LOOK_MS = 50
"""So often a waiting connection looks whether it was closed."""


class ZmqConnection:
    """See ``pool.Connection``. Only the thread that exchanges touches the socket while it does."""

    def __init__(self, settings: ServerSettings) -> None:
        self._zmq = zmq = _zmq()
        self._settings = settings
        self._lock, self._closed = threading.Lock(), threading.Event()
        address = _address(settings.url)
        self._context: Any = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        try:
            for option, value in (
                (zmq.LINGER, 0),
                (zmq.IPV6, 1),
                (zmq.RECONNECT_IVL, -1),  # Pool connects again, and knows why
                (zmq.HANDSHAKE_IVL, round(TCP_TIMEOUT_S * 1000)),
                (zmq.MAXMSGSIZE, MAX_BYTES),
            ):
                self._socket.setsockopt(option, value)
            self._events = self._socket.get_monitor_socket()
            self._socket.connect(address)
            self._meet()
        except BaseException:
            self._dispose()
            raise

    def exchange(self, request: Request) -> bytes:
        try:
            with self._lock:
                return self._ask(request)
        finally:
            if self._closed.is_set():
                self._dispose()

    def close(self) -> None:
        self._closed.set()
        if self._lock.acquire(blocking=False):  # else whoever exchanges disposes of it
            try:
                self._dispose()
            finally:
                self._lock.release()

    def _ask(self, request: Request) -> bytes:
        url, timeout_s = self._settings.url, self._settings.timeout_s
        until_s = time.monotonic() + timeout_s
        if self._context is None:
            raise Lost("the connection was closed on this side")
        try:
            self._socket.send(request.data, self._zmq.NOBLOCK)
        except self._zmq.ZMQError as error:
            raise Lost(f"{type(error).__name__}: {error}") from error
        while time.monotonic() < until_s:
            if self._socket.poll(min(LOOK_MS, 1 + round(timeout_s * 1000))):
                answer: bytes = self._socket.recv()
                return answer
            if self._closed.is_set():
                raise PolicyError(f"the connections to {url} were closed here")
            gone = self._zmq.EVENT_DISCONNECTED in self._seen()
            if gone and not self._socket.poll(0):  # it may have answered before it went
                raise Lost("the server hung up")
        raise PolicyError(
            f"{url} did not answer for {request.of} within {timeout_s:g} s; look whether it hangs, "
            "or give more timeout_s"
        )

    def _meet(self) -> None:
        """Wait until both sides have said that they speak ZeroMQ."""
        zmq, until_s = self._zmq, time.monotonic() + TCP_TIMEOUT_S + 1
        failed = {
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
            zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        }
        while time.monotonic() < until_s:
            seen = self._seen(LOOK_MS)
            if zmq.EVENT_HANDSHAKE_SUCCEEDED in seen:
                return
            if seen & failed:
                break
            if seen & {zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED}:
                raise Lost("the server hung up")
        raise PolicyError(
            f"{self._settings.url} does not speak ZeroMQ; is another kind of server at this "
            "address?"
        )

    def _seen(self, wait_ms: int = 0) -> set[int]:
        """What has happened to the connection since this was last asked."""
        from zmq.utils.monitor import parse_monitor_message

        found: set[int] = set()
        while self._events.poll(0 if found else wait_ms):
            found.add(int(parse_monitor_message(self._events.recv_multipart())["event"]))
        return found

    def _dispose(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            self._socket.disable_monitor()
            context.destroy(linger=0)


def _zmq() -> Any:
    try:
        return import_module("zmq")
    except ImportError as error:
        raise MissingDependencyError(
            "a policy behind groot:// needs pyzmq here; pip install 'worldeval[groot]'"
        ) from error


def _address(url: str) -> str:
    """The address that answers for the host of ``url``. Raises Lost where nobody does."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port), TCP_TIMEOUT_S) as tcp:
            host = tcp.getpeername()[0]
    except OSError as error:
        raise Lost(f"{type(error).__name__}: {error}") from error
    return f"tcp://[{host}]:{parts.port}" if ":" in host else f"tcp://{host}:{parts.port}"
