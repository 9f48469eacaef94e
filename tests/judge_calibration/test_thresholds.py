"""Where to cut a probability, and what a cut costs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from worldeval.errors import DataError
from worldeval.judge_calibration.thresholds import choose_thresholds, of_counts, steadiest_cut
from worldeval.judging.probability import Counts


def judged(seed: int = 0, n: int = 4000, gap: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two classes ``gap`` apart with unit spread, as their true probabilities."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.5
    scores = rng.normal(np.where(labels, gap / 2, -gap / 2))
    return expit(gap * scores), labels


def test_the_error_of_a_corrected_rate_is_what_simulation_gives() -> None:
    rng = np.random.default_rng(0)
    se, sp, positives, negatives, draws = 0.9, 0.7, 200, 300, 20_000
    n = positives + negatives
    hit = rng.binomial(positives, se, draws) / positives
    reject = rng.binomial(negatives, sp, draws) / negatives
    judged_rate = rng.binomial(n, 0.4 * se + 0.6 * (1 - sp), draws) / n
    corrected = (judged_rate + reject - 1) / (hit + reject - 1)
    counts = Counts(true_positive=180, false_negative=20, true_negative=210, false_positive=90)
    said = of_counts("as judged", None, None, counts)
    assert said.standard_error == pytest.approx(corrected.std(), rel=0.03)
    assert said.precision == pytest.approx(180 / 270)
    assert said.rejection == pytest.approx(210 / 230)


def test_equal_classes_are_cut_in_the_middle() -> None:
    assert steadiest_cut(*judged()) == pytest.approx(0.5, abs=0.15)


def test_the_steadiest_cut_ignores_a_bias_of_the_probabilities() -> None:
    """A judge who says twice the logit and three more is cut elsewhere, at the same scores."""
    p, labels = judged()
    logit = np.log(p / (1 - p))
    biased = expit(2 * logit + 3)
    plain, moved = choose_thresholds(p, labels)[1], choose_thresholds(biased, labels)[1]
    assert moved.lower == pytest.approx(expit(3), abs=0.03)
    assert moved.standard_error == pytest.approx(plain.standard_error, rel=0.02)
    assert moved.abstention == plain.abstention == 0


def test_precision_costs_abstentions() -> None:
    p, labels = judged()
    lax, strict = (choose_thresholds(p, labels, precision=share)[0] for share in (0.85, 0.9))
    for threshold, share in ((lax, 0.85), (strict, 0.9)):
        assert threshold.reached
        assert threshold.precision >= share and threshold.rejection >= share
    assert lax.abstention < strict.abstention <= 0.25
    unreachable = choose_thresholds(p, labels, precision=1.0, max_abstention=0.1)[0]
    assert not unreachable.reached and unreachable.abstention <= 0.1


def test_a_judge_that_knows_nothing_has_no_corrected_rate() -> None:
    counts = Counts(true_positive=5, false_negative=5, true_negative=5, false_positive=5)
    assert of_counts("as judged", None, None, counts).standard_error is None
    assert steadiest_cut(np.full(6, 0.3), np.array([0, 1, 0, 1, 0, 1], bool)) == 0.5


def test_what_is_no_probability_is_told() -> None:
    labels = np.array([True, False])
    for wrong in ([0.5, 1.5], [0.5, np.nan]):
        with pytest.raises(DataError, match=r"outside \[0, 1\] or are missing"):
            choose_thresholds(np.array(wrong), labels)
    with pytest.raises(DataError, match="same outcome"):
        choose_thresholds(np.array([0.1, 0.2]), np.array([True, True]))
