"""Single values out of files of others, each checked for its kind: never a guess.

Enters: what JSON or parquet had in one place. Leaves: a whole number, a number, a text or whether
an episode succeeded, None where the place says that nothing is known, and ValueError for anything
else: ``bool("False")`` is true, ``str(None)`` is a word, ``int(2.7)`` is 2, and each of them once
became a result. A list of one value, as writers of LeRobot's shape [1] leave it, is that value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from worldeval.data.cells import EMPTY, outcome_of
from worldeval.types import Outcome

_SUCCEEDED: dict[Any, bool | None] = {
    Outcome.SUCCESS: True,
    Outcome.FAILURE: False,
    Outcome.UNDECIDED: None,
    None: None,
}
_NO_VERDICT = (-1, "-1", "-1.0")
"""As datasets of robots write in a column of numbers that an outcome is not known."""


def single(value: Any) -> Any:
    """The value itself, out of numpy's scalars, out of lists of one, and None for NaN."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8")  # UnicodeDecodeError is a ValueError
    return None if isinstance(value, float) and math.isnan(value) else value


def number(value: Any) -> float | None:
    """A finite number; None for None and NaN. Text, truth values and infinity are none."""
    value = single(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def whole_number(value: Any) -> int | None:
    """A number from 0 on that counts or names something; 3.0 is 3, as pandas writes it."""
    found = number(value)
    if found is None:
        return None
    if found < 0 or found != int(found) or found > 2**53:
        raise ValueError(f"{found:g} is no whole number from 0 on")
    return int(found)


def text(value: Any) -> str | None:
    """A text as it stands; None for nothing, blanks, numbers, and words for nothing ("nan")."""
    value = single(value)
    if not isinstance(value, str):
        return None
    word = value.strip().casefold()
    return None if word in EMPTY or not any(c.isalpha() for c in word) else value


def success(value: Any) -> bool | None:
    """Whether an episode succeeded; None where it is not known. ValueError for other values."""
    value = single(value)
    if isinstance(value, str | int | float) and value in _NO_VERDICT:
        return None
    outcome = outcome_of(value)
    if outcome not in _SUCCEEDED:
        raise ValueError(f"{value!r} says nothing of success")
    return _SUCCEEDED[outcome]
