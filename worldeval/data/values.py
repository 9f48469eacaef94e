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

_UNKNOWN = frozenset(("", "none", "nan", "null", "na", "n/a", "<na>", "-"))
_SUCCESS = frozenset(("true", "yes", "success", "successful", "succeeded", "1", "1.0"))
_FAILURE = frozenset(("false", "no", "failure", "failed", "fail", "unsuccessful", "0", "0.0"))
_NO_VERDICT = frozenset(("unknown", "undecided", "-1", "-1.0"))
EXPECTED_SUCCESS = "true or false, 1 or 0, success or failure, or nothing where it is not known"


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
    return None if word in _UNKNOWN or not any(c.isalpha() for c in word) else value


def success(value: Any) -> bool | None:
    """Whether an episode succeeded; None where it is not known. ValueError for other values."""
    value = single(value)
    if value is None:
        return None
    if isinstance(value, str):
        word = value.strip().casefold()
        if word in _SUCCESS or word in _FAILURE:
            return word in _SUCCESS
        if word in _UNKNOWN or word in _NO_VERDICT:
            return None
    elif isinstance(value, bool | int | float):
        if value in (0, 1):
            return bool(value)
        if value == -1:
            return None
    raise ValueError(f"{value!r} says nothing of success")
