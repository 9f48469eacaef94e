"""How far a run is, for whoever looks from outside: a small file that is renewed every few seconds.

Enters: a ``Progress``. Leaves: ``.progress-NAME.json`` in the run's folder, one for each machine
that works on it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldeval.data.files import load_json
from worldeval.data.provenance import write_atomically
from worldeval.errors import ConfigError, StoreError
from worldeval.rollout.progress import Progress
from worldeval.settings import settings_from

EVERY_S = 2.0
SILENT_S = 60.0
"""A machine that said nothing for so long (and is not this one) is taken to have stopped."""


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What one machine says. Times are seconds since 1970; made: rollouts of this run."""

    name: str
    host: str
    pid: int
    began: float
    now: float
    made: int
    done: int
    total: int
    doing: str
    workers: int
    ended: bool
    price_per_hour: float | None = None

    @property
    def id(self) -> str:
        """Of the process, from its first beat to its last."""
        return f"{self.host}-{self.pid}-{self.began!r}"

    @property
    def at_work(self) -> bool:
        """Whether it still is, as far as can be seen from here."""
        if self.ended:
            return False
        if self.host == socket.gethostname():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except OSError:
                return True
            return True
        return time.time() - self.now < SILENT_S


class Heart:
    """Writes the beats of one run. A disk that refuses costs nothing but the news."""

    def __init__(self, folder: Path, name: str, workers: int, price_per_hour: float | None) -> None:
        self._path = folder / f".progress-{name}.json"
        self._fixed: Mapping[str, Any] = {
            "name": name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began": time.time(),
            "workers": workers,
            "price_per_hour": price_per_hour,
        }
        self._last = 0.0

    def beat(self, progress: Progress, *, ended: bool = False) -> None:
        now = time.time()
        if not ended and now - self._last < EVERY_S:
            return
        self._last = now
        beat = self.last(progress, ended=ended)
        try:
            write_atomically(self._path, json.dumps(asdict(beat)) + "\n")
        except StoreError:
            return

    def last(self, progress: Progress, *, ended: bool = True) -> Beat:
        """What it would say now."""
        return Beat(
            **self._fixed,
            now=time.time(),
            made=progress.made,
            done=progress.done,
            total=progress.total,
            doing=progress.name,
            ended=ended,
        )


def beats(folder: Path) -> list[Beat]:
    """What every machine said last; files that are none of ours are left out."""
    found = []
    for path in sorted(folder.glob(".progress-*.json")):
        try:
            found.append(settings_from(Beat, load_json(path)))
        except (OSError, ValueError, ConfigError):
            continue
    return found
