"""Intervals against published and independently computed values.

The vectors were computed with scipy 1.17.1 and statsmodels 0.15.0; those of Rogan-Gladen with the
code of Lee et al. (arXiv 2511.21140).
"""

from __future__ import annotations

import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.ranking.intervals import (
    Interval,
    JudgeCalibration,
    beta_interval,
    clopper_pearson_interval,
    rogan_gladen,
    wilson_interval,
)


def _close(interval: Interval, low: float, high: float) -> bool:
    return (interval.low, interval.high) == (
        pytest.approx(low, abs=1e-6),
        pytest.approx(high, abs=1e-6),
    )


@pytest.mark.parametrize(
    ("interval", "successes", "trials", "low", "high"),
    [
        (wilson_interval, 0, 10, 0, 0.277533),
        (wilson_interval, 18, 20, 0.698966, 0.972134),
        (wilson_interval, 14, 50, 0.174742, 0.416651),
        (clopper_pearson_interval, 0, 10, 0, 0.308497),
        (clopper_pearson_interval, 18, 20, 0.683017, 0.987651),
        (clopper_pearson_interval, 14, 50, 0.162311, 0.424905),
        (beta_interval, 0, 10, 0.002299, 0.284914),
        (beta_interval, 18, 20, 0.696226, 0.969511),
    ],
)
def test_golden(interval, successes, trials, low, high):
    assert _close(interval(successes, trials), low, high)


@pytest.mark.parametrize(
    ("trials", "half"),
    [(10, 0.263), (20, 0.201), (50, 0.134), (100, 0.096), (200, 0.069), (1000, 0.031)],
)
def test_wilson_half_width_at_half(trials, half):
    bounds = wilson_interval(trials / 2, trials)
    assert (bounds.high - bounds.low) / 2 == pytest.approx(half, abs=5e-4)


def test_bounds_at_the_ends_are_exact():
    assert wilson_interval(0, 7).low == 0.0
    assert wilson_interval(7, 7).high == 1.0
    assert clopper_pearson_interval(7, 7).high == 1.0


def test_no_trials_say_nothing():
    assert wilson_interval(0, 0) == Interval(0.0, 1.0)
    assert clopper_pearson_interval(0, 0) == Interval(0.0, 1.0)


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval, beta_interval])
def test_mirrored_counts_give_mirrored_bounds(interval):
    few, many = interval(3, 17), interval(14, 17)
    assert _close(few, 1 - many.high, 1 - many.low)


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval, beta_interval])
def test_more_confidence_is_wider(interval):
    assert interval(5, 12, confidence=0.99).low < interval(5, 12, confidence=0.9).low


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2), (0, -1), (float("nan"), 4)])
def test_impossible_counts(successes, trials):
    with pytest.raises(DataError, match="successes of"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_impossible_confidence(confidence):
    with pytest.raises(ConfigError, match=str(confidence)):
        wilson_interval(1, 2, confidence=confidence)


@pytest.mark.parametrize(
    ("judged", "trials", "sensitivity", "specificity", "count", "expected"),
    [
        (400, 1000, 0.9, 0.7, 200, (0.166667, 0.056351, 0.262733)),
        (200, 400, 0.9, 0.85, 100, (0.466667, 0.372656, 0.556815)),
    ],
)
def test_rogan_gladen_golden(judged, trials, sensitivity, specificity, count, expected):
    judge = JudgeCalibration(
        sensitivity=sensitivity, specificity=specificity, positives=count, negatives=count
    )
    estimate = rogan_gladen(judged, trials, judge)
    assert (estimate.rate, estimate.low, estimate.high) == pytest.approx(expected, abs=1e-6)


def test_rogan_gladen_from_a_confusion_table():
    judge = JudgeCalibration.from_counts(
        true_success=26, false_success=39, false_failure=8, true_failure=127
    )
    assert rogan_gladen(40, 100, judge).rate == pytest.approx(0.311572, abs=1e-6)


def test_rogan_gladen_undoes_the_judge():
    """A judge that errs so on a true rate of 0.3 says 0.3 * 0.8 + 0.7 * 0.1 = 0.31."""
    judge = JudgeCalibration(sensitivity=0.8, specificity=0.9, positives=500, negatives=500)
    assert rogan_gladen(3100, 10000, judge).rate == pytest.approx(0.3)


def test_rogan_gladen_stays_in_the_unit_interval():
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.9, positives=50, negatives=50)
    nothing, everything = rogan_gladen(0, 40, judge), rogan_gladen(40, 40, judge)
    assert nothing.rate == nothing.low == 0.0
    assert everything.rate == everything.high == 1.0


def test_a_coin_cannot_be_corrected():
    with pytest.raises(ConfigError, match="no better than a coin"):
        JudgeCalibration(sensitivity=0.5, specificity=0.5, positives=9, negatives=9)


def test_a_calibration_needs_both_kinds():
    with pytest.raises(ConfigError, match="0 negatives"):
        JudgeCalibration.from_counts(
            true_success=9, false_success=0, false_failure=0, true_failure=0
        )


def test_correcting_nothing():
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.9, positives=50, negatives=50)
    with pytest.raises(DataError, match="0 decided"):
        rogan_gladen(0, 0, judge)
