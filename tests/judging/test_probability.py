import numpy as np
import pytest
from scipy.special import expit

from worldeval.errors import ConfigError, DataError
from worldeval.judging.probability import (
    Calibration,
    Counts,
    calibrate,
    choose_band,
    count,
    fit_platt,
    reliability,
)
from worldeval.types import Outcome


def test_platt_matches_the_closed_form_of_two_scores() -> None:
    """With two distinct scores the two parameters fit both smoothed rates exactly."""
    scores = np.array([-2.0] * 40 + [3.0] * 60)
    labels = np.array([True] * 10 + [False] * 30 + [True] * 45 + [False] * 15)
    high, low = 56 / 57, 1 / 47  # Platt's targets for 55 successes and 45 failures
    rates = {-2.0: (10 * high + 30 * low) / 40, 3.0: (45 * high + 15 * low) / 60}
    fitted = fit_platt(scores, labels)
    for score, rate in rates.items():
        assert fitted.probability(score) == pytest.approx(rate, abs=1e-4)


def test_platt_recovers_the_sigmoid_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(50, 20, 20_000)  # far from zero on purpose
    labels = rng.random(20_000) < expit(0.1 * scores - 4)
    fitted = fit_platt(scores, labels)
    assert fitted.slope == pytest.approx(0.1, rel=0.05)
    assert fitted.intercept == pytest.approx(-4, rel=0.05)


def test_platt_is_never_certain_nor_decreasing() -> None:
    separable = fit_platt(np.array([-1.0, -1.0, 1.0, 1.0]), np.array([False, False, True, True]))
    assert 0.7 < separable.probability(1.0) < 0.8  # Platt's target is (2 + 1) / (2 + 2)
    reversed_ = fit_platt(np.array([1.0, 1.0, -1.0, -1.0]), np.array([False, False, True, True]))
    assert reversed_.slope > 0


def test_weights_act_like_repetition() -> None:
    scores = np.array([-1.0, 0.0, 0.5, 2.0])
    labels = np.array([False, True, False, True])
    repeated = fit_platt(np.repeat(scores, 2)[:-1], np.repeat(labels, 2)[:-1])
    weighted = fit_platt(scores, labels, np.array([2.0, 2.0, 2.0, 1.0]))
    # Equal but for Platt's target smoothing, which counts effective examples (4 against 7).
    assert np.sign(weighted.intercept) == np.sign(repeated.intercept)
    assert weighted.probability(0.2) == pytest.approx(repeated.probability(0.2), abs=0.05)


def test_one_outcome_cannot_be_calibrated() -> None:
    with pytest.raises(DataError, match="same outcome"):
        fit_platt(np.arange(3.0), np.ones(3, bool))


def test_no_abstention_where_the_classes_are_apart() -> None:
    lower, upper, reached = choose_band(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]))
    assert reached and lower == upper == pytest.approx(0.5)


def test_the_band_covers_exactly_the_ambiguous_middle() -> None:
    p = np.concatenate([np.linspace(0.01, 0.2, 40), np.linspace(0.45, 0.55, 20),
                        np.linspace(0.8, 0.99, 40)])  # fmt: skip
    labels = np.concatenate([np.zeros(40), np.arange(20) % 2, np.ones(40)]).astype(bool)
    lower, upper, reached = choose_band(p, labels, target=1.0, max_abstention=0.3)
    assert reached
    outcomes = [Calibration(lower=lower, upper=upper).outcome(value) for value in p]
    # The outermost of the middle happen to be right (a failure first, a success last).
    assert outcomes.count(Outcome.UNDECIDED) == 18
    assert count(outcomes, labels).accuracy == 1.0


def test_an_unreachable_target_stays_within_the_abstention_limit() -> None:
    rng = np.random.default_rng(1)
    p, labels = rng.random(400), rng.random(400) < 0.5
    lower, upper, reached = choose_band(p, labels, target=0.99, max_abstention=0.1)
    assert not reached
    assert np.mean((p >= lower) & (p < upper)) <= 0.1


def test_a_laxer_target_never_abstains_more() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(600)
    labels = rng.random(600) < p
    shares = []
    for target in (0.7, 0.8, 0.9):
        lower, upper, reached = choose_band(p, labels, target=target, max_abstention=1.0)
        assert reached
        shares.append(np.mean((p >= lower) & (p < upper)))
        assert labels[p >= upper].mean() >= target and (~labels[p < lower]).mean() >= target
    assert shares == sorted(shares) and shares[-1] > shares[0]


def test_outcome_borders() -> None:
    band = Calibration(lower=0.3, upper=0.7)
    expected = {0.29: "failure", 0.3: "undecided", 0.69: "undecided", 0.7: "success"}
    assert {p: band.outcome(p).value for p in expected} == expected
    assert band.outcome(float("nan")) is Outcome.UNDECIDED
    with pytest.raises(ConfigError, match=r"lower is 0\.8 and upper is 0\.2"):
        Calibration(lower=0.8, upper=0.2)


def test_counts_and_rates_keep_abstentions_apart() -> None:
    outcomes = [Outcome.SUCCESS] * 8 + [Outcome.FAILURE] * 10 + [Outcome.UNDECIDED] * 2
    labels = np.array([1] * 6 + [0] * 2 + [1] * 1 + [0] * 9 + [1, 0], bool)
    counts = count(outcomes, labels)
    assert counts == Counts(true_positive=6, false_positive=2, false_negative=1, true_negative=9,
                            undecided_positive=1, undecided_negative=1)  # fmt: skip
    assert counts.sensitivity == pytest.approx(6 / 7)
    assert counts.specificity == pytest.approx(9 / 11)
    assert counts.accuracy == pytest.approx(15 / 18)
    assert counts.abstention == pytest.approx(0.1)
    assert np.isnan(Counts().accuracy)
    assert count([Outcome.ERROR], np.array([True])) == Counts()


def test_calibrated_probabilities_are_reliable() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 4, 8000)
    labels = rng.random(8000) < expit(scores)
    fitted, _ = calibrate(scores * 3 + 7, labels)  # overconfident and shifted
    table = reliability(fitted.probability(scores * 3 + 7), labels)
    assert table["count"].sum() == 8000
    assert table.attrs["ece"] < 0.02
    assert fitted.probability(7.0) == pytest.approx(0.5, abs=0.03)


def test_reliability_of_known_bins() -> None:
    table = reliability(np.array([0.1, 0.1, 0.9, 1.0]), np.array([0, 1, 1, 1], bool), bins=2)
    assert table["count"].tolist() == [2, 2]
    assert table["success_rate"].tolist() == [0.5, 1.0]
    assert table.attrs["ece"] == pytest.approx((2 * 0.4 + 2 * 0.05) / 4)
    assert table.attrs["brier"] == pytest.approx((0.01 + 0.81 + 0.01 + 0) / 4)
