"""What a cell of a table means: success or failure, a number, or nothing.

Enters: a cell as text, or a value of a parquet table. Leaves: an ``Outcome``, a number, or that it
is empty. Whatever could mean two things means nothing here, and is refused by ``tables.py``.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from worldeval.data.spreadsheet import tidy
from worldeval.types import Outcome

# What people and spreadsheets write; Excel says TRUE in the language of its user.
_WORDS = {
    Outcome.SUCCESS: "success succeeded successful pass passed true yes t y 1 "
    "wahr ja vrai oui verdadero sí si vero sì waar verdadeiro sim",
    Outcome.FAILURE: "failure failed fail false no f n 0 "
    "falsch nein faux non falso onwaar nee não nao",
    Outcome.UNDECIDED: "undecided unknown ?",
    Outcome.ERROR: "error",
}
MEANING = {word: outcome for outcome, words in _WORDS.items() for word in words.split()}
EMPTY = frozenset(("", "-", "--", "\u2013", "\u2014", "nan", "na", "n/a", "none", "null", "<na>"))
"""What stands in a column of outcomes or numbers where nothing is known; no name is read so."""
NO_MEANING: Final = "no meaning"
EXPECTED = "success or failure, 1 or 0, yes or no, or nothing where it is not known"

_WHOLE = re.compile(r"\+?([01])(?:[.,]0*)?(?:e[+-]?0+)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:e[+-]?\d{1,3})?", re.ASCII)


def is_missing(value: Any) -> bool:
    """Nothing at all: empty text, None, NaN, pandas' NA and NaT. "NA" is a name."""
    if isinstance(value, str):
        return not tidy(value)
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def outcome_of(value: Any) -> Outcome | str | None:
    """What a cell of outcomes says: None where it is empty, NO_MEANING for what says nothing."""
    if type(value) is str and value in MEANING:
        return MEANING[value]
    if is_missing(value):
        return None
    if isinstance(value, str):
        word = tidy(value).casefold()
        if word in EMPTY:
            return None
        if whole := _WHOLE.fullmatch(word):
            word = whole[1]
        return MEANING.get(word, NO_MEANING)
    if isinstance(value, bool | int | float) and value in (0, 1):
        return Outcome.SUCCESS if value else Outcome.FAILURE
    return NO_MEANING


def number_of(value: Any) -> float | None:
    """NaN where a cell is empty, None for what is no number; "0,5" is 0.5."""
    if type(value) is float:
        return value
    if is_missing(value):
        return math.nan
    if isinstance(value, str):
        word = tidy(value).casefold()
        if word in EMPTY:
            return math.nan
        return float(word.replace(",", ".")) if _NUMBER.fullmatch(word) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
