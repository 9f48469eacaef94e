"""E-values: what a fair bet is worth, whichever way the pairs hang together."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.ranking import SequentialComparison, e_values
from worldeval.types import Outcome

PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))

# Chance of each of PAIRS; a and b succeed equally often in all of them, or a more often.
NULLS = {
    "independent, 0.5": (0.25, 0.25, 0.25, 0.25),
    "independent, 0.2": (0.64, 0.16, 0.16, 0.04),
    "positive dependence": (0.45, 0.05, 0.05, 0.45),
    "negative dependence": (0.05, 0.45, 0.45, 0.05),
    "always opposite": (0.0, 0.5, 0.5, 0.0),
    "a is better": (0.2, 0.1, 0.4, 0.3),
}


def expected_e(method: str, chances: tuple[float, ...], pairs: int) -> np.ndarray:
    """(pairs,) exact expectation of E after each pair, over all 4^pairs outcomes."""
    outcomes = np.array(list(itertools.product(range(4), repeat=pairs)))
    weight = np.prod(np.array(chances)[outcomes], axis=1)
    return weight @ e_values(np.array(PAIRS)[outcomes], method)


@pytest.mark.parametrize("null", NULLS)
def test_betting_expects_at_most_1_whatever_the_dependence(null):
    expected = expected_e("betting", NULLS[null], 6)
    assert (expected <= 1 + 1e-12).all()
    if null != "a is better":
        assert expected == pytest.approx(1.0)  # a martingale: the bet is fair


def test_turner_grunwald_expects_at_most_1_of_independent_outcomes():
    for null in ("independent, 0.5", "independent, 0.2"):
        assert (expected_e("turner-grunwald", NULLS[null], 6) <= 1 + 1e-12).all()


def test_turner_grunwald_expects_more_than_1_under_negative_dependence():
    """Why it is not for rollouts from the same start states: 10/9 after the first pair, and so on.

    The factor of (0, 1) is (2/3)^2 / (1/2)^2 = 16/9, that of (1, 0) 4/9: their mean is 10/9.
    """
    expected = expected_e("turner-grunwald", NULLS["always opposite"], 6)
    assert expected[0] == pytest.approx(10 / 9)
    assert (np.diff(expected) >= 0).all() and expected[-1] > 1.2
    assert expected_e("turner-grunwald", NULLS["negative dependence"], 6)[-1] > 1.1


def test_betting_is_fair_for_scores_between():
    """Scores 0, 1/2, 1 whose difference has mean 0, though b is the surer one."""
    outcomes = [((0.0, 0.5), 0.5), ((1.0, 0.5), 0.5)]
    draws = list(itertools.product(outcomes, repeat=5))
    pairs = np.array([[pair for pair, _ in draw] for draw in draws])
    weight = np.array([math.prod(chance for _, chance in draw) for draw in draws])
    assert weight @ e_values(pairs, "betting") == pytest.approx(1.0)


def test_betting_by_hand():
    """One pair won: the mean of 1 + xi is 3/2. Won and lost: that of 1 - xi^2, about 2/3."""
    assert e_values([(0, 1)], "betting") == pytest.approx([1.5])
    assert e_values([(0, 1), (1, 0)], "betting")[1] == pytest.approx(2 / 3, abs=1e-4)
    assert e_values([(1, 1), (0, 0)], "betting") == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("method", ["betting", "turner-grunwald"])
def test_unknown_pairs_are_left_out(method):
    known = [(0, 1), (1, 1), (0, 1)]
    holes = [(0, 1), (None, 1), (1, 1), (0, Outcome.UNDECIDED), (0, 1)]
    running = e_values(holes, method)
    assert running[[0, 2, 4]] == pytest.approx(e_values(known, method))
    assert running[1] == running[0] and running[3] == running[2]


@pytest.mark.parametrize("method", ["betting", "turner-grunwald"])
def test_leading_axes_are_separate(method):
    pairs = np.random.default_rng(0).integers(0, 2, (3, 4, 10, 2))
    together = e_values(pairs, method)
    assert together.shape == (3, 4, 10)
    assert together[2, 1] == pytest.approx(e_values(pairs[2, 1], method))


def test_no_pairs():
    assert e_values(np.zeros((0, 2)), "betting").shape == (0,)


def test_thousands_of_wins_stay_finite():
    running = e_values(np.tile([0, 1], (5000, 1)), "betting")
    assert np.isfinite(running).all() and (np.diff(running) >= 0).all()


def test_it_finds_the_better_one():
    rng = np.random.default_rng(3)
    pairs = np.stack([rng.random((300, 100)) < 0.4, rng.random((300, 100)) < 0.75], axis=-1)
    for method in ("betting", "turner-grunwald"):
        assert (e_values(pairs, method).max(axis=1) >= 20).mean() > 0.95


def test_false_alarms_under_optional_stopping():
    """2000 comparisons of equal policies on shared scenes, looked at after each of 200 pairs."""
    rng = np.random.default_rng(4)
    scene = rng.beta(0.5, 0.5, (2000, 200, 1))
    pairs = rng.random((2000, 200, 2)) < scene
    alarms = e_values(pairs, "betting").max(axis=1) >= 20
    assert alarms.mean() <= 0.05


# --- SequentialComparison ----------------------------------------------------------------------


def test_a_comparison_runs_both_bets():
    rng = np.random.default_rng(5)
    pairs = rng.integers(0, 2, (40, 2))
    comparison = SequentialComparison()
    for a, b in pairs:
        comparison.add(a, b)
    assert comparison.e_b_better == pytest.approx(e_values(pairs, "betting")[-1])
    assert comparison.e_a_better == pytest.approx(e_values(pairs[:, ::-1], "betting")[-1])
    most = max(e_values(pairs, "betting").max(), e_values(pairs[:, ::-1], "betting").max())
    assert comparison.p_value == pytest.approx(min(1.0, 2 / most))


@pytest.mark.parametrize("better", ["a", "b"])
def test_a_decision_comes_at_2_over_alpha_and_stays(better):
    win = {"a": (Outcome.SUCCESS, Outcome.FAILURE), "b": (Outcome.FAILURE, Outcome.SUCCESS)}
    lose = {"a": win["b"], "b": win["a"]}
    comparison = SequentialComparison(alpha=0.1)
    while comparison.decision is None:
        assert max(comparison.e_a_better, comparison.e_b_better) < 20
        comparison.add(*win[better])
    assert comparison.decision == better
    assert comparison.p_value <= 0.1
    decided_at = comparison.p_value
    for _ in range(100):
        comparison.add(*lose[better])
    assert comparison.decision == better
    assert comparison.p_value <= decided_at


def test_undecided_pairs_are_counted_apart():
    comparison = SequentialComparison()
    comparison.add(Outcome.ERROR, 1)
    comparison.add(1, None)
    comparison.add(0, 1)
    assert (comparison.pairs, comparison.undecided) == (1, 2)
    assert comparison.e_b_better == pytest.approx(1.5)


def test_all_ties_decide_nothing():
    comparison = SequentialComparison()
    for _ in range(1000):
        comparison.add(1, 1)
    assert comparison.decision is None
    assert comparison.p_value == 1.0


def test_scores_between_need_betting():
    SequentialComparison().add(0.25, 0.75)
    with pytest.raises(DataError, match="method='betting'"):
        SequentialComparison(method="turner-grunwald").add(0.25, 0.75)
    with pytest.raises(DataError, match="0 and 1 only"):
        e_values([(0.5, 1.0)])


def test_what_cannot_be():
    with pytest.raises(ConfigError, match="alpha is 5"):
        SequentialComparison(alpha=5)
    with pytest.raises(ConfigError, match="'bet'"):
        SequentialComparison(method="bet")
    with pytest.raises(DataError, match=r"\(3,\)"):
        e_values([0, 1, 1])
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        e_values([(0, 2)], "betting")
    with pytest.raises(DataError, match="a has the outcome 'won'"):
        SequentialComparison().add("won", 1)
