"""What judges think of a rollout frame by frame: probability of success, progress.

Enters: an episode (``media.Shown``) and the judges that who starts the server has named; nothing in
a run folder names one. Leaves: curves, events and notes as the player shows them, computed in the
background when somebody looks, and kept in the cache.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from worldeval import Judge, WorldEvalError, load_judge, rollout_curves

from .context import Watching
from .media import Shown
from .records import identifier
from .timeline import curve, event

MOST_WAITING = 64
"""Rollouts; who asks beyond them asks again later."""
GROUPS = {"judge": "probability", "progress": "progress"}
"""Folder of a curve's path -> group of the player; trust is shown by ``timeline.py``."""


class Curves:
    """Those of one server. cache: folder in which they are kept."""

    def __init__(self, watching: Watching, cache: Path) -> None:
        self.watching, self.cache = watching, cache / "curves"
        self._judges: tuple[Judge | None, Judge | None] | None = None
        self._made: dict[str, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        # One after another: a judge uses what cores there are.
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="curves")

    def get(self, what: Shown) -> dict[str, Any] | None:
        """curves, events and notes of an episode; None while they are being made."""
        file = self.cache / f"{self._name(what)}.json"
        try:
            kept: dict[str, Any] = json.loads(file.read_text("utf-8"))
            return kept
        except (OSError, ValueError):
            pass
        with self._lock:
            future = self._made.get(file.name)
            if future is None and len(self._made) < MOST_WAITING:
                future = self._made[file.name] = self._workers.submit(self._make, what, file)
            if future is None or not future.done():
                return None
            del self._made[file.name]  # it lies in the cache, or is tried again
        return future.result()

    def load(self) -> None:
        """Load the judges before they are asked. What cannot be loaded is told beside a rollout."""
        with suppress(Exception):
            self._workers.submit(self._loaded).result()

    def _loaded(self) -> tuple[Judge | None, Judge | None]:
        if self._judges is None:
            given = self.watching.judge, self.watching.progress
            judge, progress = (None if place is None else load_judge(place) for place in given)
            self._judges = judge, progress
        return self._judges

    def _name(self, what: Shown) -> str:
        """Another one for another rollout, verdict or judge."""
        known = what.rollout
        verdict = None if known is None else (known.judge, known.outcome, known.probability)
        return identifier(what.version, verdict, *map(_stamp, vars(self.watching).values()))

    def _make(self, what: Shown, file: Path) -> dict[str, Any]:
        try:
            made = self._ask(what)
            self.cache.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.cache)
            with os.fdopen(handle, "w", encoding="utf-8") as temporary:
                json.dump(made, temporary)
            os.replace(name, file)
            return made
        except (WorldEvalError, OSError) as error:
            return {"curves": [], "events": [], "notes": [str(error)]}
        except Exception as error:  # a spoilt film or table shall not end the page
            return {"curves": [], "events": [], "notes": [f"{type(error).__name__}: {error}"]}

    def _ask(self, what: Shown) -> dict[str, Any]:
        judge, progress = self._loaded()
        episode = what.store.episode(what.episode)
        known = rollout_curves(what.store, episode, judge=judge, progress=progress)
        curves = []
        for path, numbers in known.curves.items():
            folder, _, name = path.partition("/")
            if folder in GROUPS:
                curves.append(curve(GROUPS[folder], name, numbers.at, numbers.values))
        events = [event(e.frame, e.kind, e.text) for e in known.events if e.kind == "judge"]
        here, short = str(what.store.root), _short(what.store.root)
        notes = [note.replace(here, short) for note in known.notes]
        return {"curves": curves, "events": events, "notes": notes}


def _short(folder: Path) -> str:
    """As a visitor may read it: from where the server was started, else its last two names alone,
    for where the files of this machine lie is nobody's business."""
    relative = os.path.relpath(folder)
    return "/".join(folder.parts[-2:]) if relative.startswith("..") else relative


def _stamp(place: Path | None) -> str:
    """Changes with a checkpoint."""
    if place is None:
        return ""
    try:
        return f"{place} {max(file.stat().st_mtime_ns for file in place.iterdir())}"
    except (OSError, ValueError):
        return str(place)
