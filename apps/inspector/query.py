"""The query box: ``policy:full task:push outcome:failure trust<0.3``.

Enters: text that somebody typed. Leaves: conditions for SQL, with every value as a parameter, or a
``QueryError`` that says what was given, what is expected, and what may have been meant.
"""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass
from typing import Any, Self

from worldeval import WorldEvalError

from .schema import NAMED


class QueryError(WorldEvalError):
    """A query that cannot be understood, in one sentence."""


TEXTS = {
    "policy": "policy",
    "task": "task",
    "start": "start_id",
    "world": "world",
    "judge": "judge",
    "reason": "reason",
    "instruction": "instruction",
    "error": "error",
    "key": "key",
}
WORDS = {
    "outcome": ("outcome", ("success", "failure", "undecided", "error", "unjudged")),
    "truth": ("true_outcome", ("success", "failure", "undecided", "error", "unknown")),
    "trusted": ("trusted", ("yes", "no", "unknown")),
    "wrong": ("wrong", ("yes", "no")),
}
NUMBERS = {
    "trust": "trust",
    "probability": "probability",
    "p": "probability",
    "frames": "length",
    "seed": "seed",
}
FIELDS = (*TEXTS, *WORDS, *NUMBERS)
EXAMPLE = "policy:full task:push outcome:failure trust<0.3"
HELP = (
    f"For example {EXAMPLE}; policy=full is that policy alone, policy:full also full-two. "
    f"Words with ':' are {', '.join((*TEXTS, *WORDS))}; "
    f"with <, <=, =, >=, > {', '.join(NUMBERS)}. A - before a condition means not; a word alone is "
    "looked for in policy, task, start and instruction; * stands for any letters."
)
_COMPARED = re.compile(r"(?P<name>[A-Za-z_]+)(?P<sign><=|>=|!=|<|>|=|:)(?P<value>.*)", re.S)
_WRONG = (
    "(true_outcome IN ('success', 'failure') AND outcome IN ('success', 'failure') "
    "AND outcome {} true_outcome)"
)


@dataclass(frozen=True)
class Query:
    """Conditions that all hold: SQL with its values."""

    conditions: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if len(text) > 500:
            raise QueryError(f"the query has {len(text)} characters, expected 500 at most")
        if not text.isprintable():
            raise QueryError("the query has characters that cannot be seen; type it anew")
        try:
            words = shlex.split(text, posix=True)
        except ValueError:
            raise QueryError(
                "the query has a quotation mark without its partner; close it, or take it out"
            ) from None
        return cls(tuple(_condition(word) for word in words))

    def and_equal(self, column: str, value: str) -> Query:
        """These conditions, and that a column of the index is exactly ``value``."""
        return Query((*self.conditions, (f"{column} = ?", (value,))))

    def sql(self) -> tuple[list[str], list[Any]]:
        """Conditions and their values."""
        return (
            [text for text, _ in self.conditions],
            [value for _, values in self.conditions for value in values],
        )


def _condition(word: str) -> tuple[str, tuple[Any, ...]]:
    bare = word.removeprefix("-")
    text, values = _positive(bare, word)
    # Unknown is neither: "not" of what is unknown shall find it.
    return (f"({text}) IS NOT TRUE", values) if word.startswith("-") and bare else (text, values)


def _positive(bare: str, word: str) -> tuple[str, tuple[Any, ...]]:
    match = _COMPARED.fullmatch(bare)
    if match is None:
        pattern = _pattern(f"*{bare}*")
        looked = ("policy", "task", "start_id", "instruction")
        # Each column by its own index: an OR of them would look at every rollout.
        parts = " UNION ALL ".join(
            "SELECT rowid FROM rollouts WHERE " + _named(column, "value LIKE ? ESCAPE '\\'")
            for column in looked
        )
        return f"rowid IN ({parts})", (pattern,) * len(looked)
    name, sign, value = match["name"].lower(), match["sign"], match["value"]
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f"did you mean {near[0]}{sign}{value}?" if near else f"known are {', '.join(FIELDS)}"
        raise QueryError(f"there is nothing called {name!r} in {word!r}; {hint}")
    if not value:
        raise QueryError(f"{word!r} lacks a value; write for example {EXAMPLE}")
    if name in NUMBERS:
        return _number(NUMBERS[name], name, sign, value)
    if sign not in (":", "=", "!="):
        raise QueryError(f"{name} is text and cannot be compared by {sign}; write {name}:{value}")
    if name in WORDS:
        text, values = _word(name, value)
    else:
        text, values = _text(TEXTS[name], value, exact=sign != ":")
    return (f"({text}) IS NOT TRUE", values) if sign == "!=" else (text, values)


def _number(column: str, name: str, sign: str, value: str) -> tuple[str, tuple[Any, ...]]:
    try:
        number = float(value.removesuffix("%"))
    except ValueError:
        raise QueryError(
            f"{name} is a number, got {value!r}; write for example {name}<0.3"
        ) from None
    if number != number:
        raise QueryError(f"{name} is compared with {value!r}, expected a number")
    number = number / 100 if value.endswith("%") else number
    return f"{column} {'=' if sign == ':' else sign} ?", (number,)


def _word(name: str, value: str) -> tuple[str, tuple[Any, ...]]:
    column, known = WORDS[name]
    value = value.lower()
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {name}:{near[0]}?" if near else f"expected {', '.join(known)}"
        raise QueryError(f"{name} is {value!r}; {hint}")
    if name == "wrong":
        return _WRONG.format("!=" if value == "yes" else "="), ()
    if value == "unknown":
        return f"{column} IS NULL", ()
    if name == "trusted":
        return "trusted = ?", (int(value == "yes"),)
    return f"{column} = ?", (value,)


def _text(column: str, value: str, *, exact: bool) -> tuple[str, tuple[Any, ...]]:
    if exact:
        return f"{column} = ?", (value,)
    if "*" in value:
        return _named(column, "value LIKE ? ESCAPE '\\'"), (_pattern(value),)
    # The whole name, or its beginning up to a mark: task:push finds push-v3, not pushing.
    condition = " OR ".join(["value LIKE ? ESCAPE '\\'"] * 3)
    return _named(column, condition), (
        _pattern(value),
        _pattern(f"{value}-*"),
        _pattern(f"{value}/*"),
    )


def _named(column: str, condition: str) -> str:
    """That a column has a name for which ``condition`` on ``value`` holds."""
    if column not in NAMED:
        return f"({condition.replace('value', column)})"
    return f"{column} IN (SELECT value FROM names WHERE field = '{column}' AND ({condition}))"


def _pattern(text: str) -> str:
    for mark in ("\\", "%", "_"):
        text = text.replace(mark, "\\" + mark)
    return text.replace("*", "%")
