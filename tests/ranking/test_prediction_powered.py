"""Few true trials and many imagined ones."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking import (
    prediction_powered_difference,
    prediction_powered_mean,
    wilson_interval,
)
from worldeval.types import Outcome

METHODS = ["normal", "control-variate", "wilson"]


def world(rng, n: int, only: int, rate: float = 0.5, follows: float = 0.8, luck: float = 0.6):
    """True outcomes, and imagined ones that follow them in ``follows`` of all, else a coin."""
    true = (rng.random(n + only) < rate).astype(float)
    coin = (rng.random(n + only) < luck).astype(float)
    imagined = np.where(rng.random(n + only) < follows, true, coin)
    return true[:n], imagined[:n], imagined[n:]


@pytest.mark.parametrize("method", METHODS)
def test_lam_0_is_the_true_trials_alone(method):
    y, f, u = world(np.random.default_rng(0), 30, 200)
    found = prediction_powered_mean(y, f, u, lam=0.0, method=method)
    alone = found.real_only
    assert (found.estimate, found.low, found.high) == (alone.rate, alone.low, alone.high)
    assert found.estimate == pytest.approx(y.mean())


def test_wilson_alone_is_wilson():
    y, f, u = world(np.random.default_rng(0), 30, 200)
    alone = prediction_powered_mean(y, f, u, method="wilson").real_only
    assert (alone.low, alone.high) == pytest.approx(wilson_interval(y.sum(), 30))


@pytest.mark.parametrize("method", METHODS)
def test_perfect_imagination_is_worth_a_true_trial_each(method):
    """F = Y everywhere: the estimate is the mean over all start states, weighed by lam."""
    y, _, u = world(np.random.default_rng(1), 50, 450)
    found = prediction_powered_mean(y, y, u, method=method)
    everything = np.concatenate([y, u])
    assert found.lam == pytest.approx(0.9, abs=0.03)
    assert found.estimate == pytest.approx(everything.mean(), abs=0.01)
    assert found.standard_error == pytest.approx(everything.std() / 500**0.5, rel=0.06)


@pytest.mark.parametrize("method", METHODS)
def test_imagination_that_knows_nothing_is_not_believed(method):
    """Imagined outcomes in a pattern that has nothing to do with the true ones."""
    y, f, u = np.tile([0, 0, 1, 1], 10), np.tile([0, 1], 20), np.tile([0, 1], 100)
    found = prediction_powered_mean(y, f, u, method=method)
    assert found.lam == 0.0
    assert found.estimate == found.real_only.rate


@pytest.mark.parametrize("method", METHODS)
def test_imagination_may_be_wrong_as_it_likes(method):
    """Imagined outcomes that are too good by far leave the estimate where the truth is."""
    rng = np.random.default_rng(2)
    found = [
        prediction_powered_mean(*world(rng, 40, 400, 0.3, 0.5, 1.0), method=method).estimate
        for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(0.3, abs=0.012)


def test_published_intervals_cover_with_many_trials():
    rng = np.random.default_rng(3)
    covered = narrower = 0
    for _ in range(1500):
        found = prediction_powered_mean(*world(rng, 150, 1000))
        covered += found.low <= 0.5 <= found.high
        narrower += found.high - found.low < 0.8 * (found.real_only.high - found.real_only.low)
    assert covered / 1500 == pytest.approx(0.95, abs=0.015)
    assert narrower / 1500 > 0.95


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_wilson_covers_with_few_trials(rate):
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(1500):
        found = prediction_powered_mean(*world(rng, 20, 180, rate), method="wilson")
        covered += found.low <= rate <= found.high
    assert covered / 1500 == pytest.approx(0.95, abs=0.02)


def test_all_successes():
    """The published interval has no width where nothing varies; Wilson's knows better."""
    y, f, u = [1] * 10, [1] * 9 + [0], [1] * 80 + [0] * 20
    published = prediction_powered_mean(y, f, u)
    assert published.low == published.high == 1.0
    found = prediction_powered_mean(y, f, u, method="wilson")
    assert (found.low, found.high) == pytest.approx(wilson_interval(10, 10))


def test_constant_imagination_says_nothing():
    found = prediction_powered_mean([0, 1, 1, 0], [1] * 4, [1] * 50)
    assert (found.lam, found.estimate) == (0.0, 0.5)


def test_without_further_imagination():
    assert prediction_powered_mean([0, 1, 1], [0, 1, 0], []).lam == 0.0
    with pytest.raises(ConfigError, match="no imagined-only"):
        prediction_powered_mean([0, 1, 1], [0, 1, 0], [], lam=0.5)


def test_partial_credit_and_outcomes():
    s, f = Outcome.SUCCESS, Outcome.FAILURE
    of_words = prediction_powered_mean([s, f, f], [s, f, s], [s, s, f])
    assert of_words == prediction_powered_mean([1, 0, 0], [1, 0, 1], [1, 1, 0])
    scores = prediction_powered_mean([0.5, 0.25, 1.0], [0.4, 0.3, 0.9], [0.2, 0.6], lam=1.0)
    assert scores.estimate == pytest.approx(0.4 + (0.1 - 0.05 + 0.1) / 3)


def test_difference_covers():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        a, b = world(rng, 100, 500, 0.4), world(rng, 60, 600, 0.7)
        found = prediction_powered_difference(a, b, method="wilson")
        covered += found.low <= 0.3 <= found.high
    assert covered / 1000 == pytest.approx(0.95, abs=0.02)


def test_difference_adds_variances():
    rng = np.random.default_rng(6)
    a, b = world(rng, 100, 500, 0.4), world(rng, 60, 600, 0.7)
    found, mirrored = prediction_powered_difference(a, b), prediction_powered_difference(b, a)
    error = np.hypot(found.a.standard_error, found.b.standard_error)
    assert found.estimate == pytest.approx(found.b.estimate - found.a.estimate)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error, abs=1e-6)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert found.real_only.rate == pytest.approx(b[0].mean() - a[0].mean())


def test_what_cannot_be():
    with pytest.raises(DataError, match="1 true trials"):
        prediction_powered_mean([1], [1], [0, 1])
    with pytest.raises(DataError, match="1 of 3 outcomes of imagined_paired are undecided"):
        prediction_powered_mean([1, 0, 1], [1, Outcome.UNDECIDED, 0], [0, 1])
    with pytest.raises(MismatchError, match="3 true trials but 2 imagined"):
        prediction_powered_mean([1, 0, 1], [1, 0], [0, 1])
    with pytest.raises(DataError, match="imagined_only has the score"):
        prediction_powered_mean([1, 0], [1, 0], [50.0])
    with pytest.raises(ConfigError, match="lam is 2"):
        prediction_powered_mean([1, 0], [1, 0], [1], lam=2)
    with pytest.raises(ConfigError, match="'bootstrap'"):
        prediction_powered_mean([1, 0], [1, 0], [1], method="bootstrap")
