from __future__ import annotations

import pandas as pd
import pytest

from tests.ranking.verdict_tables import IMAGINED
from worldeval.errors import DataError
from worldeval.ranking.verdict_table import read_column, read_outcomes, read_trials
from worldeval.types import Outcome

TRIALS = pd.DataFrame(
    {
        "policy": ["a"] * 6,
        "task": ["t"] * 6,
        "start_id": [f"{n:04d}" for n in range(6)],
        "success": ["1", "0", "1.0", "True", "", float("nan")],
    }
)


def test_trials_by_success():
    outcomes = read_trials(TRIALS)
    assert list(outcomes) == [("a", "t", f"000{n}") for n in range(6)]
    s, f, u = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNDECIDED
    assert list(outcomes.values()) == [s, f, s, s, u, u]


def test_trials_by_outcome():
    assert read_trials(IMAGINED) == read_outcomes(IMAGINED, "true")


@pytest.mark.parametrize("value", ["perhaps", 0.5, -1, "2"])
def test_a_trial_that_is_neither(value):
    broken = TRIALS.astype({"success": object})
    broken.loc[1, "success"] = value
    with pytest.raises(DataError, match="'0001'.* has success .*expected success or fail"):
        read_trials(broken)


def test_a_trial_twice():
    with pytest.raises(DataError, match="'0000' more than once"):
        read_trials(pd.concat([TRIALS, TRIALS.iloc[:1]]))


@pytest.mark.parametrize("column", ["policy", "task", "start_id"])
def test_a_row_without_a_name(column):
    broken = IMAGINED.copy()
    broken.loc[3, column] = None
    with pytest.raises(DataError, match=f"row 4 of the imagined verdict .* has no {column}"):
        read_outcomes(broken, "imagined")


def test_neither_outcome_nor_success():
    with pytest.raises(DataError, match=r"lacks the columns \['success'\]"):
        read_trials(TRIALS.drop(columns="success"))


def test_probabilities_that_are_missing():
    table = IMAGINED.assign(probability=[0.25, None] * 12)
    found = read_column(table, "probability")
    assert len(found) == 12 and set(found.values()) == {0.25}
    assert read_column(IMAGINED, "probability") == {}
