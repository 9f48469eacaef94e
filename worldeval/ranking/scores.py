"""What an outcome counts in a comparison.

In: outcomes, booleans, or scores in [0, 1] (partial credit). Out: float64, NaN where nothing was
decided: UNDECIDED, ERROR, None and NaN. Unknown is never a failure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from worldeval.errors import DataError
from worldeval.types import Outcome

_SCORES: dict[Any, float] = {
    Outcome.SUCCESS: 1.0,
    Outcome.FAILURE: 0.0,
    Outcome.UNDECIDED: math.nan,
    Outcome.ERROR: math.nan,
    None: math.nan,
}


def scores_of(values: Iterable[Any], side: str) -> np.ndarray:
    """(n,) scores in [0, 1] or NaN; ``side`` names the values in a message."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        scores = values.astype(np.float64)
    else:
        scores = np.array([score_of(value, side) for value in values], np.float64)
    if scores.ndim != 1:
        raise DataError(f"{side} has the shape {scores.shape}, expected one score a start state")
    for score in scores[(scores < 0) | (scores > 1)][:1]:
        raise _not_a_score(float(score), side)
    return scores


def score_of(value: Any, side: str) -> float:
    """The score of one outcome, or the score itself."""
    if value is None or isinstance(value, str):
        if value not in _SCORES:
            raise DataError(
                f"{side} has the outcome {value!r}, expected one of {[str(o) for o in Outcome]}"
            )
        return _SCORES[value]
    score = float(value)
    if not (0 <= score <= 1 or math.isnan(score)):
        raise _not_a_score(value, side)
    return score


def _not_a_score(value: Any, side: str) -> DataError:
    return DataError(
        f"{side} has the score {value!r}; expected scores in [0, 1], or NaN where nothing was "
        f"decided"
    )
