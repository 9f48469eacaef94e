"""What an outcome counts."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import DataError
from worldeval.ranking.scores import score_of, scores_of
from worldeval.types import Outcome


def test_unknown_is_not_failure():
    found = scores_of([*Outcome, None, float("nan"), True, 0, 0.25], "a")
    expected = [1.0, 0.0, np.nan, np.nan, np.nan, np.nan, 1.0, 0.0, 0.25]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores_of(np.array([True, False]), "a"), [1.0, 0.0])


def test_words_of_a_table_are_outcomes():
    assert (score_of("success", "a"), score_of("failure", "a")) == (1.0, 0.0)
    assert np.isnan(score_of("undecided", "a"))


@pytest.mark.parametrize("value", [-1, 1.5, float("inf")])
def test_no_score(value):
    with pytest.raises(DataError, match=f"b has the score {value}; expected scores in"):
        score_of(value, "b")
    with pytest.raises(DataError, match="b has the score"):
        scores_of(np.array([0.0, value]), "b")


def test_no_outcome():
    with pytest.raises(DataError, match="b has the outcome 'won', expected one of"):
        scores_of(["success", "won"], "b")


def test_a_table_is_no_row_of_scores():
    with pytest.raises(DataError, match=r"b has the shape \(2, 2\)"):
        scores_of(np.zeros((2, 2)), "b")
