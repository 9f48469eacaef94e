"""Modules that lie beside a policy's file: found in its calls, and nobody else's.

Enters: the folder of ``python:FILE.py:CLASS`` (of ``python:package.module:factory``, the working
folder). Leaves: imports as under ``python FILE.py``, also those that run late, inside ``act``. Two
policies may each have a ``settings.py``: what one of them imports from a folder of its own is taken
out of ``sys.modules`` after each call and put in again before its next.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


class Neighbours:
    """The modules of one policy, and the folders on ``sys.path`` in which they are found."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = None if folder is None else os.path.realpath(folder)
        self._names = _importable(self._folder) if self._folder else frozenset()
        self._paths = [self._folder] if self._folder else []
        self._modules: dict[str, ModuleType] = {}

    @contextmanager
    def in_reach(self) -> Iterator[None]:
        """The policy's modules can be imported inside, and are gone outside."""
        paths = list(sys.path)
        others = self._hide()
        sys.modules.update(self._modules)
        count = len(sys.modules)
        sys.path[:0] = self._paths
        try:
            yield
        finally:
            added = [place for place in sys.path if place not in paths]
            if self._folder is not None and self._folder not in added:
                self._paths = [self._folder, *added]
            else:
                self._paths = added
            sys.path[:] = paths
            if len(sys.modules) != count:
                self._take(frozenset(map(os.path.realpath, added)))
            for name in self._modules:
                sys.modules.pop(name, None)
            sys.modules.update(others)

    def add(self, module: ModuleType) -> None:
        """``module`` is the policy's own; called while its modules are in reach."""
        self._modules[module.__name__] = sys.modules[module.__name__] = module

    def _hide(self) -> dict[str, ModuleType]:
        """Take modules of the same names as the neighbours, but from elsewhere, out of the way."""
        names = {
            name
            for name in self._names
            if name in sys.modules and _home(sys.modules[name]) != self._folder
        }
        if not names:
            return {}
        hidden = [name for name in sys.modules if name.partition(".")[0] in names]
        return {name: sys.modules.pop(name) for name in hidden}

    def _take(self, places: frozenset[str]) -> None:
        """The modules that came from the policy's own folders are its own."""
        for name, module in list(sys.modules.items()):
            if name in self._modules:
                continue
            first = name.partition(".")[0]
            top = sys.modules.get(first)
            if top is not None and first != "worldeval" and _home(top) in places:
                self._modules[name] = module


def _home(module: ModuleType) -> str | None:
    """The folder on ``sys.path`` in which a module of the first level lies."""
    try:
        places = list(getattr(module, "__path__", ()))
        file = places[0] if places else getattr(module, "__file__", None)
    except Exception:  # some modules answer attributes in ways of their own
        return None
    return os.path.realpath(os.path.dirname(file)) if isinstance(file, str) else None


def _importable(folder: str) -> frozenset[str]:
    """Names of the modules in ``folder`` that may stand for others, as ``python`` has it; the
    standard library and worldeval are in use and are never replaced."""
    names = set()
    try:
        for entry in os.scandir(folder):
            if entry.name.endswith(".py"):
                names.add(entry.name[: -len(".py")])
            elif os.path.isfile(os.path.join(entry.path, "__init__.py")):
                names.add(entry.name)
    except OSError:
        return frozenset()
    return frozenset(names - sys.stdlib_module_names - {"worldeval"})
