"""Any policy behind RoboArena's hello on openpi's wire, for our own client and for others.

Enters: a way to make a policy, and its robot. Leaves: a ``PolicyServer`` on a port. A message is

    {"endpoint": "reset", "session_id": ..}  answered by text; it may have "seed", "prompt" and
                                             "rollout_id"
    {"endpoint": "infer", "session_id": ..}  with images and states of the hello, and "prompt";
                                             answered by the array of actions (chunk, action_dim)
    without "endpoint"                       openpi's: answered by {"actions": array}

A policy forgets everything at a reset, so each session has one of its own. There are ``sessions``
of them at most: a further one takes the place of the session that was silent for longest, and who
asks for that one afterwards is told. Without a session_id the connection is the session. What goes
wrong is answered by a traceback as text, and the connection ends, as openpi's server does.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from worldeval.errors import ConfigError, PolicyError
from worldeval.policies.checking import check_policy, shaped_actions
from worldeval.policies.servers import hello, msgpack_numpy
from worldeval.robots import RobotSpec
from worldeval.types import Observation, Policy

ENDED = 10_000
"""So many sessions that have ended are remembered by name."""


@dataclass(kw_only=True, eq=False)
class Session:
    """One rollout: a policy of its own, and where it stands."""

    policy: Policy
    rollout: str = ""
    step: int = 0
    begun: bool = False
    ended: bool = False
    """Its policy is another session's by now."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class PolicyServer:
    """A policy on a port of ``host``; ``port`` says which if 0 was asked for. A context manager.

    make: a policy, called for each session. conventions: values of ``conventions.ours`` that are
    served otherwise. seed: of a session whose reset names none.
    """

    def __init__(
        self,
        make: Callable[[], Policy],
        robot: RobotSpec,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        sessions: int = 8,
        conventions: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if sessions < 1:
            raise ConfigError(f"sessions is {sessions}, expected 1 or more")
        self._make, self._robot, self._seed, self._most = make, robot, seed, sessions
        first = make()
        check_policy(first, robot)
        self.spec = first.spec
        self._spare: list[Policy] = [first]
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._images = hello.image_keys(self.spec)
        self._hello = msgpack_numpy.pack(hello.metadata(self.spec, robot, sessions, conventions))
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
            first.close()
            raise ConfigError(
                f"nothing can be served at {host}:{port} ({error}); give another --host or --port"
            ) from error
        self.port: int = self._server.socket.getsockname()[1]

    def serve_forever(self) -> None:
        self._server.serve_forever()

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()
        self._server.shutdown()
        for policy in [*self._spare, *(session.policy for session in self._open.values())]:
            policy.close()
        self._spare, self._open = [], OrderedDict()

    def __enter__(self) -> PolicyServer:
        self._thread = threading.Thread(target=self.serve_forever, name="policy-server")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()
        self._thread.join()

    def _talk(self, connection: ServerConnection) -> None:
        self._connections.add(connection)
        own = f"connection {connection.id}"
        try:
            connection.send(self._hello)
            while True:
                data = connection.recv()
                answer = self._answer(data if isinstance(data, bytes) else data.encode(), own)
                connection.send(answer)
        except (ConnectionClosed, OSError):
            pass  # the client went
        except Exception:  # whatever a policy raises is told to who asked
            with contextlib.suppress(ConnectionClosed):
                connection.send(traceback.format_exc())
                connection.close(1011, "Internal server error. Traceback in previous frame.")
        finally:
            self._connections.discard(connection)

    def _answer(self, data: bytes, own: str) -> bytes | str:
        message = msgpack_numpy.unpack(data)
        if not isinstance(message, dict):
            raise PolicyError(f"a request is {type(message).__name__}, expected a map")
        endpoint = message.get("endpoint")
        if endpoint not in (None, "infer", "reset"):
            raise PolicyError(f"endpoint is {endpoint!r}, expected 'infer' or 'reset'")
        name = str(message.get("session_id") or own)
        session = self._session(name, begin=endpoint == "reset")
        with session.lock:
            if session.ended:
                raise self._gone(name)
            if endpoint == "reset" or not session.begun:
                self._begin(session, name, message)
            if endpoint == "reset":
                return "reset successful"
            actions = self._act(session, message)
        return msgpack_numpy.pack(actions if endpoint else {"actions": actions})

    def _session(self, name: str, *, begin: bool) -> Session:
        """The session of a name, a new one if it is not known; the oldest makes place for it."""
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                return self._open[name]
            if name in self._ended and not begin:
                raise self._gone(name)
            if len(self._open) >= self._most:
                old, ended = self._open.popitem(last=False)
                self._ended[old] = None
                while len(self._ended) > ENDED:
                    self._ended.popitem(last=False)
                with ended.lock:  # what it is asked just now is answered first
                    ended.ended = True
                    self._spare.append(ended.policy)
            self._ended.pop(name, None)
            session = Session(policy=self._spare.pop() if self._spare else self._make())
            self._open[name] = session
            return session

    def _gone(self, name: str) -> PolicyError:
        return PolicyError(
            f"session {name!r} was ended, because {self._most} others were begun after it; serve "
            "with more --sessions, or reset it"
        )

    def _begin(self, session: Session, name: str, message: Mapping[str, Any]) -> None:
        seed = message.get("seed", self._seed)
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise PolicyError(f"seed is {seed!r}, expected a whole number of 0 or more")
        session.rollout, session.step = str(message.get("rollout_id", name)), 0
        session.policy.reset([session.rollout], [str(message.get("prompt", ""))], [int(seed)])
        session.begun = True

    def _act(self, session: Session, message: Mapping[str, Any]) -> np.ndarray:
        step = message.get("step", session.step)
        if not isinstance(step, int | np.integer) or step < 0:
            raise PolicyError(f"step is {step!r}, expected a whole number of 0 or more")
        observation = Observation(
            images={camera: self._image(message, key) for key, camera in self._images.items()},
            state={name: self._state(message, name) for name in self.spec.state_keys},
            instruction=str(message.get("prompt", "")),
            rollout_id=session.rollout,
            step=int(step),
        )
        session.step = int(step) + self.spec.execute
        answer = session.policy.act([observation])
        return shaped_actions(answer, self.spec, self._robot, 1)[0]

    def _image(self, message: Mapping[str, Any], key: str) -> np.ndarray:
        image = self._array(message, key)
        size = self.spec.image_size
        right = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        if not right or size is not None and image.shape[:2] != tuple(size):
            height, width = size or ("H", "W")
            raise PolicyError(
                f"{key} is {image.dtype} of shape {image.shape}, expected uint8 RGB "
                f"({height}, {width}, 3)"
            )
        return image

    def _state(self, message: Mapping[str, Any], name: str) -> np.ndarray:
        key = f"observation/{name}"
        state = self._array(message, key)
        robot = self._robot
        grippers = len(robot.pose_grippers)
        sizes = {
            "pose": robot.pose_dim,
            "joint_position": robot.joint_dim,
            "gripper_position": grippers,
            "cartesian_position": robot.pose_dim - grippers,
        }
        if state.dtype.kind not in "fiu" or state.shape != (sizes[name],):
            raise PolicyError(
                f"{key} is {state.dtype} of shape {state.shape}, expected {sizes[name]} numbers"
            )
        if not np.isfinite(state).all():
            raise PolicyError(f"{key} has numbers that are not finite, expected finite ones")
        return state.astype(np.float32)

    def _array(self, message: Mapping[str, Any], key: str) -> np.ndarray:
        if key not in message:
            raise PolicyError(
                f"a request has no {key!r}, expected {', '.join(self._images)} and "
                f"{', '.join('observation/' + name for name in self.spec.state_keys) or 'no state'}"
                f"; it has {', '.join(sorted(map(str, message)))}"
            )
        return np.asarray(message[key])


def _healthy(connection: ServerConnection, request: Any) -> Any:
    """openpi's /healthz, by plain HTTP."""
    return connection.respond(200, "OK\n") if request.path == "/healthz" else None
