"""A server of OpenAI chat completions that writes its bytes itself, right and wrong ones.

It reads requests as strictly as the described protocol allows (method, path, key, JSON, message
parts, pictures that really decode) and answers a bad one with 400, so a judge that sends nonsense
fails here too. What it answers is scripted: a list of replies, the last repeated, or a function of
the request that was read. A reply is bytes, written as they are, or a function of the connection.

    with VlmServer([completion("Answer: yes")]) as server: ... server.url, server.asked
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from worldeval.types import Episode

Reply = bytes | Callable[[socket.socket], None]


@dataclass(frozen=True)
class Asked:
    """One request as the server read it."""

    headers: dict[str, str]
    body: dict[str, Any]
    at_s: float

    @property
    def text(self) -> str:
        parts = self.body["messages"][0]["content"]
        return "\n".join(part["text"] for part in parts if part["type"] == "text")

    @property
    def pictures(self) -> list[np.ndarray]:
        """The pictures that were sent, decoded, (H, W, 3) RGB."""
        parts = self.body["messages"][0]["content"]
        return [picture_of(p["image_url"]["url"]) for p in parts if p["type"] == "image_url"]


def http(status: str, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def completion(
    *texts: str | None, tokens: tuple[int, int] | None = (1000, 20), finish: str = "stop"
) -> bytes:
    """A chat completion as the API reference shows it; ``tokens``: of the prompt, of the answer."""
    value: dict[str, Any] = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m",
        "choices": [
            {"index": i, "finish_reason": finish, "logprobs": None,
             "message": {"role": "assistant", "content": text, "refusal": None}}
            for i, text in enumerate(texts)
        ],
    }  # fmt: skip
    if tokens is not None:
        prompt, answer = tokens
        value["usage"] = {
            "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
        }  # fmt: skip
    return http("200 OK", json.dumps(value).encode())


def vote(answer: str, reason: str = "seen") -> bytes:
    """A completion with one answer in the form that is asked for."""
    return completion(json.dumps({"reason": reason, "answer": answer}))


def error(
    status: str, message: str, *, code: Any = None, param: Any = None, **headers: str
) -> bytes:
    value = {"error": {"message": message, "type": "some_error", "param": param, "code": code}}
    return http(status, json.dumps(value).encode(), **headers)


def hang_up(connection: socket.socket) -> None:
    """Break off in the middle of the headers."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")


def break_off(connection: socket.socket) -> None:
    """Promise more than is sent."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b'{"choices": [')


def drip(connection: socket.socket) -> None:
    """A byte now and then, for ever: each one resets a timeout between two bytes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(1000):
            connection.sendall(b" ")
            time.sleep(0.03)


def slow(connection: socket.socket) -> None:
    """Nothing at all until the other side has left."""
    connection.settimeout(5)
    with contextlib.suppress(OSError):
        connection.recv(1)


class VlmServer:
    """Listens on a free port of this machine, one thread a connection."""

    def __init__(
        self, replies: Sequence[Reply] | Callable[[Asked], Reply], *, key: str | None = None
    ) -> None:
        self.asked: list[Asked] = []
        """Every request that was understood."""
        self.most_at_once = 0
        self._replies, self._key = replies, key
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._under_way = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> VlmServer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown wakes the threads that wait on these sockets; close alone does not
        for waiting in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(timeout=5)
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while (request := _read(connection)) is not None:
                with self._lock:
                    self._under_way += 1
                    self.most_at_once = max(self.most_at_once, self._under_way)
                reply = self._reply(*request)
                with self._lock:
                    self._under_way -= 1
                if callable(reply):
                    reply(connection)
                    return
                connection.sendall(reply)

    def _reply(self, line: str, headers: dict[str, str], data: bytes) -> Reply:
        if line != "POST /v1/chat/completions HTTP/1.1":
            return http("404 Not Found", b'{"detail":"Not Found"}')
        given = headers.get("authorization")
        if self._key is not None and given != f"Bearer {self._key}":
            told = (
                f"Incorrect API key provided: {given}. You can find your API key in your account."
            )
            return error("401 Unauthorized", told, code="invalid_api_key")
        try:
            body = json.loads(data)
            _check(headers, body)
        except (ValueError, KeyError, TypeError, AssertionError) as wrong:
            return error("400 Bad Request", f"bad request: {wrong!r}")
        asked = Asked(headers, body, time.monotonic())
        with self._lock:
            number = len(self.asked)
            self.asked.append(asked)
        if callable(self._replies):
            return self._replies(asked)
        return self._replies[min(number, len(self._replies) - 1)]


def _read(connection: socket.socket) -> tuple[str, dict[str, str], bytes] | None:
    """(request line, headers in lower case, body); None when the other side has left."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in rest)}
    while len(body) < int(headers["content-length"]):
        piece = connection.recv(65536)
        if not piece:
            return None
        body += piece
    return line, headers, body


KNOWN = {"model", "messages", "temperature", "seed", "max_tokens", "n", "reasoning_effort"}


def _check(headers: dict[str, str], body: dict[str, Any]) -> None:
    assert headers["content-type"] == "application/json", "content type"
    assert set(body) <= KNOWN and isinstance(body["model"], str), sorted(body)
    assert body["messages"], "messages"
    for message in body["messages"]:
        assert message["role"] in ("system", "user", "assistant"), message["role"]
        for part in message["content"]:
            if part["type"] == "text":
                assert isinstance(part["text"], str) and set(part) == {"type", "text"}
            else:
                assert part["type"] == "image_url" and set(part) == {"type", "image_url"}
                assert picture_of(part["image_url"]["url"]).ndim == 3


def picture_of(url: str) -> np.ndarray:
    head, _, data = url.partition(",")
    raw = base64.b64decode(data, validate=True)
    magic = {"data:image/png;base64": b"\x89PNG", "data:image/jpeg;base64": b"\xff\xd8\xff"}[head]
    assert raw.startswith(magic), "the picture is not of the kind that its URL says"
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )


def episode(key: str = "p/1", *, colour: int = 0, length: int = 9, **changes: object) -> Episode:
    """Frame t is of one colour, (20 t, 100, colour), so that a picture tells which one it is."""
    frames = np.zeros((length, 2, 6, 8, 3), np.uint8)
    frames[..., 0] = 20 * np.arange(length)[:, None, None, None]
    frames[..., 1], frames[..., 2] = 100, colour
    facts = {
        "key": key, "task": "drawer-open", "instruction": "open the drawer",
        "views": ("front", "wrist"), "frames": frames,
        "poses": np.zeros((length, 4), np.float32),
        "actions": np.zeros((length - 1, 3, 4), np.float32),
        "extra": {"world": "imagination", "policy": "clever", "start_id": "drawer-open/7"},
    }  # fmt: skip
    return Episode(**(facts | changes))  # type: ignore[arg-type]
