"""Tests and intervals of two policies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.ranking.exact import barnard_in_fractions
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking import barnard_test, difference_interval, paired_test
from worldeval.types import Outcome

S, F, U, E = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNDECIDED, Outcome.ERROR


# --- Barnard -----------------------------------------------------------------------------------


def test_barnard_is_exact_for_one_trial_each():
    """0 of 1 against 1 of 1: under a common rate p this or its mirror has a chance 2 p (1 - p),
    at most 1/2 (and one of them 1/4)."""
    assert barnard_test(0, 1, 1, 1).p_value == pytest.approx(0.5)
    assert barnard_test(0, 1, 1, 1, alternative="less").p_value == pytest.approx(0.25)


@pytest.mark.parametrize(
    "counts",
    [(28, 50, 46, 50), (5, 10, 9, 10), (2, 30, 9, 15), (0, 12, 3, 7)],
)
@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_barnard_is_that_of_scipy(counts, alternative):
    from scipy.stats import barnard_exact

    k_a, n_a, k_b, n_b = counts
    table = [[k_a, k_b], [n_a - k_a, n_b - k_b]]
    expected = barnard_exact(table, alternative=alternative, pooled=n_a == n_b)
    found = barnard_test(*counts, alternative=alternative)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)


@pytest.mark.parametrize("counts", [(7, 19, 13, 19), (3, 3, 2, 3), (11, 19, 5, 19)])
def test_barnard_counts_outcomes_that_tie(counts):
    """scipy 1.17 loses these to rounding and gives less."""
    a, trials, b, _ = counts
    expected = barnard_in_fractions(a, b, trials)
    assert barnard_test(*counts).p_value == pytest.approx(expected, rel=1e-6)


def test_barnard_sides():
    less = barnard_test(3, 20, 11, 20, alternative="less").p_value
    greater = barnard_test(3, 20, 11, 20, alternative="greater").p_value
    mirrored = barnard_test(11, 20, 3, 20, alternative="greater").p_value
    assert less < 0.01 < 0.9 < greater
    assert mirrored == pytest.approx(less)
    assert barnard_test(3, 20, 11, 20).statistic < 0 < barnard_test(11, 20, 3, 20).statistic


def test_barnard_of_unequal_trials():
    assert barnard_test(2, 30, 9, 15).p_value < 0.002
    assert barnard_test(10, 30, 5, 15).p_value > 0.9


@pytest.mark.parametrize("successes", [0, 10])
def test_barnard_of_samples_that_do_not_vary(successes):
    found = barnard_test(successes, 10, successes, 10)
    assert (found.statistic, found.p_value) == (0.0, 1.0)


def test_barnard_of_bad_counts():
    with pytest.raises(DataError, match="b has 0 trials"):
        barnard_test(1, 2, 0, 0)
    with pytest.raises(DataError, match="whole counts"):
        barnard_test(1.5, 2, 1, 2)
    with pytest.raises(DataError, match="3 successes of 2"):
        barnard_test(3, 2, 1, 2)
    with pytest.raises(ConfigError, match="'two_sided'"):
        barnard_test(1, 2, 1, 2, alternative="two_sided")


# --- Newcombe ----------------------------------------------------------------------------------


def test_newcombe_on_his_own_example():
    """56/70 against 48/80 (Newcombe 1998, table II, case a, method 10)."""
    assert difference_interval(48, 80, 56, 70) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_difference_mirrors():
    low, high = difference_interval(3, 17, 9, 12)
    assert difference_interval(9, 12, 3, 17) == pytest.approx((-high, -low))
    assert low < 9 / 12 - 3 / 17 < high


def test_difference_of_no_trials():
    assert difference_interval(0, 0, 3, 4) == (-1.0, 1.0)
    assert difference_interval(3, 4, 0, 0) == (-1.0, 1.0)


def test_difference_of_all_successes_keeps_a_width():
    low, high = difference_interval(10, 10, 10, 10)
    assert -0.3 < low < 0 < high < 0.3
    low, high = difference_interval(0, 10, 10, 10)
    assert low > 0.5 and high == 1.0


# --- pairs -------------------------------------------------------------------------------------


def test_pairs_are_counted():
    a = [S, S, F, F, S, U, F, E]
    b = [S, F, S, F, F, S, U, F]
    found = paired_test(a, b)
    assert (found.both, found.only_a, found.only_b, found.neither) == (1, 2, 1, 1)
    assert (found.pairs, found.undecided) == (5, 3)
    assert found.difference == pytest.approx(-1 / 5)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 1), (0, 5), (2, 7), (4, 4), (3, 30)])
def test_mcnemar_is_a_coin(only_a, only_b):
    """Twice the chance that a coin shows so few of the rarer side, the ties apart."""
    from scipy.stats import binomtest

    a = [1] * only_a + [0] * only_b + [1, 0] * 10
    b = [0] * only_a + [1] * only_b + [1, 0] * 10
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert paired_test(a, b).p_value == pytest.approx(expected)


def test_the_permutation_test_is_an_enumeration():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 9))
    d = b - a
    flips = np.array(list(itertools.product((-1, 1), repeat=9)))
    expected = (np.abs(flips @ d) >= abs(d.sum()) - 1e-12).mean()
    assert paired_test(a, b).p_value == pytest.approx(expected)


def test_outcomes_as_scores_give_mcnemar():
    """The sign flips of 0.999-point differences are those of a coin."""
    a = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0.0])
    b = 1 - a
    assert paired_test(0.999 * a, 0.999 * b).p_value == pytest.approx(paired_test(a, b).p_value)


def test_drawn_flips_agree_with_counted_ones():
    """Above 12 differing pairs the flips are drawn: the normal tail, and McNemar's coin."""
    a = np.array([1] * 12 + [0] * 30 + [1] * 20, float)
    b = np.array([0] * 12 + [1] * 30 + [1] * 20, float)
    exact = paired_test(a, b).p_value
    assert 0.005 < exact < 0.01
    drawn = paired_test(0.5 * a, 0.5 * b)
    assert drawn.p_value == pytest.approx(exact, abs=0.003)
    assert drawn == paired_test(0.5 * a, 0.5 * b)
    assert paired_test(np.zeros(300), np.full(300, 0.25)).p_value == 1e-4  # of 9999 flips and 1


