"""What a phrase says of success: yes, no, unsure, or nothing that can be relied on.

Enters: the words that stand where an answer should ("No, it stays shut", "success was not
achieved"). Leaves: an Outcome, or None. A word counts by what surrounds it: a negated success is a
failure, while a failure that was avoided, a success that is only hoped for, or words of both sides
say nothing. When in doubt the answer is None, which is nobody's vote: a misread one is a wrong
verdict, an unread one is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from worldeval.types import Outcome

LONGEST_PHRASE = 120
"""Characters up to which a text without any other form may be one phrase."""

_UNSURE = (
    "unsure", "not sure", "uncertain", "undecided", "unclear", "unknown", "cannot tell",
    "can't tell", "can not tell",
)  # fmt: skip
_WORDS = {
    Outcome.SUCCESS: ("yes", "success", "successful", "succeeded", "true"),
    Outcome.FAILURE: ("no", "failure", "fail", "failed", "false", "unsuccessful"),
    Outcome.UNDECIDED: _UNSURE,
}
_OUTCOME_OF = {word: outcome for outcome, words in _WORDS.items() for word in words}
_GOOD = r"success(?:ful(?:ly)?)?|succeed(?:s|ed)?"
_BAD = r"fail(?:s|ed|ure)?|unsuccessful(?:ly)?"
_NOT = r"(?:not|never|no|without|neither|nor|lack of|(?:fail(?:s|ed)?|unable) to|\w+n['’]t|cannot)"
_BETWEEN = r"(?:\s+\w+){0,3}?\s+"


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_ANY = "|".join(re.escape(word) for word in sorted(_OUTCOME_OF, key=len, reverse=True))
# A word that is followed by another choice ("Yes/No/Unsure") repeats the question.
_CHOICE = _compiled(rf"\b(?:{_ANY})\b\W*(?:/|\||\bor\b)\W*(?:{_ANY})\b")
_LEAD = _compiled(rf"\W*(yes|true|no|false|{'|'.join(map(re.escape, _UNSURE))})\b")
_NEXT_FIELD = _compiled(r"[\"'*_`]\s*[,}]\s*[\"']?")
_SUCCESS, _FAILURE = _compiled(rf"\b(?:{_GOOD})\b"), _compiled(rf"\b(?:{_BAD})\b")
_NO_SUCCESS = _compiled(
    rf"\b{_NOT}{_BETWEEN}(?:{_GOOD})\b|\b(?:{_GOOD}){_BETWEEN}(?:not|never|\w+n['’]t)\b"
    r"|\bunsuccessful(?:ly)?\b"
)
_NO_FAILURE = _compiled(
    rf"\b{_NOT}{_BETWEEN}(?:{_BAD})\b"
    rf"|\b(?:{_BAD})\b.*\b(?:avoid|prevent|avert|averted|overcome|not|never|\w+n['’]t)"
)
_NEGATION = _compiled(rf"\b{_NOT}(?:\W|$)")
_HEDGE = _compiled(
    r"\b(?:sure|certain|clear|confirm|tell|know|determine|whether|if|unless|until|maybe|perhaps|"
    r"possibl[ey]|probabl[ey]|likely|only|almost|nearly|hardly|barely|partial(?:ly)?|would|could|"
    r"might|may|should|needs?|requires?|near|close|attempted|doubt\w*|hop\w+|chance)\b"
)
_PLAIN_AFTER_NO = _compiled(r"\s+(?:the|it|its|a|an|this|that|there|because|since|as|robot)\b")


def outcome_of(phrase: str, extra: Mapping[str, Outcome] | None = None) -> Outcome | None:
    """The outcome that ``phrase`` states. extra: further words, of other languages."""
    words = phrase.strip(" \t\r\n.,;:!*_`\"'{}()[]").lower()
    known = {**_OUTCOME_OF, **(extra or {})}
    if words in known:
        return known[words]
    if _CHOICE.search(words):
        return None
    first = re.match(r"\w+", words)
    if first and first[0] in (extra or {}) and not re.match(r"\s*\w", words[first.end() :]):
        return known[first[0]]
    if lead := _LEAD.match(words):
        return _led(lead[1].lower(), words, _NEXT_FIELD.split(words[lead.end() :])[0])
    return _stated(words)


def _led(word: str, words: str, rest: str) -> Outcome | None:
    """Of a phrase that begins with yes, no or unsure, unless what follows takes it back."""
    if word in _UNSURE:
        return Outcome.UNDECIDED
    bad, good = _FAILURE.search(rest), _SUCCESS.search(rest)
    if word in ("yes", "true"):
        return None if bad or _NO_SUCCESS.search(rest) else Outcome.SUCCESS
    if re.match(r"\s+\w", rest) and not _PLAIN_AFTER_NO.match(rest):  # "no success", "no failure"
        return _stated(words)
    if _NO_FAILURE.search(rest) or (good and not _NO_SUCCESS.search(rest)):
        return None
    return Outcome.FAILURE


def _stated(words: str) -> Outcome | None:
    """Of a phrase that speaks of success or failure."""
    if _HEDGE.search(words) or _NO_FAILURE.search(words):
        return None
    if _NO_SUCCESS.search(words):
        return Outcome.FAILURE
    good, bad = _SUCCESS.search(words), _FAILURE.search(words)
    if bool(good) == bool(bad) or (good and _NEGATION.search(words)):
        return None
    return Outcome.SUCCESS if good else Outcome.FAILURE
