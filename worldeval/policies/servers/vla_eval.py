"""Policies behind a server of vla-evaluation-harness: ``vla-eval://HOST:PORT``.

Enters: observations. Leaves: its actions, one or a chunk for an observation. Websocket and msgpack;
a message is {"type", "payload", "seq", "timestamp"}, an array is {"__ndarray__": True, "data",
"dtype", "shape"} with text for keys::

    hello          both ways; the server's says what actions it gives and what it wants to be shown
    episode_start  {"task": {"name": instruction}, "seed"}, without an answer
    observation    {"images": {camera: (H, W, 3)}, "states" and "state": (D,), "task_description"}
    action         {"actions": (A,) or (chunk, A)}, with the seq of its observation
    error          {"error": text}; the connection stays open

A server hands out one action a time where it keeps the rest of a chunk for itself, so a connection
is an episode: each rollout has its own (``MOST`` at once), which is also what a batching server
collects. What it was shown is told again to one that comes back.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from worldeval.errors import MismatchError, PolicyError, PolicyGoneError
from worldeval.policies.servers import conventions as meanings
from worldeval.policies.servers import openpi, options
from worldeval.policies.servers.link import Request, ServerSettings, Session, short
from worldeval.policies.servers.msgpack_numpy import array_of, refuse_extension
from worldeval.policies.servers.one_call import OneCall, opened
from worldeval.policies.servers.options import Connecting
from worldeval.policies.servers.remote import Server
from worldeval.robots import RobotSpec
from worldeval.types import Observation

MOST = 64
"""Rollouts at once, each with a connection of its own."""
VERSION = 1
ROTATIONS = {"euler_xyz": "euler", "axis_angle": "rotation_vector"}
"""The harness's name of a form of turns -> a robot's; others keep their name."""
SENSES = {"binary_close_positive": "close_positive", "binary_close_negative": "close_negative"}


@dataclass(frozen=True, kw_only=True)
class Numbered(Request):
    """A request whose answer carries its number."""

    number: int


def pack(kind: str, payload: Mapping[str, Any], number: int) -> bytes:
    """One message of the harness."""
    message = {"type": kind, "payload": payload, "seq": number, "timestamp": time.time()}
    data: bytes = msgpack.packb(message, default=_pack_array)
    return data


def unpack(data: bytes | str, url: str) -> dict[str, Any]:
    """The message in what the server at ``url`` sent; nothing in it is run."""
    try:
        raw = data if isinstance(data, bytes) else data.encode()
        message = msgpack.unpackb(raw, object_hook=_unpack_array, ext_hook=refuse_extension)
        if not isinstance(message, dict) or not isinstance(message["payload"], dict):
            raise ValueError("it is no map with a payload")
        return {"type": message["type"], "payload": message["payload"], "seq": message["seq"]}
    except PolicyError:
        raise
    except (ValueError, TypeError, KeyError, msgpack.UnpackException, RecursionError) as error:
        raise PolicyError(
            f"{url} sent {short(repr(data[:60]))}, which is no message of vla-evaluation-harness "
            f"({type(error).__name__}: {error}); is another kind of server at this address?"
        ) from error


def _pack_array(value: Any) -> dict[str, Any]:
    array = np.asarray(value)
    return {
        "__ndarray__": True,
        "data": array.tobytes(),
        "dtype": array.dtype.str,
        "shape": list(array.shape),
    }


def _unpack_array(value: dict[Any, Any]) -> Any:
    if "__ndarray__" not in value:
        return value
    return array_of(value.get("dtype"), value.get("shape"), value.get("data"))


class HarnessServer(Server):
    """A server of the harness: it is greeted first, and numbers its answers."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings, links=MOST)
        self._meeting = threading.Lock()

    def meet(self, connection: ClientConnection) -> None:
        url, hello = (
            self.settings.url,
            {"harness_version": "worldeval", "protocol_version": VERSION},
        )
        try:
            connection.send(pack("hello", hello, 0))
            said = unpack(connection.recv(timeout=self.settings.timeout_s), url)
        except ConnectionClosed as error:
            if self.metadata:  # it was there before, and will be again
                raise
            raise PolicyError(
                f"{url} hung up when it was greeted ({error}); serve it with a newer version of "
                "vla-evaluation-harness, which knows hello"
            ) from error
        if said["type"] != "hello":
            raise PolicyError(f"{url} answered hello with {said['type']!r}, expected 'hello'")
        with self._meeting:
            if not self.metadata:
                self.metadata = said["payload"]
            elif said["payload"] != self.metadata:
                raise PolicyGoneError(
                    f"{url} came back as another server: it said {self.metadata}, now it says "
                    f"{said['payload']}; serve the same policy, or give it another name"
                )
        self.refusals.clear()

    def inspect(self, request: Request, answer: bytes | str) -> None:
        url = self.settings.url
        message = unpack(answer, url)
        if message["type"] == "error":
            said = short(" ".join(str(message["payload"].get("error", message["payload"])).split()))
            raise PolicyError(
                f"{url} failed on {request.of}: {said}; mend the server, or send it the "
                "observation that its policy was trained for"
            )
        expected = request.number if isinstance(request, Numbered) else None
        if message["type"] != "action" or message["seq"] != expected:
            raise PolicyError(
                f"{url} answered for {request.of} with {message['type']!r} number "
                f"{message['seq']!r}, expected 'action' number {expected}; serve a policy that "
                "answers each observation once (no continuous inference)"
            )


