"""The correction of a judged rate, and its interval."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.ranking import JudgeCalibration, rogan_gladen, wilson_interval


def test_the_second_vector_of_the_authors():
    """400 rollouts, 100 true outcomes of each kind: computed with the code of Lee et al."""
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.85, positives=100, negatives=100)
    found = judge.correct(200, 400)
    assert found.rate == pytest.approx(0.466667, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.372656, 0.556815), abs=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.8, 1.0])
def test_it_undoes_what_the_judge_does(rate):
    said = rate * 0.8 + (1 - rate) * (1 - 0.9)
    assert rogan_gladen(said, sensitivity=0.8, specificity=0.9).rate == pytest.approx(rate)


@pytest.mark.parametrize(("successes", "trials"), [(30, 100), (5, 40), (36, 40)])
def test_a_perfect_judge_corrects_nothing(successes, trials):
    """Known to be perfect, from as many rollouts as you like: the interval is about Wilson's."""
    found = rogan_gladen(
        successes / trials, 1.0, 1.0, trials=trials, positives=10**7, negatives=10**7
    )
    wilson = wilson_interval(successes, trials)
    assert found.rate == pytest.approx(successes / trials)
    # Agresti & Coull's interval, which Lee et al. start from, has Wilson's centre and is wider.
    assert found.low <= wilson.low and found.high >= wilson.high
    assert (found.low, found.high) == pytest.approx(wilson, abs=0.02)


def test_a_worse_judge_is_less_sure():
    widths = []
    for skill in (0.95, 0.85, 0.75):
        judge = JudgeCalibration(sensitivity=skill, specificity=skill, positives=80, negatives=80)
        found = judge.correct(50, 100)
        widths.append(found.high - found.low)
    assert widths == sorted(widths)


def test_less_calibration_is_less_sure():
    def width(count: int) -> float:
        judge = JudgeCalibration(sensitivity=0.9, specificity=0.8, positives=count, negatives=count)
        found = judge.correct(100, 200)
        return found.high - found.low

    assert width(10) > width(50) > width(1000)


def test_it_covers():
    """2000 times: calibrate a judge on 60 + 60, judge 200 of rate 0.4, correct."""
    rng = np.random.default_rng(5)
    rate, sensitivity, specificity, times = 0.4, 0.85, 0.75, 2000
    said = rng.binomial(200, rate * sensitivity + (1 - rate) * (1 - specificity), times)
    hits, rejections = rng.binomial(60, sensitivity, times), rng.binomial(60, specificity, times)
    covered = 0
    for k, hit, rejection in zip(said, hits, rejections, strict=True):
        found = rogan_gladen(
            k / 200, hit / 60, rejection / 60, trials=200, positives=60, negatives=60
        )
        covered += found.low <= rate <= found.high
    assert covered / times == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("successes", "bound"), [(0, 0.0), (40, 1.0)])
def test_it_stays_between_0_and_1(successes, bound):
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.9, positives=50, negatives=50)
    found = judge.correct(successes, 40)
    assert found.rate == bound
    assert bound in (found.low, found.high)
    assert 0 <= found.low < found.high <= 1


def test_a_single_example_bounds_nothing():
    """One success judged right is, adjusted, 2 of 3: with a specificity of 0.1 a coin."""
    found = rogan_gladen(0.95, 1.0, 0.1, trials=50, positives=1, negatives=100)
    assert found.rate == pytest.approx(0.05 / 0.1)
    assert (found.low, found.high) == (0.0, 1.0)


def test_without_counts_the_rate_has_no_bounds():
    found = rogan_gladen(0.4, 0.9, 0.7)
    assert (found.low, found.high) == (0.0, 1.0)


def test_counts_come_together():
    for given in itertools.combinations(("trials", "positives", "negatives"), 2):
        with pytest.raises(ConfigError, match="needs .* too"):
            rogan_gladen(0.4, 0.9, 0.7, **dict.fromkeys(given, 10))


def test_a_coin_cannot_be_corrected():
    with pytest.raises(ConfigError, match="no better than a coin"):
        JudgeCalibration(sensitivity=0.5, specificity=0.5, positives=9, negatives=9)
    with pytest.raises(ConfigError, match=r"0\.300 \+ specificity 0\.600"):
        rogan_gladen(0.4, 0.3, 0.6)


def test_a_calibration_needs_both_kinds():
    with pytest.raises(ConfigError, match="0 negatives"):
        JudgeCalibration.from_counts(
            true_success=9, false_success=0, false_failure=0, true_failure=0
        )


def test_what_cannot_be():
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.9, positives=50, negatives=50)
    with pytest.raises(DataError, match="0 decided"):
        judge.correct(0, 0)
    with pytest.raises(DataError, match="5 successes of 4"):
        judge.correct(5, 4)
    with pytest.raises(DataError, match="judged rate is nan"):
        rogan_gladen(float("nan"), 0.9, 0.9)
    with pytest.raises(ConfigError, match="sensitivity is 90"):
        rogan_gladen(0.5, 90, 0.9)
    with pytest.raises(ConfigError, match="trials is 0"):
        rogan_gladen(0.5, 0.9, 0.9, trials=0, positives=5, negatives=5)
