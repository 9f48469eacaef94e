"""What one table names and another does not: counted, shown, and what may have been meant.

Enters: names of rollouts, (policy, task, start_id) or (key,), as people typed them, and those that
there are. Leaves: words for a message. Spaces, case, dashes and leading zeros are what typing and
spreadsheets change, so a name that differs in these alone is offered first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

_PARTS = ("policy", "task", "start")
SHOWN = 3
SEARCHED = 5000
"""Names among which one that is near is looked for; more would take seconds."""


def near(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` probably means; None if none is near."""
    names = list(dict.fromkeys(known))[:SEARCHED]
    plain = _plain(name)
    for other in names:
        if _plain(other) == plain:
            return other
    # Names that are numbered differ by their numbers on purpose.
    alike = [other for other in names if _numbers(other) == _numbers(name)]
    found = difflib.get_close_matches(name, alike, n=1, cutoff=0.75)
    return found[0] if found else None


def spell(name: Sequence[str]) -> str:
    """A rollout in words: "policy 'a', task 't', start 's'", or its key."""
    if len(name) != len(_PARTS):
        return " ".join(map(repr, name))
    return ", ".join(f"{word} {part!r}" for word, part in zip(_PARTS, name, strict=True))


def such_as(strange: Sequence[Sequence[str]], known: Collection[Sequence[str]]) -> str:
    """The first few strange names, and what the first may mean: "such as ...; did you mean ...?"

    Only the parts of a name that are nowhere known are asked about, else the whole name.
    """
    first = "; ".join(spell(name) for name in strange[:SHOWN])
    more = f"; and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
    return f"such as {first}{more}{_meant(strange[0], known)}"


def _meant(name: Sequence[str], known: Collection[Sequence[str]]) -> str:
    alike = [other for other in known if len(other) == len(name)]
    hints = []
    for place, part in enumerate(name):
        parts = dict.fromkeys(other[place] for other in alike)
        if part not in parts and (found := near(part, parts)):
            words = "" if len(name) != len(_PARTS) else f"{_PARTS[place]} "
            hints.append(f"{words}{found!r}")
    return f" (did you mean {', '.join(hints)}?)" if hints else ""


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", name)]


def _plain(name: str) -> str:
    """Without case, spaces, dashes and leading zeros."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"[\s_-]+", "", name.casefold()))
