"""Intervals of a rate. The computed vectors are in golden/ (test_golden.py)."""

from __future__ import annotations

import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.ranking.intervals import (
    Interval,
    beta_interval,
    clopper_pearson_interval,
    wilson_interval,
)


def _close(interval: Interval, low: float, high: float) -> bool:
    return (interval.low, interval.high) == (
        pytest.approx(low, abs=1e-6),
        pytest.approx(high, abs=1e-6),
    )


def test_bounds_at_the_ends_are_exact():
    assert wilson_interval(0, 7).low == 0.0
    assert wilson_interval(7, 7).high == 1.0
    assert clopper_pearson_interval(7, 7).high == 1.0


def test_no_trials_say_nothing():
    assert wilson_interval(0, 0) == Interval(0.0, 1.0)
    assert clopper_pearson_interval(0, 0) == Interval(0.0, 1.0)
    assert beta_interval(0, 0) == pytest.approx((0.025, 0.975))


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("trials", [10, 40])
def test_clopper_pearson_covers_at_every_rate(trials, rate):
    """The chance that the interval of Binomial(trials, rate) holds the rate, added up exactly."""
    from scipy.stats import binom

    covered = [
        binom.pmf(k, trials, rate)
        for k in range(trials + 1)
        if clopper_pearson_interval(k, trials).low
        <= rate
        <= clopper_pearson_interval(k, trials).high
    ]
    assert sum(covered) >= 0.95


def test_clopper_pearson_is_where_the_tails_are():
    """At the lower bound 7 or more of 9 have a chance of 2.5 %, at the upper 7 or fewer."""
    from scipy.stats import binom

    low, high = clopper_pearson_interval(7, 9)
    assert binom.sf(6, 9, low) == pytest.approx(0.025)
    assert binom.cdf(7, 9, high) == pytest.approx(0.025)


def test_wilson_is_where_the_score_test_stops_rejecting():
    low, high = wilson_interval(13.5, 20)  # half successes count
    for bound in (low, high):
        z = (13.5 / 20 - bound) / (bound * (1 - bound) / 20) ** 0.5
        assert abs(z) == pytest.approx(1.959964, abs=1e-6)


def test_a_prior_must_be_positive():
    with pytest.raises(ConfigError, match="prior is"):
        beta_interval(1, 2, prior=(0.0, 1.0))


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
