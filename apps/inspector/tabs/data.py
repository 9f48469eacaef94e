"""Data: what was synthesised, and why the rest was not kept; recorded stores; odd episodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from worldeval import WorldEvalError
from worldeval.reports.markup import escape, notes
from worldeval.reports.synthesis.page import funnel_section

from ..context import Context
from ..datasets import Dataset, Looked, Row
from ..exports import VERSIONS, Export, Exports
from ..media import STORED
from ..pieces import choice, facts, outcome, when
from ..state import State
from . import pane

TITLE = "Data"
PAGE = 24
FLAGGED = "flagged"
NOTHING = (
    '<div class="we-empty"><p>No datasets lie in the folders that this inspector looks at.</p>'
    "<p>Imagine one with <code>worldeval synthesize --policy checkpoints/policies/full --out "
    "runs/synthetic</code>, record one with <code>worldeval record</code>, or start the inspector "
    "with the folder that holds yours: <code>worldeval app runs recordings</code>.</p></div>"
)
READING = (
    '<p class="we-empty" role="status" data-again="1">Reading its episodes: lengths, jerk, '
    "standstills …</p>"
)


def build(context: Context) -> None:
    pane("data")


def routes(context: Context) -> APIRouter:
    router, exports = APIRouter(), Exports()

    @router.get("/pane/data", response_class=HTMLResponse)
    def data(request: Request) -> str:
        return page(context, State.of(request), exports)

    @router.post("/data/export/{id}")
    def begin(id: str, version: str = "3.0", only: str = "") -> dict[str, Any]:
        dataset = context.datasets.get(id)
        context.inside(dataset.store)  # a link may lead out
        return exports.begin(dataset, version, only_successful=only == "solved").to_json()

    @router.get("/data/export/{id}")
    def how_far(id: str) -> dict[str, Any]:
        found = exports.get(context.datasets.get(id))
        if found is None:
            raise WorldEvalError("nothing was exported from this dataset yet")
        return found.to_json()

    return router


def page(context: Context, state: State, exports: Exports) -> str:
    datasets = context.datasets.all()
    if not datasets:
        return NOTHING
    chosen = context.datasets.get(state["data"]) if state["data"] else datasets[0]
    looked = context.datasets.looked(chosen)
    head = _listed(state, datasets, chosen)
    if looked is None:
        return head + READING
    if state["episode"]:
        return _one(state, chosen, looked, state.whole("episode"))
    return head + _chosen(state, chosen, looked, exports.get(chosen))


def _listed(state: State, datasets: list[Dataset], chosen: Dataset) -> str:
    rows = ""
    for one in datasets:
        name = state.link(
            escape(one.name), data=one.id, task=None, stage=None, odd=None, page=None, episode=None
        )
        kind = "synthesised" if one.synthesis else "recorded"
        current = ' aria-current="true"' if one.id == chosen.id else ""
        rows += f"<tr{current}><td>{name}</td><td>{kind}</td><td>{when(one.changed)}</td></tr>"
    many = " we-many" if len(datasets) > 6 else ""
    return (
        f'<section class="we-card we-runs{many}"><div class="we-scroll"><table class="we-table">'
        "<thead><tr><th>Dataset</th><th>Kind</th><th>Last change</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _chosen(state: State, dataset: Dataset, looked: Looked, export: Export | None) -> str:
    title = f'<div class="we-title"><h2>{escape(dataset.name)}</h2>{_export(dataset, export)}</div>'
    told = "" if looked.counts is None else funnel_section(looked.counts)
    told = f'<div class="we-report">{notes(looked.notes)}{told}</div>'
    if not looked.rows:
        return f'{title}{told}<p class="we-empty">It holds no episodes that can be shown.</p>'
    rows = [row for row in looked.rows if _meets(row, state)]
    odd = sum(bool(row.flags) for row in looked.rows)
    count = f"{odd} of {len(looked.rows)} episodes are odd" if odd else "No episode is odd"
    hint = (
        f'<p class="we-soft">{count}: much longer or shorter than is usual for the task, much more '
        "jerk, or standing still for most of it.</p>"
    )
    body = _beside(state, dataset, rows) if looked.stages else _all(state, dataset, rows)
    return f"{title}{told}{hint}{_form(state, dataset, looked)}{body}"


def _export(dataset: Dataset, export: Export | None) -> str:
    versions = "".join(f"<option>{version}</option>" for version in VERSIONS)
    busy = ' data-busy="1"' if export is not None and export.busy else ""
    told = "" if export is None else escape(export.told)
    return (
        f'<form class="we-d-export" data-export="{dataset.id}"{busy}>'
        f'<label class="we-soft">LeRobot <select name="version">{versions}</select></label>'
        '<label class="we-soft"><input type="checkbox" name="only" value="solved"> solved ones '
        'alone</label><button type="submit" class="we-button">Export</button>'
        f'<progress hidden></progress><p role="status" data-told>{told}</p></form>'
    )


def _meets(row: Row, state: State) -> bool:
    if state["task"] and row.task != state["task"]:
        return False
    if state["stage"] and not row.kept and row.stage != state["stage"]:
        return False
    return bool(row.flags) or state["odd"] != FLAGGED


def _form(state: State, dataset: Dataset, looked: Looked) -> str:
    tasks = dict.fromkeys(row.task for row in looked.rows)
    stages = [("", "any reason"), *((name, f"not {name}") for name in looked.stages)]
    lost = choice("stage", "Rejected for", stages, state["stage"]) if looked.stages else ""
    return (
        '<form class="we-filters" data-go><input type="hidden" name="tab" value="data">'
        f'<input type="hidden" name="data" value="{dataset.id}">'
        + choice("task", "Task", [("", "all tasks"), *((t, t) for t in tasks)], state["task"])
        + lost
        + choice("odd", "Episodes", [("", "all"), (FLAGGED, "odd ones")], state["odd"])
        + "</form>"
    )


def _beside(state: State, dataset: Dataset, rows: list[Row]) -> str:
    """Kept and rejected next to each other, each in pages of half the size; between them what
    joined the dataset as another task, if anything did."""
    kept, joined = [r for r in rows if r.kept], [r for r in rows if r.joined]
    lost = [r for r in rows if not r.kept and not r.joined]
    half, number = PAGE // 2, state.whole("page")
    groups = [("Kept", kept), ("Kept as another task", joined), ("Rejected", lost)]
    sides = ""
    for title, some in [group for group in groups if group[1] is not joined or joined]:
        here = some[number * half : (number + 1) * half]
        empty = '<p class="we-empty">None.</p>' if not here else ""
        sides += (
            f'<section class="we-card" data-side="{title.lower()}"><h3>{title} '
            f'<span class="we-soft">{len(some)}</span></h3>{empty}'
            f"{_cards(state, dataset, here)}</section>"
        )
    steps = _steps(state, number, half, max(len(kept), len(joined), len(lost)))
    return f'{steps}<div class="we-d-sides">{sides}</div>{steps}'


def _all(state: State, dataset: Dataset, rows: list[Row]) -> str:
    number = state.whole("page")
    here = rows[number * PAGE : (number + 1) * PAGE]
    empty = '<p class="we-empty">No episode meets this.</p>' if not here else ""
    steps = _steps(state, number, PAGE, len(rows))
    return f"{steps}{empty}{_cards(state, dataset, here)}{steps if len(here) == PAGE else ''}"


def _steps(state: State, number: int, size: int, count: int) -> str:
    if count <= size and not number:
        return ""
    back = state.link("← earlier", page=number - 1 or None) if number else ""
    on = state.link("later →", page=number + 1) if (number + 1) * size < count else ""
    pages = -(-count // size)
    return f'<p class="we-pages"><span>page {number + 1} of {pages}</span> {back} {on}</p>'


def _cards(state: State, dataset: Dataset, rows: Iterable[Row]) -> str:
    return f'<div class="we-cards">{"".join(_card(state, dataset, row) for row in rows)}</div>'


def _card(state: State, dataset: Dataset, row: Row) -> str:
    marks = outcome(row.outcome) if row.outcome else ""
    if row.flags:
        marks += f'<span class="we-odd">{escape(row.flags)}</span>'
    why = f'<span class="we-d-why">{escape(row.why)}</span>' if row.why else ""
    if row.joined:
        why += f'<span class="we-d-as">in the dataset as {escape(row.joined)}</span>'
    told = (
        f'<span class="we-card-name">{escape(row.task)}</span>'
        f'<span class="we-soft">{escape(row.key)}</span>'
        f'<span class="we-marks">{marks}</span>{why}'
    )
    if row.number is None:
        return f'<div class="we-rollout">{told}</div>'
    preview = f'<span class="we-preview" data-preview="{_name(dataset, row)}" aria-hidden="true">'
    number = row.number + 1
    return state.link(
        f"{preview}</span>{told}",
        classes="we-rollout",
        tab="data",
        data=dataset.id,
        episode=number,
    )


def _name(dataset: Dataset, row: Row) -> str:
    """For the player's routes."""
    return quote(f"{STORED}{dataset.id}-{row.number}")


