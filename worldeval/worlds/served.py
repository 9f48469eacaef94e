"""A world behind a server: ``--world ws://HOST:PORT``, where ``worldeval serve-world`` listens.

Enters: where it is. Leaves: a ``types.World`` whose frames are those of the served one to the bit.
A batch of rollouts is one session. When the connection is lost, it is opened again and told all
that the session was asked, so that nothing changes but the time that it takes; see
``policies/servers/remote.py`` for what happens in which case.
"""

from __future__ import annotations

import dataclasses
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from worldeval import errors
from worldeval.errors import MismatchError, PolicyError, PolicyGoneError, WorldError, WorldEvalError
from worldeval.policies.arguments import split_arguments, values_for
from worldeval.policies.servers import msgpack_numpy
from worldeval.policies.servers.link import Request, Session
from worldeval.policies.servers.options import Connecting
from worldeval.policies.servers.remote import Server, websocket_url
from worldeval.registry import did_you_mean
from worldeval.robots.files import robot_from_json
from worldeval.types import ActionChunk, StartState, WorldStep
from worldeval.worlds.serving import OURS, VERSION


class ServedWorld:
    """A batch of rollouts in a world elsewhere; ``connect_world`` makes one."""

    def __init__(self, server: Server) -> None:
        self._server, self.url = server, server.settings.url
        said = server.metadata.get(OURS)
        if not isinstance(said, Mapping):
            raise MismatchError(
                f"{self.url} says {sorted(map(str, server.metadata))} of itself, so it serves no "
                "world; start one there with worldeval serve-world"
            )
        if said.get("version") != VERSION:
            raise MismatchError(
                f"{self.url} speaks version {said.get('version')!r} of worldeval's worlds, "
                f"expected {VERSION}; install the same version of worldeval on both sides"
            )
        try:
            self.name = str(said["name"])
            self.robot = robot_from_json(said["robot"])
            self.frames_per_step = said["frames_per_step"]
            self.own_chunks, self.own_seed = int(said["chunks"]), int(said["seed"])
            self._starts = tuple(StartState(**start) for start in said["starts"])
            self._by_rows = bool(said["rows"])
        except (KeyError, TypeError, ValueError, WorldEvalError) as error:
            raise MismatchError(
                f"{self.url} says of itself what cannot be read ({type(error).__name__}: {error}); "
                "serve it with the version of worldeval that is used here"
            ) from error
        self._session, self._id = Session(past=[], link=0), ""
        self._mine, self._numbers = uuid.uuid4().hex[:12], itertools.count()

    def own_starts(self) -> tuple[StartState, ...]:
        """The start states that are served."""
        return self._starts

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        if self._id:  # its place is free for the next; where it is not known, it is free already
            with suppress(WorldError):
                self._ask({"endpoint": "close"}, "the end of a batch", remembered=False)
        self._session, self._id = Session(past=[], link=0), f"{self._mine}#{next(self._numbers)}"
        return self._began(starts, seeds, None)

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        message = {
            "endpoint": "step",
            "rows": [int(row) for row in rows],
            "actions": np.asarray(chunk.actions, np.float32),
            "poses": np.asarray(chunk.poses, np.float32),
            "joints": None if chunk.joints is None else np.asarray(chunk.joints, np.float32),
        }
        return self._step(message, f"a step of {len(rows)} rollouts")

    def close(self) -> None:
        self._server.close()

    def _began(
        self, starts: Sequence[StartState], seeds: Sequence[int], rows: Sequence[int] | None
    ) -> WorldStep:
        message = {
            "endpoint": "reset",
            "starts": [dataclasses.asdict(start) for start in starts],
            "seeds": [int(seed) for seed in seeds],
            "rows": None if rows is None else [int(row) for row in rows],
        }
        return self._step(message, f"a reset of {len(starts)} rollouts")

    def _step(self, message: Mapping[str, Any], of: str) -> WorldStep:
        answer = self._ask(message, of)
        try:
            return WorldStep(
                frames=answer["frames"],
                poses=answer["poses"],
                success=answer["success"],
                info=answer["info"],
                joints=answer["joints"],
            )
        except KeyError as error:
            raise WorldError(
                f"{self.url} answered {of} with {sorted(answer)}, expected frames, poses, success, "
                "info and joints; is it of another version?"
            ) from error

    def _ask(
        self, message: Mapping[str, Any], of: str, *, remembered: bool = True
    ) -> Mapping[str, Any]:
        """remembered: told again, with all before it, to a server that has forgotten it."""
        request = Request(data=msgpack_numpy.pack({**message, "session_id": self._id}), of=of)
        with _of_a_world():
            (told,) = self._server.ask([request], [self._session] if remembered else None)
            answer = msgpack_numpy.unpack(told if isinstance(told, bytes) else told.encode())
        if not isinstance(answer, Mapping):
            raise WorldError(
                f"{self.url} answered {of} with {type(answer).__name__}, expected a map"
            )
        if "error" in answer:
            if remembered:
                self._session.past.pop()  # it changed nothing there
            kind = getattr(errors, str(answer.get("kind")), WorldError)
            known = isinstance(kind, type) and issubclass(kind, WorldError)
            raise (kind if known else WorldError)(f"{self.url}: {answer['error']}")
        return answer


class ServedRowsWorld(ServedWorld):
    """One whose rollouts begin anew one by one."""

    def reset_rows(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> WorldStep:
        return self._began(starts, seeds, rows)


def connect_world(url: str, **options: Any) -> ServedWorld:
    """The world that ``worldeval serve-world`` serves at ``ws://HOST:PORT``.

    options: timeout_s, wait_s, reconnect_s and api_key_env, as of a policy's server. Raises
    PolicyAwayError if nobody answers, MismatchError for a server of something else.
    """
    scheme, _, rest = url.partition(":")
    if scheme not in ("ws", "wss"):
        raise errors.ConfigError(f"world is {url!r}, expected ws://HOST:PORT or wss://HOST:PORT")
    settings = Connecting(**{"connections": 1, **options}).settings(
        websocket_url(rest, url, tls=scheme == "wss"), url
    )
    server = Server(settings)
    try:
        with _of_a_world():
            server.connect()
        said = server.metadata.get(OURS)
        by_rows = isinstance(said, Mapping) and said.get("rows")
        return (ServedRowsWorld if by_rows else ServedWorld)(server)
    except BaseException:
        server.close()
        raise


def load(rest: str, scheme: str = "ws") -> ServedWorld:
    """The world of ``ws:REST?timeout_s=..``."""
    uri = f"{scheme}:{rest}"
    head, given = split_arguments(uri, "world")
    known = [field.name for field in dataclasses.fields(Connecting) if field.name != "connections"]
    for name in given:
        if name not in known:
            raise errors.ConfigError(
                f"world {uri!r} has no argument {name!r}{did_you_mean(name, known)}; it has "
                f"{', '.join(known)}"
            )
    return connect_world(head, **values_for(Connecting, given, uri, "world"))


def load_tls(rest: str) -> ServedWorld:
    """The world of ``wss:REST``."""
    return load(rest, "wss")


@contextmanager
def _of_a_world() -> Iterator[None]:
    """What goes wrong on the wire, told of a world; who is away or gone still ends the run."""
    try:
        yield
    except PolicyGoneError as error:
        raise PolicyGoneError(_words(error)) from error
    except PolicyError as error:
        kind = type(error) if type(error) is not PolicyError else WorldError
        raise kind(_words(error)) from error


def _words(error: Exception) -> str:
    said = str(error).replace("policy server", "world server").replace("policy '", "world '")
    return said.replace("the observation that its policy was trained for", "what it asks for")
