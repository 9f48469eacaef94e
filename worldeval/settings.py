"""A dataclass from what stood in a file: every field of the kind that it is declared to be.

Enters: a dataclass and a JSON object (or keyword arguments). Leaves: an instance, lists turned into
tuples and inner objects into their own dataclasses; or a ConfigError that names the field, what was
given and what is expected. Dataclasses check their values in ``__post_init__``; that they are
numbers at all, and not text or true, is checked here, once for all of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from worldeval.errors import ConfigError

T = TypeVar("T")
SHOWN = 60
"""Characters of a wrong value that are shown."""


def settings_from(cls: type[T], values: Any, where: str = "", *, whole: bool = False) -> T:
    """``cls(**values)`` once every value is of the kind that ``cls`` declares for it.

    where: what stands before a field's name in messages, such as "network.". whole: fields with a
        default must be given too, where the default would be another result.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'it'} is {_show(values)}, expected an object")
    kinds = _kinds(cast(Any, cls))
    for name in values:
        if name not in kinds:
            close = difflib.get_close_matches(str(name), kinds, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(f"unknown setting {where + str(name)!r}{hint}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.name not in values and (whole or f.default is dataclasses.MISSING is f.default_factory)
    ]
    if missing:
        raise ConfigError(f"{where + missing[0]} is missing")
    return cls(**{name: _value(values[name], kinds[name], where + name) for name in values})


@cache
def _kinds(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _value(value: Any, kind: Any, name: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        choices = get_args(kind)
        if value is None and type(None) in choices:
            return None
        for choice in choices:
            if choice is not type(None):
                return _value(value, choice, name)
    if origin is Literal:
        if value not in get_args(kind):
            raise _wrong(name, value, f"one of {get_args(kind)}")
        return value
    if origin is tuple:
        return _tuple(value, get_args(kind), name)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else settings_from(kind, value, f"{name}.")
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind is bool and type(value) is not bool:
        raise _wrong(name, value, "true or false")
    if kind is int and type(value) is not int:
        raise _wrong(name, value, "a whole number")
    if kind is float and not _is_number(value):
        raise _wrong(name, value, "a finite number")
    if kind is str and type(value) is not str:
        raise _wrong(name, value, "text")
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(name, value, "an object")
        return {
            key: _value(item, get_args(kind)[1], f"{name}.{key}") for key, item in value.items()
        }
    return value


def _tuple(value: Any, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong(name, value, "a list")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _wrong(name, value, f"a list of {len(kinds)}")
    pairs = zip(value, kinds, strict=True)
    return tuple(_value(item, kind, f"{name}[{i}]") for i, (item, kind) in enumerate(pairs))


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer of 400 digits
        return False


def _wrong(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{name} is {_show(value)}, expected {expected}")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
