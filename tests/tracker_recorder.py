"""A tracker that remembers what it is given, and fails or stalls when it is told to."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

STALL = threading.Event()
"""Set it to let those go on that stall."""


def recorder(
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    *,
    failing_at: int | None = None,
    stalling_at: int | None = None,
) -> list[Any]:
    """Put it in the place of a library; what it was called with. failing_at: the call (from 0)."""
    calls: list[Any] = []

    def called(what: Any) -> None:
        if len(calls) == failing_at:
            raise OSError("no space left on the tracker's disk")
        if len(calls) == stalling_at:
            STALL.wait(60)
        calls.append(what)

    def film(path: str, format: str) -> tuple[str, int]:
        return format, Path(path).stat().st_size

    def table(columns: list[str], data: list[list[Any]]) -> list[dict[str, Any]]:
        return [dict(zip(columns, row, strict=True)) for row in data]

    def log(row: dict[str, Any], step: int) -> None:
        called((step, row))

    def init(**options: Any) -> types.SimpleNamespace:
        called(options)
        return types.SimpleNamespace(log=log)

    module = types.ModuleType(library)
    module.__spec__ = importlib.machinery.ModuleSpec(library, None)
    found: Any = module
    found.init, found.Video, found.Table = init, film, table
    found.finish = lambda: called("finished")
    monkeypatch.setitem(sys.modules, library, module)
    return calls
