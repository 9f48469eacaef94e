"""Answers of a model that could not be read: how many, why, and what to do about it.

Enters: choices of which no vote came. Leaves: words in the ``reason`` of a verdict, and read back
from there one sentence about a whole table, so that it is reported also when nothing is asked anew.
That no answer at all could be read is an error: otherwise a server that is set up wrongly looks
like a judge that abstains on everything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from worldeval.errors import JudgeError
from worldeval.judging.vlm.reply import CONTENT, REFUSAL, Choice

if TYPE_CHECKING:
    import pandas as pd

CUT = "cut off"
REFUSED = "refused by the model"
FILTERED = "withheld by the server's filter"
EMPTY = "empty (neither content nor reasoning nor a tool call held text)"
NO_ANSWER = "without an answer in their content"
ELSEWHERE = "without an answer in their text, which stood in {}"
_REMEDIES = {
    CUT: (
        "allow more with max_tokens=4000 or none, or less thinking with "
        'extra={"reasoning_effort":"low"}'
    ),
    FILTERED: "ask another model",
    REFUSED: "ask another model",
    EMPTY: (
        "look at the server's own output and its reasoning parser (vLLM: --reasoning-parser), or "
        'turn thoughts off with extra={"chat_template_kwargs":{"enable_thinking":false}}'
    ),
    "": (
        "look at what the model writes, it is kept in the cache; words of another language are "
        "read with yes=WORD and no=WORD"
    ),
}
_COUNTS = re.compile(r"^(?:\d+ [a-z]+(?:, )?)* ?of (\d+) votes")
_UNREADABLE = re.compile(r"(\d+) unreadable of \d+ votes")
_WHY = re.compile(r" \[unreadable: ([^\]]*)\]$")


def why(choice: Choice, max_tokens: int | None) -> str:
    """Why there was no vote in ``choice``, of an answer of at most ``max_tokens``."""
    if choice.finish == "length":
        return f"{CUT} at max_tokens={max_tokens}" if max_tokens else f"{CUT} by the server's limit"
    if choice.source == REFUSAL:
        return REFUSED
    if choice.finish == "content_filter":
        return FILTERED
    if not choice.text.strip():
        return EMPTY
    return NO_ANSWER if choice.source == CONTENT else ELSEWHERE.format(choice.source)


def explained(choices: Sequence[Choice], max_tokens: int | None) -> str:
    """What is added to the reason of a verdict about unreadable ``choices``; empty for none."""
    causes = Counter(why(choice, max_tokens) for choice in choices)
    said = "; ".join(f"{count} {cause}" for cause, count in causes.items())
    return f" [unreadable: {said}]" if said else ""


def read_back(table: pd.DataFrame) -> tuple[int, int, Counter[str]]:
    """(unreadable, votes, causes) of the verdicts in ``table``; (0, 0, {}) of other judges'."""
    unread = votes = 0
    causes: Counter[str] = Counter()
    for reason in table["reason"].astype(str):
        if not (counts := _COUNTS.match(reason)):
            continue
        votes += int(counts[1])
        if some := _UNREADABLE.match(reason[: counts.end()].rpartition(", ")[2]):
            unread += int(some[1])
        if told := _WHY.search(reason):
            for part in told[1].split("; "):
                count, _, cause = part.partition(" ")
                causes[cause] += int(count) if count.isdigit() else 0
    return unread, votes, causes


def nothing_read(table: pd.DataFrame) -> bool:
    """Whether a model was asked about the rollouts of ``table`` and not one answer was read."""
    unread, votes, _ = read_back(table)
    return 0 < votes == unread


def summary(table: pd.DataFrame, judge: str) -> str:
    """One sentence about the answers that could not be read; empty where all were.

    Raises JudgeError with that sentence where none was.
    """
    unread, votes, causes = read_back(table)
    if not unread:
        return ""
    said = "; ".join(f"{count} {cause}" for cause, count in causes.most_common())
    remedies = dict.fromkeys(
        _REMEDIES.get(CUT if cause.startswith(CUT) else cause, _REMEDIES[""]) for cause in causes
    )
    text = (
        f"{unread} of {votes} answers of {judge} could not be read"
        + (f": {said}" if said else "")
        + (f"; {'; '.join(remedies)}" if remedies else "")
    )
    if unread == votes:
        raise JudgeError(f"{text} (no verdict counts, and the same command asks again)")
    return text
