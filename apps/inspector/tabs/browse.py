"""Browse: the rollouts that meet a query, with previews; one of them with all that is known."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from worldeval import WorldEvalError
from worldeval.reports.markup import escape

from ..context import Context
from ..media import shown
from ..pieces import choice, facts, nothing, outcome, percent, run_choice
from ..query import EXAMPLE, HELP, Query, QueryError
from ..records import Rollout, Run
from ..schema import ORDERS
from ..selection import choices, selected
from ..state import State
from . import pane

TITLE = "Browse"
PAGE = 48
QUICK = (
    ("failures", "outcome:failure", ""),
    ("undecided", "outcome:undecided", ""),
    ("judge and truth differ", "wrong:yes", "true_outcome"),
    ("not to be believed", "trusted:no", "trusted"),
)
"""Words, query, and the column of the index that must be known of some rollout, if any."""


def build(context: Context) -> None:
    pane("browse")


def routes(context: Context) -> APIRouter:
    router = APIRouter()

    @router.get("/pane/browse", response_class=HTMLResponse)
    def browse(request: Request) -> str:
        state = State.of(request)
        if not state["rollout"]:
            return listed(context, state)
        return one(context, state, context.rollout(state["rollout"]))

    return router


def listed(context: Context, state: State) -> str:
    """The list, with a form above it."""
    runs = context.index.runs()
    if not runs:
        return nothing(context)
    form = _form(context, runs, state)
    try:
        query = selected(state)
    except QueryError as error:
        return f'{form}<p class="we-error" role="alert">{escape(error)}</p>'
    run, page = state["run"] or None, state.whole("page")
    count = context.index.count(query, run=run)
    found = context.index.rollouts(
        query, run=run, order=state["order"], first=page * PAGE, count=PAGE, total=count
    )
    if not found:
        return f'{form}<p class="we-empty">No rollout meets this. {escape(HELP)}</p>'
    cards = "".join(_card(state, rollout, several=run is None) for rollout in found)
    return f'{form}{_pages(state, page, count)}<div class="we-cards">{cards}</div>' + (
        _pages(state, page, count) if count > PAGE else ""
    )


def _form(context: Context, runs: list[Run], state: State) -> str:
    quick = " ".join(
        state.link(escape(text), classes="we-chip", q=query, page=None, tab="browse")
        for text, query, known in QUICK
        if not known or context.index.knows(known, run=state["run"] or None)
    )
    orders = [(name, text) for name, (text, _) in ORDERS.items()]
    return (
        '<form class="we-filters" data-go><input type="hidden" name="tab" value="browse">'
        f"{run_choice(runs, state)}{choices(context, state)}"
        f"{choice('order', 'Order', orders, state['order'])}"
        '<label class="we-field we-grow we-query"><span>Query</span>'
        f'<input name="q" type="search" value="{escape(state["q"])}" placeholder="{EXAMPLE}" '
        f'title="{escape(HELP)}" autocomplete="off" spellcheck="false"></label>'
        f'<button type="submit">Show</button></form><p class="we-quick">{quick}</p>'
    )


def _pages(state: State, page: int, count: int) -> str:
    first, last = page * PAGE + 1, min(count, (page + 1) * PAGE)
    table = escape(f"inspector/table.csv{state.href(page=None, tab=None, order=None)}")
    back = state.link("← earlier", page=page - 1 or None) if page else ""
    on = state.link("later →", page=page + 1) if last < count else ""
    return (
        f'<p class="we-pages"><span>{first}–{last} of {count} rollouts</span> {back} {on} '
        f'<a href="{table}" download>these as CSV</a></p>'
    )


def _card(state: State, rollout: Rollout, *, several: bool) -> str:
    marks = outcome(rollout.outcome)
    if rollout.probability is not None:
        marks += f'<span class="we-soft">{rollout.probability:.2f}</span>'
    if rollout.true_outcome:
        marks += f'<span class="we-true">true: {outcome(rollout.true_outcome)}</span>'
    if rollout.trusted is False:
        marks += '<span class="we-odd">not trusted</span>'
    preview = f'<span class="we-preview" data-preview="{rollout.id}" aria-hidden="true"></span>'
    start = rollout.start_id.removeprefix(f"{rollout.task}/")
    told = (
        f'<span class="we-card-name">{escape(rollout.policy)}</span>'
        f'<span class="we-soft">{escape(rollout.task)} · {escape(start)}</span>'
        f'<span class="we-marks">{marks}</span>'
    )
    return state.link(preview + told, classes="we-rollout", rollout=rollout.id, tab="browse")


def one(context: Context, state: State, rollout: Rollout) -> str:
    """One rollout: player, verdict, facts."""
    run = context.run(rollout.run)
    try:
        shown(context, rollout.id)
        player = (
            f'<div class="we-player" data-src="rollout/{rollout.id}" data-truth data-keep></div>'
        )
    except WorldEvalError as error:
        player = f'<p class="we-error" role="alert">{escape(error)}</p>'
    before, after = context.index.neighbours(
        rollout, _query(state), run=state["run"] or None, order=state["order"]
    )
    steps = "".join(
        state.link(text, classes="we-button", rollout=other.id, title=title)
        for text, title, other in (
            ("← earlier", "The rollout before this one (k)", before),
            ("later →", "The next rollout (j)", after),
        )
        if other is not None
    )
    back = state.link("all rollouts", rollout=None, classes="we-button")
    start = rollout.start_id.removeprefix(f"{rollout.task}/")
    return (
        f'<div class="we-title"><h2>{escape(rollout.policy)} '
        f'<span class="we-soft">{escape(rollout.task)} · {escape(start)}</span></h2>'
        f'<nav>{back}{steps}</nav></div><div class="we-one"><div class="we-card">{player}</div>'
        f"<aside>{_verdict(rollout)}{_about(state, run, rollout)}</aside></div>"
    )


def _query(state: State) -> Query:
    try:
        return selected(state)
    except QueryError:
        return Query()


def _verdict(rollout: Rollout) -> str:
    name, _, version = rollout.judge.partition("@")
    if not rollout.judge:
        body = (
            '<p class="we-soft">No judge has looked at it. <code>worldeval judge FOLDER</code> '
            "asks one.</p>"
        )
        if rollout.error:
            body = f'<p class="we-error">{escape(rollout.error)}</p>'
        head = f"<h3>Verdict {outcome(rollout.outcome)}</h3>"
        return f'<section class="we-card">{head}{body}</section>'
    meter = ""
    if rollout.probability is not None:
        meter = (
            f'<div class="we-meter" style="--v:{rollout.probability:.4f}"><i></i></div>'
            f'<p class="we-soft">probability of success {rollout.probability:.3f}</p>'
        )
    frames = "".join(
        f'<button type="button" data-seek="{number}">{number}</button>'
        for number in rollout.frames.split()
        if number.isdigit()
    )
    looked = f'<p class="we-soft">Frames it looked at</p><p class="we-looked">{frames}</p>'
    reason = f"<blockquote>{escape(rollout.reason)}</blockquote>" if rollout.reason else ""
    pairs = [
        ("Judge", escape(name)),
        ("Version", f"<code>{escape(version)}</code>" if version else ""),
        ("Truth", outcome(rollout.true_outcome) if rollout.true_outcome else ""),
        ("Trust", _trust(rollout)),
    ]
    return (
        f'<section class="we-card"><h3>Verdict {outcome(rollout.outcome)}</h3>{meter}{reason}'
        f"{facts(pairs)}{looked if frames else ''}</section>"
    )


def _trust(rollout: Rollout) -> str:
    if rollout.trust is None and rollout.trusted is None:
        return ""
    word = {True: "to be believed", False: "not to be believed", None: ""}[rollout.trusted]
    return f"{percent(rollout.trust)} {escape(word)}"


def _about(state: State, run: Run, rollout: Rollout) -> str:
    pairs = [
        ("Instruction", escape(rollout.instruction)),
        ("Evaluation", state.link(escape(run.name), tab="overview", run=run.id, rollout=None)),
        ("World", escape(rollout.world)),
        ("Start", escape(rollout.start_id)),
        ("Seed", "" if rollout.seed is None else escape(rollout.seed)),
        ("Frames", escape(rollout.length)),
    ]
    compare = state.link(
        "Compare policies from this start",
        classes="we-button",
        tab="compare",
        run=run.id,
        start=rollout.start_id,
        rollout=None,
        q=None,
    )
    return f'<section class="we-card"><h3>About</h3>{facts(pairs)}<p>{compare}</p></section>'
