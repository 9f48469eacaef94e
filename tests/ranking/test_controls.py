from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.ranking.verdict_tables import table
from worldeval.errors import ConfigError, DataError
from worldeval.ranking.leaderboard import build_leaderboard
from worldeval.ranking.leaderboard.controls import EXPERT, RANDOM, STILL
from worldeval.ranking.selection_regret import selection_regret
from worldeval.reports.ranking.text import render

POLICIES = {"good": {"push": "sss", "pull": "ssf"}, "bad": {"push": "fff", "pull": "sff"}}
FINE = {EXPERT: {"push": "sss", "pull": "sss"}, STILL: {"push": "fff", "pull": "fff"}}


def test_controls_never_rank_and_leave_every_rate_as_it_was():
    plain = build_leaderboard(table(**POLICIES))
    board = build_leaderboard(table(**POLICIES, **FINE))
    assert board.policies == plain.policies and board.per_task == plain.per_task
    assert board.stability == plain.stability and not board.controls.doubts
    assert "The controls went as they should." in render(board)


def test_a_task_where_a_control_succeeds_or_an_expert_fails_is_not_to_be_believed():
    wrong = {EXPERT: {"push": "ssf", "pull": "sss"}, RANDOM: {"push": "fff", "pull": "sff"}}
    board = build_leaderboard(table(**POLICIES, **wrong))
    assert set(board.controls.doubts) == {"push", "pull"}
    assert "push is not to be believed: control-expert is given 67 % of 3" in render(board)
    written = board.to_dict()["controls"]["not_to_be_believed"]["pull"]
    assert written[0].startswith(
        "control-random is given 33 % of 3 rollouts that were taken to fail"
    )


def test_a_control_that_truly_succeeds_raises_no_doubt():
    """Standing still closes a drawer that is shut; an expert's recording that failed may fail."""
    wrong = {EXPERT: {"push": "ssf"}, STILL: {"push": "sff"}}
    seen, true = table(**POLICIES, **wrong), table("true", **POLICIES, **wrong)
    assert not build_leaderboard(seen, true).controls.doubts
    true.loc[(true.policy == STILL), "outcome"] = "failure"
    doubts = build_leaderboard(seen, true).controls.doubts
    assert doubts == {"push": ("control-still is given 33 % of 3 rollouts that truly fail",)}


def test_undecided_controls_say_nothing():
    board = build_leaderboard(table(**POLICIES, **{RANDOM: {"push": "uee"}}))
    assert board.controls.rows == ()


@pytest.mark.parametrize("choices", [1, 2, 3, 5])
def test_regret_of_selection_is_the_mean_over_all_subsets(choices):
    rng = np.random.default_rng(choices)
    true, imagined = rng.random(5), rng.random(5)
    regrets = []
    for subset in itertools.combinations(range(5), choices):
        some = list(subset)
        regrets.append(true[some].max() - true[some][imagined[some].argmax()])
    found = selection_regret(true, imagined, choices)
    assert found.regret == pytest.approx(np.mean(regrets))
    blind = [
        true[list(s)].max() - true[list(s)].mean()
        for s in itertools.combinations(range(5), choices)
    ]
    assert found.random_regret == pytest.approx(np.mean(blind))
    assert found.low <= found.regret <= found.high or choices == 1


def test_perfect_imagination_has_no_regret_and_none_at_all_is_blind():
    rates = np.linspace(0, 1, 9)
    assert selection_regret(rates, rates / 2, 4).regret == pytest.approx(0, abs=1e-12)
    blind = selection_regret(rates, np.full(9, 0.3), 4)
    assert blind.regret == pytest.approx(blind.random_regret)


def test_selection_wants_known_rates_and_a_possible_number():
    with pytest.raises(ConfigError, match="1 to the 2 candidates"):
        selection_regret([0, 1], [0, 1], 3)
    with pytest.raises(DataError, match="unknown"):
        selection_regret([0, float("nan")], [0, 1], 1)
    with pytest.raises(DataError, match="one of each"):
        selection_regret([0, 1], [0], 1)
