from __future__ import annotations

import pytest

from worldeval.ranking.intervals import wilson_interval
from worldeval.ranking.outcome_counts import OutcomeCounts, over_tasks


def tally(successes: int, trials: int, undecided: int = 0) -> OutcomeCounts:
    return OutcomeCounts(successes=successes, failures=trials - successes, undecided=undecided)


def test_rollouts_are_simply_counted():
    joined = over_tasks({"a": tally(8, 10, 3), "b": tally(1, 2)}, "rollouts")
    assert (joined.successes, joined.decided, joined.undecided) == (9, 12, 3)
    assert joined.rate == 0.75 and joined.effective == 12
    assert joined.interval == wilson_interval(9, 12)


def test_kish_effective_rollouts():
    joined = over_tasks({"a": tally(8, 10), "b": tally(1, 2)}, "equal")
    assert joined.rate == pytest.approx(0.65)
    assert joined.effective == pytest.approx(1 / (0.25 / 10 + 0.25 / 2))
    assert joined.interval == wilson_interval(0.65 * joined.effective, joined.effective)
    assert joined.decided == 12, "the counts stay those of the rollouts"


def test_weights_in_proportion_to_the_rollouts_are_worth_all_of_them():
    parts = {"a": tally(3, 10), "b": tally(15, 30)}
    joined = over_tasks(parts, {"a": 1, "b": 3})
    assert joined.rate == pytest.approx(18 / 40)
    assert joined.effective == pytest.approx(40)


def test_a_task_without_decisions_gives_its_weight_to_the_others():
    joined = over_tasks({"a": tally(1, 4), "b": tally(0, 0, 5)}, "equal")
    assert (joined.rate, joined.effective, joined.undecided) == (0.25, 4.0, 5)


def test_nothing_decided_where_it_counts():
    joined = over_tasks({"a": tally(1, 4), "b": tally(0, 0, 5)}, {"a": 0, "b": 1})
    assert joined.rate is None and joined.interval == (0, 1) and joined.undecided == 5


@pytest.mark.parametrize("successes", [0, 7])
def test_rates_of_zero_and_one_stay_inside(successes):
    parts = {task: tally(successes, 7) for task in "abc"}
    joined = over_tasks(parts, {"a": 0.1, "b": 0.2, "c": 0.3})
    assert joined.rate == pytest.approx(successes / 7)
    low, high = joined.interval
    assert 0 <= low < high <= 1
