"""A few true trials joined with imagined rollouts: what helps, what does not, and how it covers."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import DataError, MismatchError
from worldeval.ranking.intervals import wilson_interval
from worldeval.ranking.prediction_powered_rates import prediction_powered_rates
from worldeval.types import Outcome

TASKS = ("a", "b", "c", "d")


def outcomes(policies: np.ndarray) -> dict:
    """(policies, starts) of 0 and 1 to outcomes by cell; the tasks take turns."""
    return {
        (f"p{i}", TASKS[s % 4], f"{TASKS[s % 4]}/{s}"): (
            Outcome.SUCCESS if value else Outcome.FAILURE
        )
        for i, row in enumerate(policies)
        for s, value in enumerate(row)
    }


def few(cells: dict, starts: set[int]) -> dict:
    return {cell: o for cell, o in cells.items() if int(cell[2].split("/")[1]) in starts}


def draw(rng: np.random.Generator, policies: int = 6, starts: int = 80) -> np.ndarray:
    """Truth in which tasks and policies matter."""
    level = np.linspace(-1.5, 1.5, policies)[:, None] + np.tile([-1.5, -0.5, 0.5, 1.5], starts // 4)
    return (rng.random((policies, starts)) < 1 / (1 + np.exp(-level))).astype(float)


def test_imagination_that_is_right_narrows_and_one_that_is_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    true = draw(rng)
    tried = few(outcomes(true), set(range(8)))
    right = prediction_powered_rates(outcomes(true), tried)
    noise = prediction_powered_rates(outcomes(rng.random(true.shape) < 0.5), tried)
    assert right["p3"].explained > 0.8 and right["p3"].narrower > 0.4
    assert right["p3"].estimate == pytest.approx(true[3].mean(), abs=0.05)
    assert noise["p3"].explained < 0.25


def test_without_help_the_answer_is_that_of_the_true_trials() -> None:
    """An imagination in which everybody succeeds says nothing about anybody, nor does the task."""
    tried = few(outcomes(np.tile([1.0, 0, 0, 1, 0, 1, 1, 0], (5, 1))), set(range(8)))
    rates = prediction_powered_rates(outcomes(np.ones((5, 40))), tried)
    for rate in rates.values():
        assert not rate.helps and rate.narrower is None
        assert (rate.low, rate.high) == wilson_interval(4, 8)
        assert (rate.estimate, rate.real_only.rate) == (0.5, 0.5)


def test_all_successes_do_not_make_an_interval_of_no_width() -> None:
    rates = prediction_powered_rates(
        outcomes(np.ones((4, 40))), few(outcomes(np.ones((4, 40))), set(range(8)))
    )
    assert rates["p0"].estimate == 1.0
    assert rates["p0"].low < 0.8


def test_one_policy_alone_is_compared_with_its_own_imagination() -> None:
    true = np.array([[1.0, 0] * 20])
    wrong = true.copy()
    wrong[0, :4] = 1 - wrong[0, :4]
    rate = prediction_powered_rates(outcomes(wrong), few(outcomes(true), set(range(20))))["p0"]
    assert rate.helps and rate.trials == 20 and rate.imagined == 40
    # lambda = cov / var of the 20 pairs: 16 agree, so lambda = 0.6, and the means are all 1/2.
    assert rate.estimate == pytest.approx(0.5)
    assert rate.explained == pytest.approx(1 - 0.64 * 19 / 18)


def test_a_flattering_imagination_is_not_believed() -> None:
    """Imagined successes are too many by a third; the joined rates are right on average."""
    rng = np.random.default_rng(1)
    true = draw(rng)
    flattered = np.maximum(true, rng.random(true.shape) < 0.33)
    errors = []
    for _ in range(60):
        rates = prediction_powered_rates(
            outcomes(flattered), few(outcomes(true), set(rng.permutation(80)[:12].tolist()))
        )
        errors.append([rates[f"p{i}"].estimate - true[i].mean() for i in range(6)])
    assert flattered.mean() - true.mean() > 0.1
    assert abs(np.mean(errors)) < 0.02


def test_intervals_cover_and_are_narrower() -> None:
    rng = np.random.default_rng(2)
    covered, width = [], []
    for _ in range(60):
        true = draw(rng)
        seen = np.where(rng.random(true.shape) < 0.85, true, 1 - true)
        rates = prediction_powered_rates(
            outcomes(seen), few(outcomes(true), set(rng.permutation(80)[:12].tolist()))
        )
        for i in range(6):
            rate = rates[f"p{i}"]
            covered.append(rate.low <= true[i].mean() <= rate.high)
            width.append([rate.high - rate.low, rate.real_only.high - rate.real_only.low])
    joined, alone = np.mean(width, axis=0)
    assert np.mean(covered) > 0.93
    assert joined < 0.85 * alone


def test_undecided_imagination_is_half_and_errors_are_left_out() -> None:
    true = draw(np.random.default_rng(3))
    said = outcomes(true)
    tried = few(outcomes(true), set(range(8)))
    cells = [cell for cell in said if cell[0] == "p0"]
    said[cells[-1]] = Outcome.ERROR
    said[cells[-2]] = Outcome.UNDECIDED
    rate = prediction_powered_rates(said, tried)["p0"]
    assert rate.imagined == 79


def test_true_trials_that_were_not_imagined_are_refused() -> None:
    true = outcomes(np.ones((2, 8)))
    with pytest.raises(MismatchError, match="1 of 1 true trials .* 'p9'"):
        prediction_powered_rates(true, {("p9", "a", "a/0"): Outcome.SUCCESS})
    with pytest.raises(DataError, match="none of the 1 true trials"):
        prediction_powered_rates(true, {("p0", "a", "a/0"): Outcome.UNDECIDED})
