"""What every way of having workers offers: the local processes' and Ray's.

Enters: numbers of workers to begin, units for them. Leaves: ``Event``s, as they happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from worldeval.evaluation.execution.schedule import Unit
from worldeval.evaluation.execution.worker import Result


@dataclass(frozen=True, kw_only=True)
class Event:
    """Of worker ``number``: it is ready for its first unit, made ``frames`` more, came back with
    the ``result`` of its unit, or died (``why``; with an ``error``, nobody can take its place;
    ``machine``: with the machine on which it was, so that its unit has no part in it)."""

    number: int
    kind: Literal["ready", "frames", "result", "died"]
    frames: int = 0
    result: Result | None = None
    why: str = ""
    error: Exception | None = None
    machine: bool = False


class Executor(Protocol):
    """Workers by number. Each has one unit at a time."""

    def begin(self, number: int) -> None:
        """Have a worker of this number, in the place of one that died too."""

    def give(self, number: int, unit: Unit) -> None:
        """Hand a unit to a worker that has none."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """What happened, as soon as anything did, after ``seconds`` at most."""

    def end(self, *, at_once: bool) -> None:
        """End all workers; at once: without waiting for what they are about."""