class HarnessPolicy(OneCall):
    """A policy behind a ``HarnessServer``; each of its rollouts is an episode."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._numbers = itertools.count(1)
        self._open: dict[str, Session] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        if len(rollout_ids) > MOST:
            raise PolicyError(
                f"{len(rollout_ids)} rollouts were begun at once where {self.url} may have {MOST}, "
                f"each with its connection; say --batch {MOST}"
            )
        self._open = {}
        for row, rollout in enumerate(rollout_ids):
            episode = {"task": {"name": instructions[row]}, "seed": int(seeds[row])}
            start = Request(
                data=pack("episode_start", episode, next(self._numbers)),
                of=f"the start of rollout {rollout!r}",
                answered=False,
            )
            self._open[rollout] = Session(past=[start], link=row)

    def sessions(self, observations: Sequence[Observation]) -> list[Session]:
        for observation in observations:
            if observation.rollout_id not in self._open:
                raise PolicyError(
                    f"policy {self.spec.name!r} does not know rollout {observation.rollout_id!r}; "
                    "call reset with it before act"
                )
        return [self._open[observation.rollout_id] for observation in observations]

    def request(self, observation: Observation, of: str) -> Request:
        payload: dict[str, Any] = {
            "images": {name: observation.images[name] for name in self.spec.cameras},
            "task_description": observation.instruction,
        }
        if self.spec.state_keys:  # benchmarks spell it either way, and so do servers
            states = [observation.state[key] for key in self.spec.state_keys]
            payload["states"] = payload["state"] = np.concatenate(states).astype(np.float32)
        number = next(self._numbers)
        return Numbered(data=pack("observation", payload, number), of=of, number=number)

    def decode(self, answer: bytes, of: str) -> Any:
        payload = unpack(answer, self.url)["payload"]
        if "actions" not in payload:
            raise PolicyError(
                f"{self.url} answered for {of} with {', '.join(map(str, payload)) or 'nothing'}, "
                "expected 'actions'"
            )
        actions = payload["actions"]
        one = isinstance(actions, np.ndarray) and actions.ndim == 1
        return actions[None] if one else actions


@options.connecting
def load(
    rest: str,
    robot: RobotSpec,
    connecting: Connecting,
    *,
    name: str | None = None,
    cameras: str | None = None,
    state: str | None = None,
    size: int | None = None,
    execute: int | None = None,
    conventions: str | None = None,
    tls: bool = False,
) -> HarnessPolicy:
    """The policy behind ``vla-eval:REST``; ``one_call.opened`` says what the arguments mean.

    cameras: in the order in which the server's policy takes its pictures.
    """
    settings = openpi.websocket_settings("vla-eval", rest, connecting, tls=tls)
    server = HarnessServer(settings)

    def prepare(policy: HarnessPolicy) -> None:
        said = server.connect()
        _check(said, policy, robot)
        meant = _meant(said, robot) | (meanings.read_conventions(conventions) or {})
        unknown = ("chunk", "execute")
        meanings.compare_said(meant, robot, policy.spec, unknown=unknown)

    made: HarnessPolicy = opened(
        HarnessPolicy,
        robot,
        server,
        name=name or openpi.default_name(settings.url).replace("openpi", "vla-eval"),
        cameras=cameras,
        state=state,
        size=size,
        chunk=None,  # asked once before the run, which also tells what does not fit
        execute=execute,
        conventions_file=conventions,
        prepare=prepare,
    )
    return made


def _specs(said: Mapping[str, Any], which: str) -> dict[str, dict[str, Any]]:
    """The parts of a spec that a hello may have: name -> {"dims", "format", "range"}."""
    found = said.get(which)
    found = found if isinstance(found, dict) else {}
    return {str(k): v for k, v in found.items() if isinstance(v, dict)}


def _check(said: Mapping[str, Any], policy: HarnessPolicy, robot: RobotSpec) -> None:
    """MismatchError where the sizes that the server says are not those of the robot."""
    url, spec = policy.url, policy.spec

    def count(parts: Mapping[str, dict[str, Any]]) -> int:
        sizes = [part.get("dims") for part in parts.values()]
        known = all(type(size) is int and size > 0 for size in sizes)
        return sum(size for size in sizes if isinstance(size, int)) if known else 0

    given = _specs(said, "action_spec")
    if count(given) not in (0, robot.action_dim):
        sizes = ", ".join(f"{name} {part.get('dims')}" for name, part in given.items())
        raise MismatchError(
            f"{url} gives actions of {count(given)} numbers ({sizes}), robot {robot.name!r} takes "
            f"{robot.action_dim} ({', '.join(robot.action_names)}); serve a policy for this robot"
        )
    wanted = _specs(said, "observation_spec")
    pictures = [name for name, part in wanted.items() if str(part.get("format")).startswith("rgb")]
    if len(pictures) > len(spec.cameras):
        raise MismatchError(
            f"{url} wants {len(pictures)} pictures ({', '.join(pictures)}) and would be sent "
            f"{len(spec.cameras)} ({', '.join(spec.cameras) or 'none'}); give cameras=NAME,NAME in "
            "its order"
        )
    states = {name: part for name, part in wanted.items() if name in ("state", "states")}
    sent = _width(spec.state_keys, robot)
    if states and count(states) not in (0, sent):
        raise MismatchError(
            f"{url} wants a state of {count(states)} numbers "
            f"({next(iter(states.values())).get('format')}) and would be sent {sent} "
            f"({', '.join(spec.state_keys) or 'none'}); give state=NAME,NAME"
        )


def _width(keys: Sequence[str], robot: RobotSpec) -> int:
    grippers = len(robot.pose_grippers)
    sizes = {
        "pose": robot.pose_dim,
        "joint_position": robot.joint_dim,
        "gripper_position": grippers,
        "cartesian_position": robot.pose_dim - grippers,
    }
    return sum(sizes[key] for key in keys)


def _meant(said: Mapping[str, Any], robot: RobotSpec) -> dict[str, Any]:
    """Conventions that the server's action spec says; what it calls raw stays unknown."""
    found: dict[str, Any] = {}
    for part in _specs(said, "action_spec").values():
        form, bounds = str(part.get("format")), part.get("range")
        if form in ("delta_xyz", "absolute_xyz"):
            found["action_reference"] = "relative" if form == "delta_xyz" else "absolute"
        if part.get("name") == "rotation" and form != "raw":
            found["rotation"] = ROTATIONS.get(form, form)
        if part.get("name") == "gripper" and form != "raw":
            if form in SENSES:
                found["gripper_sense"] = SENSES[form]
            if isinstance(bounds, list) and len(bounds) == 2:
                found["gripper_range"] = [[float(b) for b in bounds]] * len(robot.gripper_axes)
    return found
