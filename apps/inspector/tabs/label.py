"""Label: say of rollouts whether they succeeded, without knowing whose they are."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel, Field

from worldeval import Labelling, WorldEvalError
from worldeval.reports.markup import escape

from ..context import Context
from ..media import Shown, film
from ..pieces import choice, nothing
from ..player import FOREVER
from ..records import Run
from ..state import State
from . import pane

TITLE = "Label"
BUTTONS = (
    ("success", "s", "Success", "solved, and seen to be solved"),
    ("failure", "f", "Failure", "not solved at the end"),
    ("undecided", "u", "Undecided", "the pictures do not tell"),
    ("25", "1", "¼ done", "a failure with a quarter of the credit"),
    ("50", "2", "½ done", "a failure with half of the credit"),
    ("75", "3", "¾ done", "a failure with three quarters of the credit"),
)
MOST_OPEN = 16


class Said(BaseModel):
    run: str = Field(max_length=80)
    blind: str = Field(max_length=80)
    rater: str = Field(max_length=80)
    outcome: str = Field(max_length=20)
    credit: float | None = None
    artefact: bool = False
    comment: str = Field("", max_length=2000)


class Undo(BaseModel):
    run: str = Field(max_length=80)
    rater: str = Field(max_length=80)


class Queues:
    """The open labellings, one per evaluation, made anew when it has grown or is judged anew."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._open: OrderedDict[str, tuple[str, Labelling]] = OrderedDict()
        self._lock = Lock()

    def of(self, id: str) -> tuple[Run, Labelling]:
        run = self.context.run(id)
        with self._lock:
            known = self._open.get(id)
            if known is None or known[0] != run.stamp:
                known = run.stamp, Labelling(self.context.evaluation(run))
            self._open[id] = known
            self._open.move_to_end(id)
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        if known[1].path.is_symlink():
            raise WorldEvalError(f"the labels of {run.name} are a link; put a file in its place")
        return run, known[1]

    def shown(self, id: str, blind: str) -> Shown:
        """The rollout of that blind name, without what the index knows of it."""
        _, labelling = self.of(id)
        place, key = labelling.where(blind)
        store = self.context.store_at(place, key)
        return Shown(blind, store, store.index_of(key), None)


def build(context: Context) -> None:
    pane("label")


def routes(context: Context) -> APIRouter:
    router, queues = APIRouter(), Queues(context)

    @router.get("/pane/label", response_class=HTMLResponse)
    def label(request: Request) -> str:
        return page(context, State.of(request))

    @router.get("/label/next")
    def following(run: str, rater: str, skip: str = "") -> dict[str, Any]:
        _, labelling = queues.of(run)
        skipped = set(skip.split(",")[-200:])
        waiting = labelling.queue(rater)
        left = [item for item in waiting if item.blind not in skipped] or waiting
        item = left[0] if left else None
        return {
            "item": None
            if item is None
            else {"blind": item.blind, "instruction": item.instruction, "unsure": item.unsure},
            "left": len(waiting),
            "of": len(labelling.items),
        }

    @router.get("/label/rollout/{run}/{blind}")
    def rollout(run: str, blind: str) -> dict[str, Any]:
        return blinded(queues.shown(run, blind), f"label/film/{run}/{blind}")

    @router.get("/label/film/{run}/{blind}/{version}.mp4")
    def film_of(run: str, blind: str, version: str) -> FileResponse:
        path = film(context, queues.shown(run, blind))
        return FileResponse(path, media_type="video/mp4", headers=FOREVER)

    @router.post("/label/say")
    def say(said: Said) -> dict[str, Any]:
        _, labelling = queues.of(said.run)
        labelling.label(
            said.blind,
            said.outcome,
            rater=said.rater,
            credit=said.credit,
            artefact=said.artefact,
            comment=said.comment,
        )
        return {"kept": said.blind}

    @router.post("/label/undo")
    def undo(given: Undo) -> dict[str, Any]:
        _, labelling = queues.of(given.run)
        return {"blind": labelling.undo(given.rater)}

    @router.get("/part/raters", response_class=HTMLResponse)
    def raters(run: str) -> str:
        return agreement(queues.of(run)[1])

    return router


def blinded(what: Shown, films: str) -> dict[str, Any]:
    """The JSON of a player that tells neither policy nor verdict, nor how the hand was moved."""
    layout, facts = what.store.layout, what.facts
    return {
        "name": what.name,
        "title": "rollout",
        "imagined": True,
        "instruction": str(facts.get("instruction") or ""),
        "fps": layout.fps,
        "frames": int(facts["length"]),
        "views": list(layout.views),
        "aspect": layout.image_size[1] / layout.image_size[0],
        "film": f"{films}/{what.version}.mp4",
        "pictures": {"url": "", "every": 1, "count": 1, "columns": 1, "rows": 1},
        "truth": None,
        "outcome": "",
        "curves": [],
        "events": [],
    }


