"""One name, one world. No simulator is imported until it is asked for.

Enters: ``metaworld``, ``toy``, ``gym:ID?name=value`` (``environment.py``), ``ws://HOST:PORT``
(``served.py``), ``recorded:STORE`` (``recorded.py``), the name of another package's entry point
``worldeval.worlds``, or "module:attr": a world, or a class or function that makes one without
arguments. Leaves: an open ``types.World``. Imagination needs more than a name:
``evaluation/opening.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from worldeval import registry
from worldeval.errors import ConfigError, WorldEvalError
from worldeval.robots import RobotSpec
from worldeval.types import World

OWN = {"metaworld": "metaworld:MetaWorld", "toy": "toy:ToyWorld"}
"""Name -> module and class of worldeval's own."""
SCHEMES = {
    "gym": "environment:load",
    "recorded": "recorded:load",
    "ws": "served:load",
    "wss": "served:load_tls",
}
"""Scheme -> module and function that makes a world of what stands behind it."""
_METHODS = ("reset", "step", "close")


def load_world(name: str, *, beside: tuple[str, ...] = ()) -> World:
    """The world that ``name`` names.

    beside: names that the caller knows besides, for the sentence. Raises ConfigError for an unknown
    name, and for a value that is no world.
    """
    if name in OWN:
        module, _, kind = OWN[name].partition(":")
        world: World = getattr(import_module(f"worldeval.worlds.{module}"), kind)()
        return world
    scheme, colon, rest = name.partition(":")
    if colon and scheme in SCHEMES:
        module, _, function = SCHEMES[scheme].partition(":")
        made: World = getattr(import_module(f"worldeval.worlds.{module}"), function)(rest)
        return made
    value = registry.registered("worlds", name)
    if value is None and registry.is_attribute(name):
        value = registry.attribute(name)
    if value is None:
        known = (*beside, *OWN, *(f"{one}:" for one in SCHEMES), *registry.entries("worlds"))
        raise ConfigError(
            f"there is no world {name!r}{registry.did_you_mean(name, known)}; known are "
            f"{', '.join(known)}, or give module:attr of one"
        )
    return _world(value, name)


def where_of(name: str) -> str | None:
    """The module that a world of another package comes from; None for worldeval's own."""
    if name in OWN or name.partition(":")[0] in SCHEMES:
        return None
    entry = registry.entries("worlds").get(name)
    where = name if entry is None else entry.value
    return where.partition(":")[0].strip()


def _world(value: Any, name: str) -> World:
    made = _made(value, name) if isinstance(value, type) or not _is_world(value) else value
    if not _is_world(made):
        missing = [part for part in ("name", "robot", *_METHODS) if not hasattr(made, part)]
        wrong = f"no {missing[0]}" if missing else f"robot {made.robot!r}"
        raise ConfigError(
            f"world {name!r} is a {type(made).__name__} with {wrong}, expected a name, a robot "
            "(RobotSpec), reset, step and close; see worldeval.types.World"
        )
    world: World = made
    return world


def _made(make: Callable[[], Any], name: str) -> Any:
    if not callable(make):
        return make
    try:
        return make()
    except WorldEvalError:
        raise
    except Exception as error:  # a stranger's world may raise anything
        raise ConfigError(
            f"world {name!r} cannot be made: {type(error).__name__}: {error}; it is called without "
            "arguments"
        ) from error


def _is_world(value: Any) -> bool:
    return (
        isinstance(getattr(value, "robot", None), RobotSpec)
        and isinstance(getattr(value, "name", None), str)
        and all(callable(getattr(value, method, None)) for method in _METHODS)
    )
