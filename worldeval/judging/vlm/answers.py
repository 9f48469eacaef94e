"""From what a model wrote to a vote, and from votes to an outcome.

Enters: the texts of several answers. Leaves: one ``Ballot`` with outcome, probability and reason.

An answer is asked for as a JSON object ``{"reason": ..., "answer": "yes" | "no" | "unsure"}``; a
line such as ``Answer: Yes``, a JSON object inside of other words and a single phrase are read too
(``phrases.py`` says what a phrase means).
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worldeval.judging.vlm.phrases import LONGEST_PHRASE, outcome_of
from worldeval.types import Outcome

REASON_CHARACTERS = 300
"""A longer reason is cut: it goes into a table."""
READ_CHARACTERS = 10_000
"""Only the end of a longer text is read: the last answer counts, and bad JSON takes long."""
PRIOR = 0.5
"""Jeffreys' pseudo-votes on each side."""

ANSWER_KEYS = ("answer", "final_answer", "verdict", "success", "outcome")
"""Under which an object may answer; the first that it has counts, ``answer`` is asked for."""
_THOUGHT = r"(?:think|thinking|thought|thoughts|reasoning)"
_THOUGHTS_END = re.compile(
    rf"(?:</{_THOUGHT}>|◁/think▷|\[/THINK\]|<\|channel\|>final<\|message\|>)", re.IGNORECASE
)
_THOUGHTS_BEGIN = re.compile(
    rf"(?:<{_THOUGHT}>|◁think▷|\[THINK\]|<\|channel\|>(?:analysis|commentary))", re.IGNORECASE
)
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


def read_answer(text: str, extra: Mapping[str, Outcome] | None = None) -> Vote:
    """The vote in what a model wrote; see the module docstring. extra: see ``phrases.py``."""
    spoken = _without_thoughts(text)
    found: list[tuple[int, Outcome | None, str]] = []  # place, outcome, reason
    answers = [each for each in _objects(spoken) if _answer_key(each[2])]
    for start, end, value in answers[-1:]:
        given = _outcome(value[_answer_key(value)], extra)
        found.append((start, given, str(value.get("reason", ""))))
        # Blanked, so that an "answer:" inside of its reason is not taken for another one.
        spoken = spoken[:start] + " " * (end - start) + spoken[end:]
    for tag in list(_TAG.finditer(spoken))[-1:]:
        line = spoken[tag.end() :].lstrip().partition("\n")[0]
        found.append((tag.start(), outcome_of(line, extra), _plain_reason(spoken, tag.start())))
    if not found and len(alone := spoken.strip()) <= LONGEST_PHRASE and "\n" not in alone:
        found.append((0, outcome_of(alone, extra), ""))
    if not found:
        return Vote(outcome=Outcome.UNDECIDED, reason="", readable=False)
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
    after = _THOUGHTS_END.split(text)[-1]
    return _THOUGHTS_BEGIN.split(after)[0][-READ_CHARACTERS:]


def _answer_key(value: Mapping[str, Any]) -> str:
    """Under which key an object answers; empty where it does not."""
    return next((key for key in ANSWER_KEYS if key in value), "")


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


def _outcome(answer: object, extra: Mapping[str, Outcome] | None) -> Outcome | None:
    if isinstance(answer, bool):
        return Outcome.SUCCESS if answer else Outcome.FAILURE
    return outcome_of(answer, extra) if isinstance(answer, str) else None


def _plain_reason(text: str, before: int) -> str:
    """What stands after "reason:", else the words before the answer."""
    match = _REASON.search(text)
    return match.group(1).strip(" \"',}") if match else text[:before]


def _short(reason: str) -> str:
    words = " ".join(reason.split())
    return words if len(words) <= REASON_CHARACTERS else words[: REASON_CHARACTERS - 1] + "…"
