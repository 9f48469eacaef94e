"""Leaderboards as HTML, made in the background and kept until the evaluation changes.

A ranking of a thousand rollouts takes seconds (tests of all pairs, its own stability), so nobody
waits for it in a request: who asks too early is told that it is being made.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from worldeval import Evaluation, WorldEvalError
from worldeval.reports.ranking.page import ranking_html

from .context import Context
from .records import Run, identifier

MOST_KEPT = 64


@dataclass(frozen=True, kw_only=True)
class Board:
    """A ranking that is made. html is empty where there is none; then ``note`` says why."""

    html: str
    note: str
    policies: tuple[str, ...]
    """In the order of the ranking."""


class Boards:
    """The rankings of a context's evaluations."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._made: dict[str, Future[Board]] = {}
        self._last: dict[tuple[str, str], Board] = {}
        self._lock = threading.Lock()
        # One after another: two would only slow each other down.
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="ranking")

    def get(self, run: Run, task: str = "") -> tuple[Board | None, bool]:
        """The newest ranking that there is, and whether a newer one is being made.

        task: of the start states of one task alone.
        """
        name = identifier(run.id, run.changed, run.rollouts, run.judged, run.stamp, task)
        with self._lock:
            future = self._made.get(name)
            if future is None:
                while len(self._made) >= MOST_KEPT:
                    self._made.pop(next(iter(self._made)))
                future = self._workers.submit(self._make, run, task, name)
                self._made[name] = future
        if future.done():
            self._last[run.id, task] = future.result()
            return future.result(), False
        return self._last.get((run.id, task)), True

    def _make(self, run: Run, task: str, name: str) -> Board:
        file = self.context.cache / "boards" / f"{name}.json"
        try:
            return Board(**_read(json.loads(file.read_text("utf-8"))))
        except (OSError, ValueError, TypeError, KeyError):
            pass
        try:
            board = self._rank(self.context.evaluation(run), run, task)
        except WorldEvalError as error:
            return Board(html="", note=str(error), policies=())
        except Exception as error:  # a spoilt table shall not end the page
            return Board(html="", note=f"{type(error).__name__}: {error}", policies=())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(vars(board)), "utf-8")
        return board

    def _rank(self, evaluation: Evaluation, run: Run, task: str) -> Board:
        if not run.judged:
            if run.decided:
                return Board(html="", note="", policies=())
            return Board(
                html="",
                note=f"No judge has looked at these rollouts; run `worldeval judge {run.folder}`.",
                policies=(),
            )
        if task:
            starts = self.context.index.starts(run=run.id, task=task)
            evaluation = evaluation.only(starts)
        board = evaluation.leaderboard()
        names = tuple(row.name for row in board.policies)
        return Board(html=ranking_html(board), note="", policies=names)


def _read(found: Any) -> dict[str, Any]:
    return {"html": found["html"], "note": found["note"], "policies": tuple(found["policies"])}
