"""The inspector's scripts before Gradio's: what is first seen is fetched while Gradio begins.

Gradio adds its ``head`` to the page by a script of its own, when all its tabs are made: a third of
the time until something is seen. An ASGI middleware puts lines into the page itself instead.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from .guard import App, Receive, Scope, Send

BEFORE = b"<script"
"""The lines go before the first script of the page, behind its <base>."""


class Early:
    """app: what makes the page at "/". head: lines for it."""

    def __init__(self, app: App, head: str) -> None:
        self.app, self.head = app, head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = scope.get("path", "").removeprefix(scope.get("root_path") or "")
        if scope["type"] != "http" or scope["method"] != "GET" or inner.strip("/"):
            await self.app(scope, receive, send)
            return
        # Not compressed, so that it can be added to.
        headers = [(n, v) for n, v in scope["headers"] if n.lower() != b"accept-encoding"]
        begin: MutableMapping[str, Any] = {}
        body = b""

        async def added(message: MutableMapping[str, Any]) -> None:
            nonlocal begin, body
            if message["type"] == "http.response.start":
                begin = message
                return
            if message["type"] != "http.response.body":
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            whole = body.replace(BEFORE, self.head + BEFORE, 1)
            length = (b"content-length", str(len(whole)).encode())
            others = [h for h in begin["headers"] if h[0].lower() != length[0]]
            await send({**begin, "headers": [*others, length]})
            await send({"type": "http.response.body", "body": whole})

        await self.app({**scope, "headers": headers}, receive, added)
