"""Small pieces of HTML that tabs share: outcomes, choices, facts, what to do with no runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from worldeval.reports.markup import escape

from .index import Run
from .state import State

NO_RUNS = (
    '<div class="we-empty"><p>No evaluations lie in the folders that this inspector looks at.</p>'
    "<p>Make one with <code>worldeval demo</code> (a few minutes), or start the inspector with "
    "other folders: <code>worldeval app FOLDER</code>. It is shown here as soon as its first "
    "rollout is written.</p></div>"
)


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