def agreement(labelling: Labelling) -> str:
    """Who labelled how much, and how far every two agree beyond chance."""
    counts: dict[str, dict[str, int]] = {}
    for label in {(x.rater, x.rollout): x for x in labelling.labels()}.values():
        own = counts.setdefault(label.rater, {})
        own[label.outcome.value] = own.get(label.outcome.value, 0) + 1
    if not counts:
        return '<p class="we-soft">Nobody has labelled yet.</p>'
    rows = "".join(
        f"<tr><th>{escape(rater)}</th>"
        + "".join(f"<td>{own.get(o, 0) or '–'}</td>" for o in ("success", "failure", "undecided"))
        + "</tr>"
        for rater, own in sorted(counts.items())
    )
    html = (
        '<table class="we-b-raters"><thead><tr><th></th><th title="success">✓</th>'
        f'<th title="failure">✕</th><th title="undecided">?</th></tr></thead>{rows}</table>'
    )
    found = labelling.agreement()
    if found is None:
        return html + '<p class="we-soft">With a second rater, agreement is shown here.</p>'
    pairs = "".join(
        f"<tr><th>{escape(pair.first)} and {escape(pair.second)}</th>"
        f"<td>{_number(pair.kappa.value)}</td>"
        f"<td>{'' if pair.same is None else f'{100 * pair.same:.0f} %'}</td>"
        f"<td>{pair.kappa.rollouts}</td></tr>"
        for pair in found.pairs
    )
    return (
        f'{html}<table class="we-b-raters"><thead><tr><th></th><th title="Cohen\'s kappa: 1 is '
        'full agreement, 0 what chance gives">kappa</th><th>same</th><th>both</th></tr></thead>'
        f"{pairs}</table>"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def page(context: Context, state: State) -> str:
    runs = context.index.runs()
    if not runs:
        return nothing(context)
    judged = [run for run in runs if run.judged] or runs
    chosen = context.run(state["run"]) if state["run"] else judged[0]
    form = (
        '<form class="we-filters" data-go><input type="hidden" name="tab" value="label">'
        + choice("run", "Evaluation", [(run.id, run.name) for run in runs], chosen.id)
        + '<label class="we-field"><span>You are</span><input type="text" data-rater '
        'maxlength="60" placeholder="your name" autocomplete="nickname"></label>'
        '<label class="we-field we-grow"><span>Progress</span><span class="we-meter we-b-meter">'
        "<i></i></span></label></form>"
    )
    buttons = "".join(
        f'<button type="button" class="{value if not value.isdigit() else "part"}" '
        f'data-say="{value}" title="{escape(hint)}"><b>{escape(word)}</b><kbd>{key.upper()}</kbd>'
        "</button>"
        for value, key, word, hint in BUTTONS
    )
    labels = f"{escape(chosen.name)}/labels.csv"
    return f"""<div class="we-label" data-label="{escape(chosen.id)}">{form}
<div class="we-l-grid"><div class="we-card"><p class="we-b-words" role="status" aria-live="polite">
Loading …</p><div class="we-b-film"></div>
<div class="we-b-say">{buttons}</div>
<div class="we-b-more"><label class="we-b-odd"><input type="checkbox" data-artefact> the pictures
show what cannot be <kbd>A</kbd></label><input type="text" data-comment maxlength="1000"
placeholder="comment (M), goes with the next label" aria-label="Comment">
<button type="button" class="we-button" data-undo title="Take the last label back (Z)">Undo</button>
<button type="button" class="we-button" data-skip title="Later (N)">Skip</button></div></div>
<aside><section class="we-card"><h3>Raters</h3><div class="we-b-table">
<p class="we-soft">Who labelled how much is shown when you have typed your name.</p></div></section>
<section class="we-card"><h3>How it works</h3><p class="we-soft">Whose rollout it is, and what the
judge says, is hidden. First come those of which judge and trust are least sure. Each label is on
the disk at once, in <code>{labels}</code>.</p><p class="we-soft">Keys: S, F, U; 1, 2, 3 for a
failure with credit; A artefact, M comment, Z undo, N later, space plays.</p>
<p class="we-soft">Then: <code>worldeval calibrate RUN --truth RUN/labels.csv</code> (how often is
the judge wrong?) or <code>worldeval judge RUN --judge human:RUN/labels.csv</code> and
<code>worldeval rank RUN</code>.</p></section></aside></div></div>"""
