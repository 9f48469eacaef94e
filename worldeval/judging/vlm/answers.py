"""From what a model wrote to a vote, and from votes to an outcome.

Enters: the texts of several answers. Leaves: one ``Ballot`` with outcome, probability and reason.

An answer is asked for as a JSON object ``{"reason": ..., "answer": "yes" | "no" | "unsure"}``; a
line such as ``Answer: Yes``, a JSON object inside of other words and a single word are read too.
The last answer in a text counts, thoughts in ``<think>`` do not. What cannot be read is no vote
for either side: scoring it as failure, as some published evaluators do, biases rates downwards,
and giving ties to success biases them upwards.

**Counting.** With s, f votes for success and failure among n votes, the others unsure or
unreadable: SUCCESS if s > n/2, FAILURE if f > n/2, else UNDECIDED. The probability of success is
(s + 1/2) / (s + f + 1), the posterior mean under Jeffreys' prior Beta(1/2, 1/2): never 0 or 1, so
that it has a finite logit for a calibration; None without a decided vote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worldeval.types import Outcome

REASON_CHARACTERS = 300
"""A longer reason is cut: it goes into a table."""
READ_CHARACTERS = 10_000
"""Only the end of a longer text is read: the last answer counts, and bad JSON takes long."""
PRIOR = 0.5
"""Jeffreys' pseudo-votes on each side."""

_WORDS = {
    Outcome.SUCCESS: ("yes", "success", "successful", "succeeded", "true"),
    Outcome.FAILURE: ("no", "failure", "fail", "failed", "false"),
    Outcome.UNDECIDED: (
        "unsure", "not sure", "uncertain", "undecided", "unclear", "unknown", "cannot tell",
        "can't tell", "can not tell",
    ),
}  # fmt: skip
_OUTCOME_OF = {word: outcome for outcome, words in _WORDS.items() for word in words}
_ANY = "|".join(re.escape(word) for word in sorted(_OUTCOME_OF, key=len, reverse=True))
# A word that is followed by another choice ("Yes/No/Unsure") repeats the question.
_WORD = re.compile(rf"\W*({_ANY})\b(?!\W*(?:/|\||\bor\b))", re.IGNORECASE)
_TAG = re.compile(r"\b(?:final\s+)?answer\b[\s\"'*_`]*[:=]", re.IGNORECASE)
_REASON = re.compile(r"\breason(?:ing)?\b[\s\"'*_`]*[:=]\s*(.+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One answer as read: UNDECIDED with ``readable`` is the model's own "cannot tell"."""

    outcome: Outcome
    reason: str
    readable: bool = True


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What the votes say together."""

    outcome: Outcome
    probability: float | None
    reason: str


def read_answer(text: str) -> Vote:
    """The vote in what a model wrote; see the module docstring."""
    spoken = _without_thoughts(text)
    found: list[tuple[int, Outcome | None, str]] = []  # place, outcome, reason
    answers = [each for each in _objects(spoken) if "answer" in each[2]]
    for start, end, value in answers[-1:]:
        found.append((start, _outcome(value["answer"]), str(value.get("reason", ""))))
        # Blanked, so that an "answer:" inside of its reason is not taken for another one.
        spoken = spoken[:start] + " " * (end - start) + spoken[end:]
    for tag in list(_TAG.finditer(spoken))[-1:]:
        line = spoken[tag.end() :].lstrip().partition("\n")[0]
        found.append((tag.start(), _first_word(line), _plain_reason(spoken, tag.start())))
    if not found:  # the word alone, with a stop or in bold
        found.append((0, _outcome(spoken.strip(" \t\r\n.!*_`\"'")), ""))
    _, outcome, reason = max(found, key=lambda item: item[0])
    return Vote(
        outcome=outcome or Outcome.UNDECIDED,
        reason=_short(reason),
        readable=outcome is not None,
    )


def count_votes(votes: Sequence[Vote]) -> Ballot:
    """The outcome of ``votes`` by majority of all of them; see the module docstring."""
    successes = sum(vote.outcome is Outcome.SUCCESS for vote in votes)
    failures = sum(vote.outcome is Outcome.FAILURE for vote in votes)
    unreadable = sum(not vote.readable for vote in votes)
    decided = successes + failures
    outcome = Outcome.UNDECIDED
    if 2 * successes > len(votes):
        outcome = Outcome.SUCCESS
    elif 2 * failures > len(votes):
        outcome = Outcome.FAILURE
    counts = {
        "success": successes,
        "failure": failures,
        "unsure": len(votes) - decided - unreadable,
        "unreadable": unreadable,
    }
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    reasons = [vote.reason for vote in votes if vote.outcome is outcome and vote.reason]
    return Ballot(
        outcome=outcome,
        probability=(successes + PRIOR) / (decided + 2 * PRIOR) if decided else None,
        reason=f"{said} of {len(votes)} votes" + (f": {reasons[0]}" if reasons else ""),
    )


def _without_thoughts(text: str) -> str:
    """What follows the thoughts; nothing where they were cut off before they ended."""
    after = text.rpartition("</think>")[2]
    return after.partition("<think>")[0][-READ_CHARACTERS:]


def _objects(text: str) -> list[tuple[int, int, dict[str, Any]]]:
    """(start, end, object with keys in lower case) of JSON objects, inner ones left out."""
    decoder = json.JSONDecoder()
    found = []
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):  # no JSON, or nested beyond all sense
            position = text.find("{", position + 1)
            continue
        found.append((position, end, {key.lower(): item for key, item in value.items()}))
        position = text.find("{", end)
    return found


def _outcome(answer: object) -> Outcome | None:
    if isinstance(answer, bool):
        return Outcome.SUCCESS if answer else Outcome.FAILURE
    return _OUTCOME_OF.get(answer.strip(" .!").lower()) if isinstance(answer, str) else None


def _first_word(line: str) -> Outcome | None:
    match = _WORD.match(line)
    return _OUTCOME_OF[match.group(1).lower()] if match else None


def _plain_reason(text: str, before: int) -> str:
    """What stands after "reason:", else the words before the answer."""
    match = _REASON.search(text)
    return match.group(1).strip(" \"',}") if match else text[:before]


def _short(reason: str) -> str:
    words = " ".join(reason.split())
    return words if len(words) <= REASON_CHARACTERS else words[: REASON_CHARACTERS - 1] + "…"
