"""Rates of a policy on which the judge was not measured, by its errors on other policies."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.ranking import Confusion, PeerErrors
from worldeval.ranking.outcome_counts import OutcomeCounts


def cell(rate: float, hit: float, rejection: float, rollouts: int = 100) -> Confusion:
    """What is expected of so many rollouts."""
    good = round(rate * rollouts)
    bad = rollouts - good
    found, refused = round(good * hit), round(bad * rejection)
    return Confusion(
        true_success=found,
        false_failure=good - found,
        true_failure=refused,
        false_success=bad - refused,
    )


def tally(judged: float, rollouts: int = 100) -> OutcomeCounts:
    successes = round(judged * rollouts)
    return OutcomeCounts(successes=successes, failures=rollouts - successes)


# A judge that errs in its own way in each task, on all policies alike.
ERRORS = {"open": (0.9, 0.6), "close": (0.6, 0.9)}
RATES = {"a": (0.2, 0.5), "b": (0.5, 0.8), "c": (0.8, 0.3), "d": (0.4, 0.4)}


def peers(rollouts: int = 1000) -> PeerErrors:
    return PeerErrors(
        peers={
            name: {
                task: cell(rate, *ERRORS[task], rollouts)
                for task, rate in zip(ERRORS, rates, strict=True)
            }
            for name, rates in RATES.items()
        }
    )


def said(**rates: float) -> dict[str, OutcomeCounts]:
    judged = {
        task: rate * ERRORS[task][0] + (1 - rate) * (1 - ERRORS[task][1])
        for task, rate in rates.items()
    }
    return {task: tally(rate, 1000) for task, rate in judged.items()}


@pytest.mark.parametrize("rates", [(0.1, 0.9), (0.5, 0.5), (0.9, 0.2)])
def test_it_undoes_errors_that_differ_between_tasks(rates):
    judged = said(open=rates[0], close=rates[1])
    found = peers().correct(judged)
    assert found.rate == pytest.approx(np.mean(rates), abs=0.005)
    # The formula holds for every peer too, so that the interval is narrow.
    assert found.low < np.mean(rates) < found.high < found.low + 0.03


def test_tasks_weigh_as_the_leaderboard_says():
    judged = said(open=0.9, close=0.2)
    assert peers().correct(judged, {"open": 3, "close": 1}).rate == pytest.approx(0.725, abs=0.005)
    few = judged | {"close": tally(judged["close"].rate, 100)}
    assert peers().correct(few).rate == pytest.approx((10 * 0.9 + 0.2) / 11, abs=0.005)
    assert peers().correct(few, "equal").rate == pytest.approx(0.55, abs=0.005)


def test_the_interval_is_how_wrong_the_others_would_be():
    """Three peers of 100 rollouts, one task, a judge that is nearly perfect on two of them:

    each rate is foretold from the other two, and the squared errors give the width.
    """
    cells = {"a": cell(0.5, 1, 1), "b": cell(0.5, 1, 1), "c": cell(0.5, 0.8, 1)}
    errors = PeerErrors(peers={name: {"t": one} for name, one in cells.items()})
    # (right + 1) / (examples + 2) over the two others, then (p + sp - 1) / (se + sp - 1)
    sp = 101 / 102
    of_good = (0.5 + sp - 1) / (91 / 102 + sp - 1)
    of_bad = (0.4 + sp - 1) / (101 / 102 + sp - 1)
    spread = np.sqrt((2 * (of_good - 0.5) ** 2 + (of_bad - 0.5) ** 2) / 3)
    found = errors.correct({"t": tally(0.6)})
    half = 3.182446 * spread  # 97.5 % of Student's t with 3 degrees of freedom
    assert (found.low, found.high) == pytest.approx((found.rate - half, found.rate + half))
    sure = errors.correct({"t": tally(0.6)}, confidence=0.5)
    assert sure.rate == found.rate and sure.high - sure.low < 0.3 * (found.high - found.low)


def test_fewer_rollouts_are_less_sure():
    errors = peers(100)
    widths = []
    for rollouts in (1000, 100, 60, 30):
        found = errors.correct({task: tally(0.5, rollouts) for task in ERRORS})
        widths.append(found.high - found.low)
    # More than the peers had cannot show how unlike them the policy is.
    assert widths[0] == widths[1] < widths[2] < widths[3]


def test_a_task_in_which_the_judge_is_a_coin_stays_as_judged():
    coin = {name: {"t": cell(0.5, 0.5, 0.5)} for name in "abc"}
    assert PeerErrors(peers=coin).correct({"t": tally(0.3)}).rate == pytest.approx(0.3)


def test_one_weak_task_does_not_carry_the_rate_away():
    """0 of 100 where a quarter of the failures was said to succeed on others: at most 0."""
    cells = {"weak": cell(0.5, 0.5, 0.75), "good": cell(0.5, 1, 1)}
    errors = PeerErrors(peers=dict.fromkeys("abc", cells))
    assert errors.correct({"weak": tally(0), "good": tally(0.5)}).rate == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("spread", "policies", "tasks", "rollouts"),
    [(0.0, 12, 10, 10), (0.5, 12, 10, 10), (0.5, 5, 10, 10), (0.3, 12, 3, 30), (0.5, 12, 10, 100)],
)
def test_it_covers(spread, policies, tasks, rollouts):
    """Errors that differ between tasks, policies and both, rates from hardly ever to always."""
    rng = np.random.default_rng(policies + rollouts)
    times, covered = 400, 0
    for _ in range(times):
        shape = (policies + 1, tasks)
        hit, rejection = (
            logistic(
                rng.normal(1.6, 1, tasks)
                + rng.normal(0, spread, (policies + 1, 1))
                + rng.normal(0, spread, shape)
            )
            for _ in range(2)
        )
        true = logistic(rng.normal(0, 2, (policies + 1, 1)) + rng.normal(0, 1.3, shape))
        good = rng.binomial(10, true)
        found, refused = rng.binomial(good, hit), rng.binomial(10 - good, rejection)
        errors = PeerErrors(
            peers={
                str(i): {
                    str(t): Confusion(
                        true_success=found[i, t],
                        false_success=10 - good[i, t] - refused[i, t],
                        true_failure=refused[i, t],
                        false_failure=good[i, t] - found[i, t],
                    )
                    for t in range(tasks)
                }
                for i in range(policies)
            }
        )
        judged = true[-1] * hit[-1] + (1 - true[-1]) * (1 - rejection[-1])
        successes = rng.binomial(rollouts, judged)
        estimate = errors.correct(
            {
                str(t): OutcomeCounts(successes=k, failures=rollouts - k)
                for t, k in enumerate(successes)
            }
        )
        covered += estimate.low <= true[-1].mean() <= estimate.high
    assert 0.925 <= covered / times <= 0.985


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_what_cannot_be():
    one = {"t": cell(0.5, 0.9, 0.9)}
    with pytest.raises(ConfigError, match=r"policies \['a', 'b'\], expected at least 3"):
        PeerErrors(peers={"a": one, "b": one, "c": {"t": Confusion()}})
    errors = PeerErrors(peers={"a": one, "b": one, "c": one})
    with pytest.raises(DataError, match="0 decided"):
        errors.correct({"t": OutcomeCounts(undecided=3)})
    with pytest.raises(DataError, match="0 decided"):
        errors.correct({})
    with pytest.raises(ConfigError, match="confidence is 95"):
        errors.correct({"t": tally(0.5)}, confidence=95)
    # No peer carried out this task: nothing is known of it.
    found = errors.correct({"other": tally(0.5)})
    assert (found.rate, found.low, found.high) == (0.5, 0.0, 1.0)