def _one(state: State, dataset: Dataset, looked: Looked, number: int) -> str:
    """One episode: film, plots, why it was not kept, what is odd. number: from 1 on."""
    row = next((row for row in looked.rows if row.number == number - 1), None)
    if row is None:
        raise WorldEvalError("there is no such episode in this dataset; choose one in the list")
    listed = [r for r in looked.rows if _meets(r, state) and r.number is not None]
    at = next((i for i, r in enumerate(listed) if r is row), None)
    steps = ""
    if at is not None:
        for text, title, there in (
            ("← earlier", "The episode before this one (k)", at - 1),
            ("later →", "The next episode (j)", at + 1),
        ):
            if 0 <= there < len(listed):
                other = listed[there].number
                assert other is not None
                steps += state.link(text, classes="we-button", episode=other + 1, title=title)
    back = state.link("all episodes", episode=None, classes="we-button")
    word = {True: "kept", False: "rejected", None: ""}[row.kept]
    if row.joined:
        word = f"rejected as {row.task}; in the dataset as {row.joined}, which it achieved"
    pairs = [
        ("Dataset", escape(dataset.name)),
        ("Selection", escape(word)),
        ("Reason", escape(row.why)),
        ("Odd", escape(row.flags)),
        ("Outcome", outcome(row.outcome) if row.outcome else ""),
        ("Instruction", escape(row.instruction)),
        ("Key", escape(row.key)),
    ]
    return (
        f'<div class="we-title"><h2>{escape(row.task)} <span class="we-soft">{escape(row.key)}'
        f'</span></h2><nav>{back}{steps}</nav></div><div class="we-one"><div class="we-card">'
        f'<div class="we-player" data-src="rollout/{_name(dataset, row)}" data-keep></div></div>'
        f'<aside><section class="we-card"><h3>About</h3>{facts(pairs)}</section></aside></div>'
    )
