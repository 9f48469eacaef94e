"""Compare: two to four policies from one start state in step; two evaluations, before and after."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from worldeval import WorldEvalError, before_and_after
from worldeval.reports.markup import escape

from ..context import Context
from ..media import shown
from ..pieces import choice, nothing, outcome
from ..player import described
from ..query import Query
from ..records import Rollout, Run
from ..state import State
from . import pane

TITLE = "Compare"
MOST = 4
"""Rollouts beside each other."""


def build(context: Context) -> None:
    pane("compare")


def routes(context: Context) -> APIRouter:
    router = APIRouter()

    @router.get("/pane/compare", response_class=HTMLResponse)
    def compare(request: Request) -> str:
        return page(context, State.of(request))

    @router.get("/compare/side/{name}")
    def side(name: str, by: str = "policy") -> dict[str, Any]:
        told = described(context, shown(context, name))
        policy = told["policy"]
        title = policy
        if by == "instruction":
            title = f"“{told['instruction']}”"
        elif by == "run":
            title = _run(context, name)
        return {**told, "title": title, "label": "" if title == policy else policy}

    return router


def _run(context: Context, name: str) -> str:
    return context.run(context.rollout(name).run).name


def page(context: Context, state: State) -> str:
    runs = context.index.runs()
    if not runs:
        return nothing(context)
    several = [run for run in runs if run.policies > 1] or runs
    run = context.run(state["run"]) if state["run"] else several[0]
    tasks = [name for name, _ in context.index.names("task", run=run.id)]
    task = state["task"] if state["task"] in tasks else _task_of(state["start"], tasks)
    starts = context.index.starts(run=run.id, task=task)
    start = state["start"] if state["start"] in starts else (starts[0] if starts else "")
    other = context.run(state["other"]) if state["other"] else None
    here = _at(context, run, start)
    form = (
        '<form class="we-filters" data-go><input type="hidden" name="tab" value="compare">'
        + choice("run", "Evaluation", [(r.id, r.name) for r in runs], run.id)
        + choice("task", "Task", [(name, name) for name in tasks], task)
        + choice("start", "Start state", [(s, s.removeprefix(f"{task}/")) for s in starts], start)
        + choice(
            "other",
            "Against (before and after)",
            [("", "–"), *((r.id, r.name) for r in runs if r.id != run.id)],
            other.id if other else "",
        )
        + "</form>"
    )
    if other is not None:
        return form + _two_runs(context, state, run, other, start, here)
    return form + _one_run(context, state, here)


def _task_of(start: str, tasks: list[str]) -> str:
    """The task in whose start states this one is, by its name; else the first."""
    return next((task for task in tasks if start.startswith(f"{task}/")), tasks[0] if tasks else "")


def _at(context: Context, run: Run, start: str) -> dict[str, Rollout]:
    """Policy -> its rollout from a start state."""
    found = context.index.rollouts(_where("start", start), run=run.id, count=200) if start else []
    return {r.policy: r for r in found if r.start_id == start}


def _where(field: str, value: str) -> Query:
    quoted = value.replace('"', "")
    return Query.parse(f'{field}="{quoted}"')


def _one_run(context: Context, state: State, here: dict[str, Rollout]) -> str:
    if len(here) < 1:
        return '<p class="we-empty">No rollouts begin at this start state.</p>'
    asked = [name for name in state["policies"].split("|") if name in here]
    chosen = asked[:MOST] or _telling(list(here.values()))
    if state["swap"] in here:
        swapped = _swapped(context, here[state["swap"]])
        if swapped:
            chosen = [state["swap"]]
    chips = "".join(_chip(state, name, here[name], chosen) for name in here)
    swaps = "".join(
        state.link(
            escape(name),
            classes="we-chip" + (" on" if name == state["swap"] else ""),
            swap=None if name == state["swap"] else name,
        )
        for name in here
        if name in chosen and _swapped(context, here[name])
    )
    swap = (
        '<p class="we-quick"><span class="we-soft" title="The same scene and seed, told another '
        f'task: does it listen?">Own against swapped instruction:</span> {swaps}</p>'
        if swaps
        else ""
    )
    names = [here[name] for name in chosen]
    by = "policy"
    if state["swap"] in here:
        names, by = [*names, *_swapped(context, here[state["swap"]])[: MOST - 1]], "instruction"
    return f'<p class="we-quick">{chips}</p>{swap}{_stage(names, by)}'


def _telling(rollouts: list[Rollout]) -> list[str]:
    """Two that ended differently, if there are; else the first two."""
    first = rollouts[0]
    other = next((r for r in rollouts if r.outcome != first.outcome), None)
    others = [other] if other is not None else rollouts[1:2]
    return [first.policy, *(r.policy for r in others)]


def _chip(state: State, name: str, rollout: Rollout, chosen: list[str]) -> str:
    on = name in chosen
    names = [n for n in chosen if n != name] if on else [*chosen, name][-MOST:]
    return state.link(
        f"{escape(name)} {outcome(rollout.outcome)}",
        classes="we-chip" + (" on" if on else ""),
        title="Take it out" if on else "Show it too",
        policies="|".join(names) or None,
        swap=None,
    )


def _swapped(context: Context, rollout: Rollout) -> list[Rollout]:
    """The same policy in the same scene, told another task."""
    try:
        table = context.store(rollout).metadata()
    except WorldEvalError:
        return []
    if "start_seed" not in table.columns or "policy" not in table.columns:
        return []
    own = table[table["key"] == rollout.key]
    if own.empty:
        return []
    same = table[
        (table["start_seed"] == own["start_seed"].iloc[0])
        & (table["policy"] == rollout.policy)
        & (table["task"] != rollout.task)
    ]
    wanted = set(same["key"].astype(str))
    found: list[Rollout] = []
    for start in same["start_id"].astype(str):
        at = context.index.rollouts(_where("start", start), run=rollout.run, count=200)
        found += [r for r in at if r.key in wanted]
    return found


def _stage(rollouts: list[Rollout], by: str) -> str:
    """The player of several sides, and two of them laid over each other."""
    if len(rollouts) < 2:
        hint = '<p class="we-soft">Choose another policy to compare with.</p>'
    else:
        hint = ""
    sources = " ".join(f"compare/side/{r.id}?by={by}" for r in rollouts)
    overlay = (
        '<div class="we-card we-c-over" data-over><div class="we-filters">'
        '<label class="we-field"><span>View</span><select data-view></select></label>'
        '<label class="we-field"><span>Overlay</span><select data-mode>'
        '<option value="wipe">wipe</option><option value="difference">difference</option></select>'
        '</label><label class="we-field"><span>Left</span><select data-one></select></label>'
        '<label class="we-field"><span>Right</span><select data-two></select></label>'
        '<label class="we-field we-grow"><span>Where the one ends</span>'
        '<input type="range" min="0" max="1000" value="500" data-wipe></label></div>'
        '<canvas class="we-c-canvas" role="img" aria-label="two rollouts over each other"></canvas>'
        '<p class="we-soft" data-told></p></div>'
        if len(rollouts) > 1
        else ""
    )
    return (
        f'{hint}<div class="we-c-grid"><div class="we-card"><div class="we-player" '
        f'data-src="{escape(sources)}" data-keep></div></div>{overlay}</div>'
    )


def _two_runs(
    context: Context, state: State, after: Run, before: Run, start: str, here: dict[str, Rollout]
) -> str:
    """Paired statistics of two evaluations, and one start state in both."""
    try:
        found = before_and_after(context.evaluation(before), context.evaluation(after))
    except WorldEvalError as error:
        return f'<p class="we-error" role="alert">{escape(error)}</p>'
    rows = "".join(
        f"<tr><th>{escape(_names(change))}</th><td>{_points(change.test.difference)}</td>"
        f"<td>[{_points(change.test.low)}, {_points(change.test.high)}]</td>"
        f"<td>{change.test.only_b}</td><td>{change.test.only_a}</td><td>{change.test.pairs}</td>"
        f"<td>{change.adjusted:.2g}</td></tr>"
        for change in found.changes
        if change.adjusted is not None
    )
    tasks = "".join(
        f"<tr><th>{escape(_names(change))}</th><td class='we-c-left'>{escape(change.task or '')}"
        f"</td><td>{_points(change.test.difference)}</td><td>{change.test.only_b}</td>"
        f"<td>{change.test.only_a}</td><td>{change.test.pairs}</td></tr>"
        for change in found.tasks
    )
    notes = "".join(f'<p class="we-soft">{escape(note)}</p>' for note in found.notes)
    table = (
        f'<div class="we-card"><h3>{escape(after.name)} against {escape(before.name)}</h3>'
        '<p class="we-soft">Success rate after minus before, start state by start state; p is '
        'corrected for all policies (Holm).</p><table class="we-c-table"><thead><tr><th></th>'
        "<th>points</th><th>95 %</th><th>solved only after</th><th>only before</th>"
        f"<th>start states</th><th>p</th></tr></thead>{rows}</table>{notes}"
        '<details><summary>by task</summary><table class="we-c-table"><thead><tr><th></th><th>'
        "</th><th>points</th><th>only after</th><th>only before</th><th>start states</th></tr>"
        f"</thead>{tasks}</table></details></div>"
    )
    there = _at(context, before, start)
    names = [(c.before, c.after) for c in found.changes if c.before in there and c.after in here]
    if not names:
        return table + '<p class="we-empty">This start state is not in both evaluations.</p>'
    wanted = next((n for n in names if n[1] == state["policies"]), names[0])
    chips = "".join(
        state.link(
            escape(new), classes="we-chip" + (" on" if new == wanted[1] else ""), policies=new
        )
        for _, new in names
    )
    player = _stage([there[wanted[0]], here[wanted[1]]], "run")
    return f'{table}<p class="we-quick">{chips}</p>{player}'


def _names(change: Any) -> str:
    same = change.before == change.after
    return str(change.after) if same else f"{change.before} → {change.after}"


def _points(share: float) -> str:
    return f"{100 * share:+.0f}"
