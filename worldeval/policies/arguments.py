"""The arguments after ``?`` in a policy's URI: read, named, and of the kind that is expected.

Enters: ``HEAD?name=value&name=value`` and what will be called with them. Leaves: keyword arguments,
or ConfigError naming the one that does not fit. What kind is expected is said by annotations
(``speed: float``, ``execute: int | None``); an argument without one takes what it is given.
"""

from __future__ import annotations

import inspect
import json
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from worldeval.errors import ConfigError

KINDS: dict[type, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}
"""Kinds that are checked, in words; where an annotation names others, nothing is."""


@dataclass(frozen=True)
class Argument:
    """One argument: its text, and its value where the text is JSON (the text where not)."""

    text: str
    value: Any


def split_arguments(uri: str, what: str = "policy") -> tuple[str, dict[str, Argument]]:
    """What stands before the ``?`` of a URI, and the arguments after it.

    what: what the URI names, for messages.
    """
    head, _, query = uri.partition("?")
    arguments: dict[str, Argument] = {}
    for pair in filter(None, query.split("&")):
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(
                f"{what} {uri!r}: cannot read {pair!r}, expected name=value pairs "
                "joined by & after ?"
            )
        text = unquote(text)
        try:
            arguments[name] = Argument(text, json.loads(text))
        except (ValueError, RecursionError):
            arguments[name] = Argument(text, text)
    return head, arguments


def values_for(
    target: Callable[..., Any], arguments: dict[str, Argument], uri: str, what: str = "policy"
) -> dict[str, Any]:
    """The values to call ``target`` with; ConfigError for one of another kind than annotated."""
    annotated = annotations_of(target) if arguments else {}
    return {
        name: _fitted(name, argument, _kinds(annotated.get(name)), f"{what} {uri!r}")
        for name, argument in arguments.items()
    }


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a class's or function's parameters; none where they cannot be read."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except Exception:  # a stranger's annotations may name what cannot be imported
        return {}


def _kinds(annotation: Any) -> tuple[type, ...]:
    """The kinds that an annotation allows; () where it says nothing that could be checked."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = typing.get_args(annotation) if union else (annotation,)
    return kinds if all(isinstance(k, type) and k in KINDS for k in kinds) else ()


def _fitted(name: str, argument: Argument, kinds: tuple[type, ...], whose: str) -> Any:
    value = argument.value
    if not kinds or type(value) in kinds and not (isinstance(value, float) and math.isnan(value)):
        return value
    if type(value) is int and float in kinds:
        return value
    if str in kinds:  # name=7 is a name of one digit
        return argument.text
    expected = " or ".join(words for kind, words in KINDS.items() if kind in kinds)
    raise ConfigError(f"{whose}: {name} is {value!r}, expected {expected}")
