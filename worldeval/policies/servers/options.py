"""The keywords that the URI of every server may have, at one place.

Enters: a loader of one scheme with keywords of its own, ``load(rest, robot, connecting, *, ...)``.
Leaves: what a URI calls, ``load(rest, robot, *, ...)`` with the loader's keywords and those of
``Connecting``, by name and kind, so that a misspelt one is told.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from worldeval.policies.servers.link import ServerSettings, key_of

P = TypeVar("P")


@dataclass(frozen=True, kw_only=True)
class Connecting:
    """How a server is reached; ``ServerSettings`` says what each means.

    api_key_env: variable of the environment that holds the key; a URI is written into the record of
    every run, so a key has no place in it.
    """

    api_key_env: str | None = None
    connections: int = 4
    timeout_s: float = 120.0
    wait_s: float = 0.0
    reconnect_s: float = 120.0

    def settings(self, url: str, uri: str) -> ServerSettings:
        """Of the server at ``url``, which ``uri`` names."""
        values = dataclasses.asdict(self)
        return ServerSettings(url=url, api_key=key_of(values.pop("api_key_env"), uri), **values)


def connecting(load: Callable[..., P]) -> Callable[..., P]:
    """``load`` with the keywords of ``Connecting`` beside its own."""
    fields = dataclasses.fields(Connecting)
    names = [field.name for field in fields]
    own = [p for p in inspect.signature(load).parameters.values() if p.name != "connecting"]
    shared = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
        )
        for f in fields
    ]

    @functools.wraps(load)
    def loader(rest: str, robot: Any, **keywords: Any) -> P:
        given = {name: keywords.pop(name) for name in names if name in keywords}
        return load(rest, robot, Connecting(**given), **keywords)

    loader.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    loader.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    return loader
