"""Overview: the evaluations found, live while they run, and the ranking of one of them."""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections.abc import Iterator
from dataclasses import fields

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from worldeval.reports.markup import escape
from worldeval.reports.ranking.page import preload

from ..boards import Boards
from ..context import Context
from ..pieces import choice, nothing, when
from ..query import Query
from ..records import Rollout, Run
from ..selection import selected
from ..state import State
from . import pane

TITLE = "Overview"
_PAGE = 5000
_LIVE_S = 180.0
"""An evaluation that has grown within so many seconds is called running."""


def build(context: Context) -> None:
    pane("overview")


def routes(context: Context) -> APIRouter:
    router, boards = APIRouter(), Boards(context)
    context.before_serving.append(preload)

    @router.get("/pane/overview", response_class=HTMLResponse)
    def overview(request: Request) -> str:
        state, runs = State.of(request), context.index.runs()
        if not runs:
            return nothing(context)
        chosen = context.run(state["run"]) if state["run"] else runs[0]
        return f"{_runs(state, runs, chosen)}{_chosen(context, state, chosen)}"

    @router.get("/part/board")
    def board(request: Request) -> JSONResponse:
        state = State.of(request)
        run = context.run(state["run"])
        found, busy = boards.get(run, state["task"])
        html = "" if found is None else found.html
        if found is not None and found.note:
            html = f'<p class="we-empty">{escape(found.note)}</p>'
        policies = [] if found is None else list(found.policies)
        return JSONResponse({"html": html, "busy": busy, "policies": policies, "run": run.id})

    @router.get("/table.csv")
    def table(request: Request) -> StreamingResponse:
        state = State.of(request)
        query, run = selected(state), state["run"] or None
        headers = {"Content-Disposition": 'attachment; filename="rollouts.csv"'}
        lines = _csv(context, query, run)
        # The first page before the answer begins: an index that is down is still an error then.
        whole = itertools.chain([next(lines)], lines)
        return StreamingResponse(whole, media_type="text/csv; charset=utf-8", headers=headers)

    @router.get("/status")
    def status() -> dict[str, object]:
        runs = context.index.runs()
        running = [run for run in runs if _is_running(run)]
        return {
            "version": context.index.version(),
            "text": f"{len(running)} running" if running else "",
        }

    return router


def _is_running(run: Run) -> bool:
    return time.time() - run.changed < _LIVE_S and not 0 < run.expected <= run.rollouts


def _runs(state: State, runs: list[Run], chosen: Run) -> str:
    rows = ""
    for run in runs:
        name = state.link(escape(run.name), run=run.id, task=None, q=None)
        live = '<span class="we-live">running</span>' if _is_running(run) else ""
        note = (
            f'<span class="we-odd" title="{escape(run.note)}">see note</span>' if run.note else ""
        )
        current = ' aria-current="true"' if run.id == chosen.id else ""
        rows += (
            f"<tr{current}><td>{name} {live} {note}</td><td class=num>{run.policies}</td>"
            f"<td class=num>{_progress(run)}</td><td class=num>{run.judged}</td>"
            f"<td>{escape(when(run.changed))}</td></tr>"
        )
    heads = "<th>Evaluation</th><th class=num>Policies</th><th class=num>Rollouts</th>"
    heads += "<th class=num>Judged</th><th>Last change</th>"
    many = " we-many" if len(runs) > 6 else ""
    return (
        f'<section class="we-card we-runs{many}"><div class="we-scroll"><table class="we-table">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _progress(run: Run) -> str:
    if not run.expected or run.rollouts >= run.expected:
        return str(run.rollouts)
    share = run.rollouts / run.expected
    return f'<progress value="{share:.3f}"></progress> {run.rollouts} of {run.expected}'


def _chosen(context: Context, state: State, run: Run) -> str:
    tasks = [name for name, _ in context.index.names("task", run=run.id)]
    options = [("", "all tasks"), *((name, name) for name in tasks)]
    browse = state.link(
        "Browse its rollouts", classes="we-button", tab="browse", run=run.id, q=None, task=None
    )
    download = f"inspector/table.csv?run={run.id}"
    note = f'<p class="we-error">{escape(run.note)}</p>' if run.note else ""
    pace = context.index.pace(run)
    waiting = f'<p class="we-note">{escape(pace)}</p>' if pace and _is_running(run) else ""
    return (
        f'<div class="we-title"><h2>{escape(run.name)}</h2><nav>{browse}'
        f'<a class="we-button" href="{escape(download)}" download>Download as CSV</a></nav></div>'
        f"{waiting}{note}"
        '<form class="we-filters" data-go><input type="hidden" name="tab" value="overview">'
        f'<input type="hidden" name="run" value="{run.id}">'
        f"{choice('task', 'Task', options, state['task'])}</form>"
        f'<div class="we-board" data-run="{run.id}" data-task="{escape(state["task"])}">'
        '<p class="we-wait" role="status">Ranking the policies: comparing all pairs …</p></div>'
    )


_SAFE = ("=", "+", "-", "@", "\t", "\r")


def _csv(context: Context, query: Query, run: str | None) -> Iterator[str]:
    """A line per rollout. Text that a spreadsheet would take for a formula gets a mark before."""
    names = [field.name for field in fields(Rollout) if field.name != "store"]
    first = 0
    while True:
        page = context.index.rollouts(query, run=run, first=first, count=_PAGE)
        text = io.StringIO()
        writer = csv.writer(text)
        if first == 0:
            writer.writerow(names)
        for rollout in page:
            cells = [getattr(rollout, name) for name in names]
            writer.writerow(
                f"'{c}" if isinstance(c, str) and c.startswith(_SAFE) else c for c in cells
            )
        yield text.getvalue()
        first += len(page)
        if len(page) < _PAGE:
            return
