"""Any world behind RoboArena's hello on openpi's wire, for our own client and for others.

Enters: a way to make a world, its robot and start states. Leaves: a ``WorldServer`` on a port. Each
session has a world of its own and a batch of rollouts in it; sessions are stepped one after the
other, so that a rollout is to the bit what it is in process. A message is

    {"endpoint": "reset", "session_id": .., "starts": [start_id or a whole start state, ..],
     "seeds": [..]}               begins a batch; with "rows" these rollouts of it anew
    {"endpoint": "step", "session_id": .., "actions": (B, K, A)}
                                  with "rows" those rollouts alone; "poses" (B, T, P) and "joints"
                                  (B, T, J) that they command are worked out here if not given
    {"endpoint": "close", "session_id": ..}    frees its place

answered by {"frames": (B, T, V, H, W, 3) uint8, "poses": (B, T, P), "success": (B, T) or null,
"joints": (B, T, J) or null, "info": [..]}, or by {"error": sentence, "kind": name}, after which the
session goes on as it was. When a connection ends, so do its sessions.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from worldeval.errors import StartStateError, WorldError, WorldEvalError
from worldeval.motion.adapters import Adapter, adapter_for, command
from worldeval.policies.servers import msgpack_numpy
from worldeval.policies.servers.sessions import Held, SessionServer
from worldeval.robots import robot_as_json
from worldeval.types import ActionChunk, RowsWorld, StartState, World, WorldStep, frames_at_a_time

OURS = "worldeval_world"
VERSION = 1


@dataclasses.dataclass(eq=False)
class Batch:
    """A world, and where its rollouts stand: poses (B, P) and joints (B, J), for the adapter."""

    world: World
    poses: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.float32))
    joints: np.ndarray | None = None

    def see(self, rows: Sequence[int], step: WorldStep) -> None:
        """The newest poses of these rollouts."""
        self.poses[list(rows)] = step.poses[:, -1]
        if step.joints is not None and self.joints is not None:
            self.joints[list(rows)] = step.joints[:, -1]


class WorldServer(SessionServer[Batch]):
    """A world on a port of ``host``. make: a world, called for each session; all are alike.

    starts, chunks, seed: as of a suite, what a client without one takes.
    """

    error = WorldError
    endpoints = ("reset", "step", "close")
    kept = False
    opened_by_any = False

    def __init__(
        self,
        make: Callable[[], World],
        *,
        starts: Sequence[StartState],
        chunks: int = 10,
        seed: int = 0,
        adapter: Adapter | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        sessions: int = 8,
    ) -> None:
        first = make()
        self.robot = first.robot
        self._adapter = adapter or adapter_for(first.robot)
        self._starts = {start.start_id: start for start in starts}
        self._turn = threading.Lock()
        hello = {
            "image_resolution": list(self.robot.image_size),
            "n_external_cameras": len(self.robot.views),
            "needs_session_id": True,
            "action_space": self.robot.action_space,
            OURS: {
                "version": VERSION,
                "name": first.name,
                "robot": robot_as_json(self.robot),
                "frames_per_step": frames_at_a_time(first),
                "rows": isinstance(first, RowsWorld),
                "starts": [dataclasses.asdict(start) for start in starts],
                "chunks": chunks,
                "seed": seed,
                "sessions": sessions,
            },
        }
        super().__init__(
            lambda: Batch(make()),
            Batch(first),
            msgpack_numpy.pack(hello),
            host=host,
            port=port,
            sessions=sessions,
        )

    def end(self, thing: Batch) -> None:
        thing.world.close()

    def told(self, error: Exception) -> bytes | None:
        """What we say ourselves is a sentence; the rest stays a traceback."""
        if not isinstance(error, WorldEvalError):
            return None
        return msgpack_numpy.pack({"error": str(error), "kind": type(error).__name__})

    def answer(
        self, session: Held[Batch], name: str, endpoint: str | None, message: dict[str, Any]
    ) -> bytes | str:
        if endpoint == "close":
            self.free(name)
            return msgpack_numpy.pack({"closed": name})
        batch = session.thing
        if endpoint == "step" and not session.begun:
            raise WorldError(f"session {name!r} has no rollouts; reset it first")
        with self._turn:
            seen = (
                self._reset(session, message) if endpoint == "reset" else self._step(batch, message)
            )
        data = msgpack_numpy.pack(
            {
                "frames": np.asarray(seen.frames),
                "poses": np.asarray(seen.poses),
                "success": seen.success,
                "joints": seen.joints,
                "info": json.loads(json.dumps(list(seen.info), default=float)),
            }
        )
        if len(data) > msgpack_numpy.MAX_BYTES:
            raise WorldError(
                f"the frames of {len(seen.frames)} rollouts are {len(data)} bytes, expected at "
                f"most {msgpack_numpy.MAX_BYTES} in a message; ask for fewer rollouts at once"
            )
        return data

    def _reset(self, session: Held[Batch], message: Mapping[str, Any]) -> WorldStep:
        batch = session.thing
        starts = [self._start(one) for one in _list(message, "starts")]
        seeds = [_whole(one, "seeds") for one in message.get("seeds") or [0] * len(starts)]
        if not starts or len(seeds) != len(starts):
            raise WorldError(
                f"a reset has {len(starts)} starts and {len(seeds)} seeds, expected one or more "
                "starts and as many seeds"
            )
        if message.get("rows") is None:
            seen = batch.world.reset(starts, seeds)
            batch.poses = np.array(seen.poses[:, -1])
            batch.joints = None if seen.joints is None else np.array(seen.joints[:, -1])
            session.begun = True
            return seen
        rows = self._rows(batch, message)
        if not session.begun:
            raise WorldError("a reset names rows, but the session has no rollouts; leave rows out")
        if not isinstance(batch.world, RowsWorld):
            raise WorldError(
                f"a reset names rows, but world {batch.world.name!r} begins all rollouts at once; "
                "leave rows out"
            )
        if len(rows) != len(starts):
            raise WorldError(
                f"a reset has {len(rows)} rows and {len(starts)} starts, expected one each"
            )
        seen = batch.world.reset_rows(rows, starts, seeds)
        batch.see(rows, seen)
        return seen

    def _step(self, batch: Batch, message: Mapping[str, Any]) -> WorldStep:
        robot, rows = self.robot, self._rows(batch, message)
        actions = self._array(message, "actions", (len(rows), None, robot.action_dim))
        stride, most = robot.steps_per_frame, frames_at_a_time(batch.world)
        count = actions.shape[1] // stride
        if actions.shape[1] % stride or not count or (most is not None and count > most):
            up_to = "" if most is None else f", at most {most * stride}"
            raise WorldError(
                f"actions have {actions.shape[1]} control steps, expected a multiple of {stride}"
                f"{up_to}"
            )
        known = None if batch.joints is None else batch.joints[rows][:, None]
        if message.get("poses") is None:
            chunk = command(self._adapter, batch.poses[rows][:, None], known, actions)
        else:
            joints = message.get("joints")
            shape = (len(rows), count, robot.joint_dim)
            chunk = ActionChunk(
                actions=actions,
                poses=self._array(message, "poses", (len(rows), count, robot.pose_dim)),
                joints=None if joints is None else self._array(message, "joints", shape),
            )
        seen = batch.world.step(chunk, rows)
        batch.see(rows, seen)
        return seen

    def _rows(self, batch: Batch, message: Mapping[str, Any]) -> list[int]:
        """The rollouts that are meant; all if none are named."""
        if message.get("rows") is None:
            return list(range(len(batch.poses)))
        rows = [_whole(one, "rows") for one in _list(message, "rows")]
        wrong = [row for row in rows if row >= len(batch.poses)]
        if wrong or not rows or len(set(rows)) < len(rows):
            raise WorldError(
                f"rows is {rows}, expected different numbers from 0 to {len(batch.poses) - 1}"
            )
        return rows

    def _start(self, given: Any) -> StartState:
        """A start state by its id, or as a map of all its fields."""
        if isinstance(given, str):
            if given not in self._starts:
                some = ", ".join(list(map(repr, self._starts))[:3])
                raise StartStateError(
                    f"start state {given!r} is not served, there are {len(self._starts)} (such as "
                    f"{some}); name one of them"
                )
            return self._starts[given]
        fields = {field.name: field.type for field in dataclasses.fields(StartState)}
        right = isinstance(given, Mapping) and set(given) == set(fields)
        if not right or not all(
            isinstance(given[name], int if name == "seed" else str) for name in fields
        ):
            raise WorldError(
                f"a start state is {str(given)[:200]!r}, expected its start_id, or a map of "
                f"{', '.join(fields)}"
            )
        return StartState(**given)

    @staticmethod
    def _array(message: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        array = np.asarray(message.get(name))
        fits = array.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=False)
        )
        if array.dtype.kind not in "fiu" or not fits:
            wanted = "(" + ", ".join("K" if n is None else str(n) for n in shape) + ")"
            raise WorldError(
                f"{name} is {array.dtype} of shape {array.shape}, expected numbers of shape "
                f"{wanted}"
            )
        if not np.isfinite(array).all():
            raise WorldError(f"{name} has numbers that are not finite, expected finite ones")
        return array.astype(np.float32)


def _list(message: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = message.get(name)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.tolist()
    if not isinstance(value, list):
        raise WorldError(f"{name} is {type(value).__name__}, expected a list")
    return value


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise WorldError(f"{name} has {value!r}, expected whole numbers of 0 or more")
    return int(value)
