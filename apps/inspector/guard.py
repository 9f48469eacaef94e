"""What stands before every route: who may come in, from where, with how much, and how it answers.

An ASGI middleware: a password (``--auth``), only hosts by which the server is known (so that no
foreign page can reach a loopback server by a name of its own), no writing from other origins, no
large bodies, a visitor's cookie, and headers that keep the browser from doing what nobody asked.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "worldeval_visitor"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BYTES = 2 * 2**20
"""Of one request's body."""
UPLOAD = "gradio_api/upload"
"""Gradio's route for files, of which no tab asks for any: many small ones would fill the disk."""
# Gradio's own page has inline scripts and styles. Nothing is loaded from elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def visitor(request: Request) -> str:
    """A name for this browser that no other knows: whose live world, whose turn in a queue."""
    return str(request.scope["worldeval.visitor"])


class Guard:
    """auth: (user, password) or None. hosts: names of this server; None where any will do."""

    def __init__(
        self,
        app: App,
        *,
        auth: tuple[str, str] | None = None,
        hosts: tuple[str, ...] | None = LOOPBACK,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.app, self.auth, self.hosts, self.most_bytes = app, auth, hosts, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): v for name, v in reversed(scope["headers"])}
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(scope, send, *refused)
            return
        name = _visitor_of(headers)
        scope["worldeval.visitor"] = name or secrets.token_urlsafe(24)
        taken = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most_bytes:
                raise TooMuchError
            return message

        began = cut_off = False

        async def answered(message: MutableMapping[str, Any]) -> None:
            nonlocal began, cut_off
            if cut_off or (taken > self.most_bytes and not began):
                # Whatever the app makes of the body that broke off, the browser is told why.
                if not cut_off:
                    cut_off = True
                    await _answer(scope, send, 413, self._too_much())
                return
            if message["type"] == "http.response.start":
                began = True
                own = {n.lower() for n, _ in message.get("headers", ())}
                extra = [h for h in HEADERS if h[0] not in own]
                if name is None:
                    root = scope.get("root_path") or "/"
                    cookie = f"{COOKIE}={scope['worldeval.visitor']}; Path={root}; HttpOnly; "
                    extra.append((b"set-cookie", f"{cookie}SameSite=Strict".encode("latin-1")))
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        try:
            await self.app(scope, counted, answered)
        except TooMuchError:
            if not began and not cut_off:
                await _answer(scope, send, 413, self._too_much())

    def _too_much(self) -> str:
        return f"this is larger than {self.most_bytes // 2**20} MiB, the most that is taken"

    def _refused(self, scope: Scope, headers: dict[str, bytes]) -> tuple[int, str] | None:
        """Status and sentence, where the request goes no further."""
        host = headers.get("host", b"").decode("latin-1")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 400, "this server is not known by that name; start it with --host"
        if UPLOAD in str(scope.get("path", "")):
            return 403, "nothing is uploaded here"
        if self.auth is not None and not self._known(headers.get("authorization", b"")):
            return 401, "a user name and a password are needed"
        method = scope.get("method", "GET")
        if method not in ("GET", "HEAD", "OPTIONS") or scope["type"] == "websocket":
            origin = headers.get("origin", b"").decode("latin-1")
            if origin and urlsplit(origin).netloc != _forwarded(headers, host):
                return 403, "this was sent by a page of another server"
        if (length := headers.get("content-length", b"0")).isdigit() and int(
            length
        ) > self.most_bytes:
            return 413, self._too_much()
        return None

    def _known(self, given: bytes) -> bool:
        assert self.auth is not None
        kind, _, words = given.partition(b" ")
        try:
            told = base64.b64decode(words, validate=True)
        except (binascii.Error, ValueError):
            return False
        wanted = ":".join(self.auth).encode()
        return kind.lower() == b"basic" and hmac.compare_digest(told, wanted)


class TooMuchError(Exception):
    """A body grew beyond what is taken."""


def _name(host: str) -> str:
    """Without the port; "[::1]:80" is "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _forwarded(headers: dict[str, bytes], host: str) -> str:
    """The host that the browser named, also behind a proxy."""
    return headers.get("x-forwarded-host", host.encode("latin-1")).decode("latin-1")


def _visitor_of(headers: dict[str, bytes]) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", b"").decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    plain = found is not None and 20 <= len(found.value) <= 64 and found.value.isascii()
    return found.value if found is not None and plain else None


async def _answer(scope: Scope, send: Send, status: int, sentence: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="worldeval", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})
