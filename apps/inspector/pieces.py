"""Small pieces of HTML that tabs share: outcomes, choices, facts, what to do with no runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from worldeval.reports.markup import escape

from .context import Context
from .records import Run
from .state import State

LOOKING = (
    '<p class="we-empty" role="status" data-again="1">Looking at the files of all evaluations; '
    "the first time that takes a moment …</p>"
)
NO_RUNS = (
    '<div class="we-empty"><p>No evaluations lie in the folders that this inspector looks at.</p>'
    "<p>Make one with <code>worldeval demo</code> (a few minutes), or start the inspector with "
    "other folders: <code>worldeval app FOLDER</code>. It is shown here as soon as its first "
    "rollout is written.</p></div>"
)


def nothing(context: Context) -> str:
    """What a tab shows while no evaluation is known."""
    return NO_RUNS if context.index.ready else LOOKING


def outcome(name: str | None, unknown: str = "unknown") -> str:
    """An outcome by sign, word and colour."""
    word = name or unknown
    return f'<span class="we-outcome {escape(word)}">{escape(word)}</span>'


def choice(name: str, label: str, options: Iterable[tuple[str, str]], chosen: str) -> str:
    """A select of a form that changes the state at once. options: value, text."""
    inner = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>'
        f"{escape(text)}</option>"
        for value, text in options
    )
    return (
        f'<label class="we-field"><span>{escape(label)}</span>'
        f'<select name="{escape(name)}" data-submit>{inner}</select></label>'
    )


def run_choice(runs: Sequence[Run], state: State) -> str:
    """Which evaluation; all of them first."""
    options = [("", f"all {len(runs)}"), *((run.id, run.name) for run in runs)]
    return choice("run", "Evaluation", options, state["run"])


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and values (HTML); those without a value are left out."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in pairs if value)
    return f'<dl class="we-facts">{rows}</dl>'


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}\u00a0%"


def when(then: float) -> str:
    """How long ago, in words; the date where it is longer than two days."""
    seconds = time.time() - then
    for unit, name in ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= unit:
            count = int(seconds // unit)
            if name == "day" and count > 2:
                return time.strftime("%Y-%m-%d %H:%M", time.localtime(then))
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "just now"
