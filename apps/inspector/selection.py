"""Which rollouts a list is of: what was chosen in its form and typed into its query box."""

from __future__ import annotations

from .context import Context
from .pieces import choice
from .query import WORDS, Query
from .schema import NAMED
from .state import State

CHOICES = (("policy", "Policy"), ("task", "Task"), ("judge", "Judge"), ("outcome", "Outcome"))
"""Name in the URL, which is also the column of the index, and label."""


def selected(state: State) -> Query:
    """All conditions of the state. Raises QueryError for a query that cannot be understood."""
    query = Query.parse(state["q"])
    for name, _ in CHOICES:
        if state[name]:
            query = query.and_equal(name, state[name])
    return query


def choices(context: Context, state: State) -> str:
    """Selects of a form, with what there is in the evaluation that was chosen."""
    return "".join(_choice(context, state, name, label) for name, label in CHOICES)


def _choice(context: Context, state: State, name: str, label: str) -> str:
    run = state["run"] or None
    values = context.index.values(name, run=run) if name in NAMED else list(WORDS[name][1])
    if state[name] and state[name] not in values:
        values.append(state[name])  # from a link: what is chosen is always seen
    options = [("", "all"), *((value, value) for value in values if value)]
    return choice(name, label, options, state[name])
