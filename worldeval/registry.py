"""What is named by text: "module:attr", an entry point of another package, a nearly right name.

Enters: the text that a user wrote. Leaves: the thing itself, or a ConfigError that says what was
given and what there is. Other packages add things in their ``pyproject.toml``, under
``[project.entry-points."worldeval.KIND"]`` with a KIND of ``KINDS``; nothing is imported before it
is asked for by its name.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from worldeval.errors import ConfigError

KINDS = ("policies", "judges", "worlds", "robots", "readers")


def entries(kind: str) -> dict[str, EntryPoint]:
    """Name -> entry point of what other packages register for ``kind``, sorted by name."""
    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}, expected one of {KINDS}{did_you_mean(kind, KINDS)}")
    found = sorted(entry_points(group=f"worldeval.{kind}"), key=lambda entry: entry.name)
    return {entry.name: entry for entry in found}


def registered(kind: str, name: str) -> Any | None:
    """What another package registered as ``name``; None if no package did.

    Raises ConfigError, naming the package's own error, where it cannot be imported.
    """
    entry = entries(kind).get(name)
    if entry is None:
        return None
    return _guarded(entry.load, f"{name!r}, registered as {entry.value!r} for worldeval.{kind},")


def is_attribute(text: str) -> bool:
    """Whether ``text`` has the form "module:attr" of Python names (and is no URL, no drive)."""
    module, colon, attribute = text.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(name.isidentifier() for name in names)


def attribute(text: str) -> Any:
    """What "module:attr" names (attr may have dots); the module is installed, or a file of the
    working folder. Raises ConfigError if there is none."""
    if not is_attribute(text):
        raise ConfigError(f"{text!r} names no Python value, expected package.module:name")
    module, _, path = text.partition(":")
    value = _guarded(lambda: _module(module), f"{text!r}: module {module!r}")
    for name in path.split("."):
        if not hasattr(value, name):
            known = [n for n in dir(value) if not n.startswith("_")]
            raise ConfigError(f"{text!r}: {module!r} has no {name!r}{did_you_mean(name, known)}")
        value = getattr(value, name)
    return value


def _module(name: str) -> ModuleType:
    """The module of a full name; the working folder is looked through last."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        return importlib.import_module(name)
    finally:
        if here in reversed(sys.path):
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` for a name that is nearly a known one, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _guarded(load: Callable[[], Any], what: str) -> Any:
    try:
        return load()
    except Exception as error:  # a stranger's module may raise anything while it is imported
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{what} cannot be imported ({said}); mend or install it") from error
