"""A policy server that speaks the real bytes: in a thread, or alone as a process to be killed.

The codec is written out here a second time, from the description of openpi's, so that a mistake in
``worldeval.policies.servers.msgpack_numpy`` cannot hide behind itself. The policy is a hash: its
actions depend on every byte of the observation that it is sent, so two runs that agree have sent
the same ones.

    with StubServer(answer=..., metadata={...}) as server: ... server.port, server.seen
    python stub_server.py --port 0        prints the port it listens on
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

STEPS = 15
ROBOARENA = {
    "image_resolution": [224, 224],
    "needs_wrist_camera": True,
    "n_external_cameras": 1,
    "needs_stereo_camera": False,
    "needs_session_id": False,
    "action_space": "joint_velocity",
}


def encode(value: Any) -> bytes:
    def plain(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return {
                b"__ndarray__": True,
                b"data": x.tobytes(),
                b"dtype": x.dtype.str,
                b"shape": x.shape,
            }
        return {b"__npgeneric__": True, b"data": x.item(), b"dtype": x.dtype.str}

    return msgpack.packb(value, default=plain)


def decode(data: bytes) -> Any:
    def array(x: dict) -> Any:
        if b"__ndarray__" in x:
            return np.ndarray(buffer=x[b"data"], dtype=np.dtype(x[b"dtype"]), shape=x[b"shape"])
        return x

    return msgpack.unpackb(data, object_hook=array)


def hashed_actions(observation: dict[str, Any], *, steps: int = STEPS, size: int = 8) -> np.ndarray:
    """(steps, size) float64 in [-1.2, 1.2], the last one in [0, 1]."""
    digest = hashlib.sha256(encode(dict(sorted(observation.items())))).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    actions = rng.uniform(-1.2, 1.2, (steps, size))
    actions[:, -1] = rng.uniform(0, 1, steps)
    return actions


def openpi(observation: dict[str, Any]) -> dict[str, Any]:
    return {"actions": hashed_actions(observation), "policy_timing": {"infer_ms": np.float64(1.5)}}


class Die(Exception):
    """Raised by an answer: the connection breaks without a word."""


class StubServer:
    """answer: observation -> a value to pack; bytes and text are sent as they are; a function is
    called for the answer (to hang in). What it raises is sent as text and ends the connection."""

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], Any] = openpi,
        *,
        metadata: Any = None,
        port: int = 0,
        refuse: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.metadata = {"reset_pose": [0.0, -0.5]} if metadata is None else metadata
        self.seen: list[dict[str, Any]] = []
        self.headers: list[str | None] = []
        self.most_at_once = 0
        self.closing = threading.Event()
        self._refuse = refuse
        self._open: set[ServerConnection] = set()
        self._busy = 0
        self._lock = threading.Lock()
        self._server: Server = serve(
            self._talk,
            "127.0.0.1",
            port,
            ssl=tls,
            compression=None,
            max_size=None,
            process_request=self._greet,
            ping_interval=None,
            close_timeout=0.5,
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __enter__(self) -> StubServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def kill(self) -> None:
        """As a killed process: the port is free and every connection breaks."""
        self.closing.set()
        for connection in list(self._open):
            self._break(connection)
        self._server.shutdown()  # waits until every connection's thread has ended
        self._thread.join()

    def _greet(self, connection: ServerConnection, request: Any) -> Any:
        self.headers.append(request.headers.get("Authorization"))
        return connection.respond(self._refuse, "no\n") if self._refuse else None

    def _break(self, connection: ServerConnection) -> None:
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)

    def _talk(self, connection: ServerConnection) -> None:
        self._open.add(connection)
        try:
            first = self.metadata
            connection.send(first if isinstance(first, str | bytes) else encode(first))
            while True:
                connection.send(self._respond(decode(connection.recv())))
        except (ConnectionClosed, OSError):
            pass
        except Die:
            self._break(connection)
        except Exception:
            with contextlib.suppress(ConnectionClosed):
                connection.send(traceback.format_exc())
                connection.close(1011, "Internal server error. Traceback in previous frame.")
        finally:
            self._open.discard(connection)

    def _respond(self, observation: dict[str, Any]) -> str | bytes:
        with self._lock:
            self.seen.append(observation)
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
        try:
            value = self.answer(observation)
        finally:
            with self._lock:
                self._busy -= 1
        return value if isinstance(value, str | bytes) else encode(value)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--serve", action="store_true", help="until it is killed")
    options = parser.parse_args()

    def slowly(observation: dict[str, Any]) -> dict[str, Any]:
        time.sleep(options.delay_s)
        return openpi(observation)

    with StubServer(slowly, port=options.port) as server:
        print(server.port, flush=True)
        if options.serve:
            threading.Event().wait()
        sys.stdin.read()  # until whoever started it closes the pipe, or kills it


if __name__ == "__main__":
    main()