def test_the_test_does_not_see_more_than_there_is():
    """Under equal policies on scenes that both share, p <= 0.05 comes in at most 5 of 100."""
    rng = np.random.default_rng(1)
    scene = rng.beta(0.5, 0.5, (2000, 30))
    outcomes = rng.random((2, 2000, 30)) < scene
    small = [paired_test(a, b).p_value <= 0.05 for a, b in zip(*outcomes, strict=True)]
    assert np.mean(small) <= 0.05


@pytest.mark.parametrize("pairs", [20, 60])
def test_the_interval_covers(pairs):
    """2000 samples of dependent pairs: a succeeds in 0.6, b in 0.8."""
    rng = np.random.default_rng(2)
    cells = rng.multinomial(pairs, (0.5, 0.1, 0.3, 0.1), 2000)  # both, a, b, neither
    covered = 0
    for both, only_a, only_b, neither in cells:
        a = [1] * (both + only_a) + [0] * (only_b + neither)
        b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
        found = paired_test(a, b)
        covered += found.low <= 0.2 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("value", [0, 1])
def test_all_ties(value):
    found = paired_test([value] * 20, [value] * 20)
    assert (found.p_value, found.difference) == (1.0, 0.0)
    assert found.low == pytest.approx(-found.high)
    assert 0.05 < found.high < 0.2


def test_a_last_bit_is_no_difference():
    found = paired_test([0.3] * 10, [0.1 + 0.2] * 10)
    assert (found.only_a, found.only_b, found.p_value) == (0, 0, 1.0)


def test_mappings_pair_by_start_state():
    a = {"s1": S, "s2": F, "s3": F}
    b = {"s3": S, "s1": S, "s2": F}
    found = paired_test(a, b)
    assert (found.only_b, found.both, found.neither) == (1, 1, 1)


def test_unequal_start_states_are_refused_by_name():
    a = {"drawer/0": 1, "drawer/1": 0, "shelf/7": 1}
    b = {"drawer/0": 1, "drawer/1": 0, "shelf/8": 1, "shelf/9": 0}
    with pytest.raises(MismatchError, match=r"a alone has 'shelf/7', b alone 'shelf/8', 'shelf/9'"):
        paired_test(a, b)
    with pytest.raises(MismatchError, match="5 and 3 more, b alone none"):
        paired_test({k: 1 for k in range(9)}, {0: 1})
    with pytest.raises(MismatchError, match="a has 2 outcomes, b 3"):
        paired_test([1, 0], [1, 0, 1])
    with pytest.raises(MismatchError, match="one of each"):
        paired_test({0: 1}, [1])


def test_nothing_to_compare():
    with pytest.raises(DataError, match="none of 0 start states"):
        paired_test([], [])
    with pytest.raises(DataError, match="none of 2 start states"):
        paired_test([U, S], [F, None])


@pytest.mark.parametrize("wrong", ["won", 2, -0.1, float("inf")])
def test_scores_that_are_none(wrong):
    with pytest.raises(DataError, match="b has the"):
        paired_test([1, 0], [1, wrong])


def test_impossible_confidence():
    with pytest.raises(ConfigError, match="confidence is 95"):
        paired_test([1, 0], [0, 1], confidence=95)
