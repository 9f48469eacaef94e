from __future__ import annotations

import numpy as np
import pytest

from worldeval.ranking.comparisons import barnard_test, difference_interval
from worldeval.ranking.leaderboard.pairwise_tests import PairwiseTests
from worldeval.ranking.outcome_counts import count_by_task, over_tasks
from worldeval.types import Outcome

OUTCOMES = {1: Outcome.SUCCESS, 0: Outcome.FAILURE}


def pairwise(outcomes: dict, **options):
    """And the counts over all tasks that they belong to."""
    weights = options.get("weights", "rollouts")
    counts = {n: over_tasks(parts, weights) for n, parts in count_by_task(outcomes).items()}
    return PairwiseTests(outcomes=outcomes, **options).over_tasks(counts), counts


def by_counts(counts: dict[str, tuple[int, int]], **options):
    """Policies that have no start state in common."""
    outcomes = {
        (name, "t", f"{name} {i}"): OUTCOMES[i < successes]
        for name, (successes, trials) in counts.items()
        for i in range(trials)
    }
    return pairwise(outcomes, **options)[0]


def by_starts(scores, tasks=None, **options):
    """Rows of scores are policies "0", "1", ...; all from the same start states."""
    scores = np.asarray(scores, float)
    tasks = tasks or ["t"] * scores.shape[1]
    outcomes = {
        (str(i), task, str(k)): OUTCOMES.get(score, Outcome.UNDECIDED)
        for i, row in enumerate(scores)
        for k, (task, score) in enumerate(zip(tasks, row.tolist(), strict=True))
    }
    return pairwise(outcomes, **options)


def test_counts_give_barnards_p_and_the_published_letters():
    counts = {"A": (45, 50), "B": (38, 50), "C": (33, 50), "D": (20, 50)}
    found = by_counts(counts)
    pair = found.between("B", "A")
    assert pair.p_value == pytest.approx(0.067534, abs=1e-6)
    assert pair.difference == pytest.approx(-0.14)
    assert (pair.low, pair.high) == tuple(difference_interval(45, 50, 38, 50))
    assert not pair.paired
    assert found.letters == {"A": "a", "B": "ab", "C": "b", "D": "c"}
    assert by_counts(counts, correction="bonferroni").letters["C"] == "bc"


def test_many_rollouts_are_tested_in_little_time():
    """Fisher's p of a large table lies near Barnard's and is not below it."""
    pair = by_counts({"A": (450, 600), "B": (410, 600)}).comparisons[0]
    exact = barnard_test(450, 600, 410, 600).p_value
    assert exact <= pair.p_value < 1.5 * exact
    assert by_counts({"A": (1900, 2000), "B": (1, 2000)}).comparisons[0].p_value < 1e-12


def test_starts_are_compared_one_by_one():
    found, _ = by_starts([[1] * 10, [0] * 10, [0] * 5 + [1] * 5])
    assert found.between("0", "1").p_value == pytest.approx(2 * 0.5**10)
    assert found.between("0", "2").p_value == pytest.approx(2 * 0.5**5)
    assert found.between("1", "0").difference == -1.0
    assert found.letters == {"0": "a", "1": "b", "2": "ab"}
    assert found.told_apart == 1


def test_an_undecided_start_leaves_its_pair_out():
    found, _ = by_starts([[1, 1, 1, np.nan], [0, 0, np.nan, 0]])
    assert found.comparisons[0].rollouts == 2
    assert found.comparisons[0].p_value == 0.5


@pytest.mark.parametrize("weights", ["equal", {"a": 1, "b": 5, "c": 0}])
def test_a_weighted_difference_is_that_of_the_weighted_rates(weights):
    rng = np.random.default_rng(3)
    tasks = ["a"] * 20 + ["b"] * 7 + ["c"] * 3
    scores = (rng.random((2, 30)) < [[0.8], [0.4]]).astype(float)
    found, counts = by_starts(scores, tasks, weights=weights)
    pair = found.comparisons[0]
    assert pair.difference == pytest.approx(counts["1"].rate - counts["0"].rate)
    assert pair.low < pair.difference < pair.high


def test_weights_that_are_equal_for_all_rollouts_change_nothing():
    rng = np.random.default_rng(4)
    scores = (rng.random((3, 20)) < 0.5).astype(float)
    tasks = ["a", "b"] * 10
    plain, _ = by_starts(scores, tasks)
    equal, _ = by_starts(scores, tasks, weights="equal")
    assert plain.comparisons == equal.comparisons


def test_plans_are_for_neighbours_and_relative_to_the_observed_rates():
    found = by_counts({"A": (14, 20), "B": (10, 20), "C": (0, 20)})
    (plan,) = found.plans
    assert (plan.a, plan.b, plan.rollouts, plan.have) == ("A", "B", 93, 20)
    assert plan.rollouts_among_all > 93
    assert plan.sentence.startswith("To separate A from B you need 93 rollouts each")
    (pair,) = by_counts({"A": (5, 10), "B": (5, 10)}).plans
    assert pair.rollouts is None and "no number of rollouts separates equals" in pair.sentence


def test_a_single_pair_needs_no_correction():
    (plan,) = by_counts({"A": (14, 20), "B": (10, 20)}).plans
    assert plan.rollouts == plan.rollouts_among_all == 93
    assert plan.sentence == "To separate A from B you need 93 rollouts each; there are 20."


def test_no_false_differences_among_equals():
    """Family-wise: any difference at all among five equal policies in at most 5 % of boards."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        found, _ = by_starts(rng.random((5, 40)) < 0.6)
        wrong += found.told_apart > 0
    assert wrong <= 0.05 * 200 + 6  # two standard deviations of chance
