"""What a phrase says of success: yes, no, unsure, or nothing that can be relied on.

Enters: the words that stand where an answer should ("No, it stays shut", "success was not
achieved"). Leaves: an Outcome, or None. A word counts by what surrounds it: a negated success is a
failure, while a failure that was avoided, a success that is only hoped for, or words of both sides
say nothing. When in doubt the answer is None, which is nobody's vote: a misread one is a wrong
verdict, an unread one is reported.
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
_NOT = (
    r"(?:not|never|no|non|zero|none|nothing|without|neither|nor|lack(?:s|ed|ing)?(?: of)?"
    r"|(?:fail(?:s|ed)?|unable) to|\w+n['’]t|cannot)"
)
_BETWEEN = r"(?:\s+\w+){0,3}?\s+"


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_ANY = "|".join(re.escape(word) for word in sorted(_OUTCOME_OF, key=len, reverse=True))
# A word that is followed by another choice ("Yes/No/Unsure") repeats the question.
_CHOICE = _compiled(rf"\b(?:{_ANY})\b\W*(?:/|\||\bor\b)\W*(?:{_ANY})\b")
_LEAD = _compiled(rf"\W*(yes|true|no|false|{'|'.join(map(re.escape, _UNSURE))})\b(?!-\w)")
_FIELD = _compiled(rf"\W*(?:task[ _])?(?:{_GOOD})[\s\"'*_`]*[:=]+[\s\"'*_`]*")  # success: false
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
# What follows a yes or no and takes it back: the other word, a condition, a question, a share.
_TAKES_BACK = (
    r"[?→]|->|\b(?:unsure|maybe|perhaps|if|unless|until|almost|nearly|partial(?:ly)?|partly|barely|"
    r"hardly|probabl[ey]|possibl[ey]|negative|positive"
)
_TAKES_BACK_YES = _compiled(rf"{_TAKES_BACK}|no|nope|false)\b")
_TAKES_BACK_NO = _compiled(rf"{_TAKES_BACK}|yes|yeah|true)\b")
_GLUED = _compiled(
    rf"(?:[-\d%/]\s*(?:{_GOOD}|{_BAD})|\b(?:{_GOOD}|{_BAD})\s*[-/=])\b|\bto\s+fail\b"
)
# A noun or an adjective is believed among plain words only: what turns "success" round is without
# end ("success is elusive", "far from successful", "a success rate of zero").
_PLAIN = frozenset(
    re.findall(
        r"\w+",
        "the a an this that it its is was were has have had been be and very truly really "
        "robot arm gripper policy task goal attempt attempts episode rollout trial try action "
        "actions verdict outcome result answer final my as deemed considered judged rated "
        "achieved reached complete completed completely full fully clear clearly total "
        "overall in i we he she they all both video frames frame at end by of yes true",
    )
)
_DONE = _compiled(r"\bsuccessfully\b|\b(?:succeed(?:s|ed)?|successful)\s+(?:in|at)\s+\w+ing\b")
_NEGATION = _compiled(rf"\b{_NOT}(?:\W|$)")
_HEDGE = _compiled(
    r"\b(?:sure|certain|clear|confirm|tell|know|determine|whether|if|unless|until|maybe|perhaps|"
    r"possibl[ey]|probabl[ey]|likely|only|almost|nearly|hardly|barely|partial(?:ly)?|would|could|"
    r"might|may|should|needs?|requires?|near|close|attempted|doubt\w*|hop\w+|chance|unlikely|"
    r"seem\w*|appear\w*|anything|far|false|miss\w*|instead|but|until|tr(?:y|ies|ied|ying) to)\b"
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
    if field := _FIELD.match(words):
        return _in_field(words[field.end() :])
    return _stated(words)


def _led(word: str, words: str, rest: str) -> Outcome | None:
    """Of a phrase that begins with yes, no or unsure, unless what follows takes it back."""
    if word in _UNSURE:
        return Outcome.UNDECIDED
    bad, good = _FAILURE.search(rest), _SUCCESS.search(rest)
    if word in ("yes", "true"):
        doubted = bad or _NO_SUCCESS.search(rest) or _TAKES_BACK_YES.search(rest)
        return None if doubted else Outcome.SUCCESS
    if re.match(r"\s+\w", rest) and not _PLAIN_AFTER_NO.match(rest):  # "no success", "no failure"
        return _stated(words)
    if (
        _NO_FAILURE.search(rest)
        or _TAKES_BACK_NO.search(rest)
        or (good and not _NO_SUCCESS.search(rest))
    ):
        return None
    return Outcome.FAILURE


def _in_field(value: str) -> Outcome | None:
    """Of what stands after "success:", a value or the reason for it."""
    if _PLAIN_AFTER_NO.match(f" {value}"):  # "success: the drawer is open" begins as a yes does
        return _led("yes", f"yes {value}", value) if not _NEGATION.search(value) else None
    return outcome_of(value)


def _stated(words: str) -> Outcome | None:
    """Of a phrase that speaks of success or failure."""
    if _HEDGE.search(words) or _NO_FAILURE.search(words) or _GLUED.search(words):
        return None
    if _NO_SUCCESS.search(words):
        return Outcome.FAILURE
    good, bad = _SUCCESS.search(words), _FAILURE.search(words)
    if bool(good) == bool(bad) or (good and _NEGATION.search(words)):
        return None
    if good and not _DONE.search(words):
        others = set(re.findall(r"\w+", _SUCCESS.sub(" ", words)))
        return Outcome.SUCCESS if others <= _PLAIN else None
    return Outcome.SUCCESS if good else Outcome.FAILURE
