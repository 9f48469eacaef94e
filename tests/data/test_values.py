"""Values of others by their kind: what is unknown stays unknown, what is no value is refused."""

import numpy as np
import pytest

from worldeval.data.values import number, success, text, whole_number


@pytest.mark.parametrize(
    ("meaning", "values"),
    [
        (True, [True, 1, 1.0, "True", "yes", " SUCCESS ", "1", [True], np.bool_(True), b"true"]),
        (False, [False, 0, 0.0, "False", "no", "failure", "0", [0], np.array([False])]),
        (None, [None, float("nan"), -1, "-1", "", "nan", "None", "unknown", np.float32("nan")]),
    ],
)
def test_success_is_read_by_its_meaning_and_not_by_its_truth(meaning, values):
    assert [success(value) for value in values] == [meaning] * len(values)


@pytest.mark.parametrize("value", ["maybe", 2, 0.5, -2, [True, False], {}, float("inf")])
def test_what_says_nothing_of_success_is_refused(value):
    with pytest.raises(ValueError, match="says nothing of success"):
        success(value)


def test_numbers_are_no_words_and_words_no_numbers():
    assert [whole_number(v) for v in (3, 3.0, np.int64(3), [3])] == [3] * 4
    assert whole_number(None) is whole_number(float("nan")) is number(None) is None
    for value in (2.5, -1, True, "3", float("inf"), 1e300):
        with pytest.raises(ValueError, match="is no "):
            whole_number(value)
    assert text("do it") == text([b"do it"]) == "do it"
    assert [text(v) for v in (None, "", " ", "nan", "None", "0", 0, float("nan"), [])] == [None] * 9
