"""A server on openpi's wire whose clients have sessions: what serves policies and worlds alike.

Enters: a way to make the thing that a session has for itself. Leaves: a port, on which every
connection is greeted by a first message and every message answered. There are ``sessions`` of them
at most: a further one takes the place of the session that was silent for longest, and who asks for
that one afterwards is told. Without a session_id the connection is the session. What goes wrong is
answered by a traceback as text, and the connection ends, as openpi's server does, unless a kind of
server says it otherwise (``told``).
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from worldeval.errors import ConfigError, PolicyError, WorldEvalError
from worldeval.policies.servers import msgpack_numpy

ENDED = 10_000
"""So many sessions that have ended are remembered by name."""

T = TypeVar("T")


@dataclass(kw_only=True, eq=False)
class Held(Generic[T]):
    """One session: a thing of its own, and whether it has begun."""

    thing: T
    connection: str
    """The one that asked for it last."""
    begun: bool = False
    ended: bool = False
    """Its thing is another session's by now."""
    lock: threading.RLock = field(default_factory=threading.RLock)


class SessionServer(Generic[T]):
    """Things on a port of ``host``; ``port`` says which if 0 was asked for. A context manager.

    make: a thing, called for each session. first: one that is there already. hello: the first
    message of each connection. error: what is raised for a message that cannot be answered.
    """

    error: ClassVar[type[WorldEvalError]]
    endpoints: ClassVar[Sequence[str | None]]
    kept: ClassVar[bool] = True
    """Whether a session goes on when its connection ends."""
    opened_by_any: ClassVar[bool] = True
    """Whether any message begins a session, or "reset" alone."""

    def __init__(
        self,
        make: Callable[[], T],
        first: T,
        hello: bytes,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        sessions: int = 8,
    ) -> None:
        if sessions < 1:
            raise ConfigError(f"sessions is {sessions}, expected 1 or more")
        self._make, self._most, self._hello = make, sessions, hello
        self._spare: list[T] = [first]
        self._open: OrderedDict[str, Held[T]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._connections: set[ServerConnection] = set()
        try:
            self._server = serve(
                self._talk,
                host,
                port,
                compression=None,
                max_size=msgpack_numpy.MAX_BYTES,
                ping_interval=None,
                close_timeout=1.0,
                process_request=_healthy,
            )
        except (OSError, OverflowError) as error:
            self.end(first)
            raise ConfigError(
                f"nothing can be served at {host}:{port} ({error}); give another --host or --port"
            ) from error
        self.port: int = self._server.socket.getsockname()[1]

    def answer(
        self, session: Held[T], name: str, endpoint: str | None, message: dict[str, Any]
    ) -> bytes | str:
        """What is answered to a message of the session called ``name``, whose lock is held."""
        raise NotImplementedError

    def end(self, thing: T) -> None:
        """Close a thing, for good."""
        raise NotImplementedError

    def told(self, error: Exception) -> bytes | None:
        """How an error is answered while the connection stays; None: by a traceback, at its end."""
        return None

    def serve_forever(self) -> None:
        self._server.serve_forever()

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()
        self._server.shutdown()
        with self._lock:
            things = [*self._spare, *(session.thing for session in self._open.values())]
            self._spare, self._open = [], OrderedDict()
        for thing in things:
            self.end(thing)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, name=type(self).__name__)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()
        self._thread.join()

    def free(self, name: str) -> None:
        """End the session ``name``, if it is there; its place and its thing are another's."""
        with self._lock:
            session = self._open.get(name)
        if session is None:
            return
        with session.lock:  # always taken before the other one
            session.ended = True
            with self._lock:
                if self._open.get(name) is session:
                    del self._open[name]
                    self._spare.append(session.thing)

    def _talk(self, connection: ServerConnection) -> None:
        self._connections.add(connection)
        own = f"connection {connection.id}"
        try:
            connection.send(self._hello)
            while True:
                data = connection.recv()
                try:
                    answer = self._answered(data if isinstance(data, bytes) else data.encode(), own)
                except Exception as error:
                    kind = self.told(error)
                    if kind is None:
                        raise
                    answer = kind
                connection.send(answer)
        except (ConnectionClosed, OSError):
            pass  # the client went
        except Exception:  # whatever a session's thing raises is told to who asked
            with contextlib.suppress(ConnectionClosed):
                connection.send(traceback.format_exc())
                connection.close(1011, "Internal server error. Traceback in previous frame.")
        finally:
            self._connections.discard(connection)
            if not self.kept:
                mine = [n for n, s in list(self._open.items()) if s.connection == own]
                for name in mine:
                    self.free(name)

    def _answered(self, data: bytes, own: str) -> bytes | str:
        try:
            message = msgpack_numpy.unpack(data)
        except PolicyError as error:
            why = error.__cause__ or error
            raise self.error(
                f"a request of {len(data)} bytes is no message in msgpack ({why})"
            ) from error
        if not isinstance(message, dict):
            raise self.error(f"a request is {type(message).__name__}, expected a map")
        endpoint = message.get("endpoint")
        if endpoint not in self.endpoints:
            named = [repr(one) for one in self.endpoints if one]
            raise self.error(
                f"endpoint is {endpoint!r}, expected {', '.join(named[:-1])} or {named[-1]}"
            )
        name = str(message.get("session_id") or own)
        session = self._session(name, own, begin=endpoint == "reset")
        with session.lock:
            if session.ended:
                raise self._gone(name)
            return self.answer(session, name, endpoint, message)

    def _session(self, name: str, own: str, *, begin: bool) -> Held[T]:
        """The session of a name, a new one if it is not known; the oldest makes place for it."""
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                self._open[name].connection = own
                return self._open[name]
            if name in self._ended and not begin:
                raise self._gone(name)
            if not begin and not self.opened_by_any:
                raise self.error(f"session {name!r} is not known; reset it first")
            oldest = None
            if len(self._open) >= self._most:
                old, oldest = self._open.popitem(last=False)
                self._ended[old] = None
                while len(self._ended) > ENDED:
                    self._ended.popitem(last=False)
            self._ended.pop(name, None)
        if oldest is not None:
            with oldest.lock:  # what it is asked just now is answered first
                oldest.ended = True
        with self._lock:
            if oldest is not None:
                self._spare.append(oldest.thing)
            if name not in self._open:
                thing = self._spare.pop() if self._spare else self._make()
                self._open[name] = Held(thing=thing, connection=own)
            return self._open[name]

    def _gone(self, name: str) -> WorldEvalError:
        return self.error(
            f"session {name!r} was ended, because {self._most} others were begun after it; serve "
            "with more --sessions, or reset it"
        )


def _healthy(connection: ServerConnection, request: Any) -> Any:
    """openpi's /healthz, by plain HTTP."""
    return connection.respond(200, "OK\n") if request.path == "/healthz" else None
