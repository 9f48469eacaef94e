"""Strengths from games."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.ranking import bradley_terry

GAMES = {("A", "B"): (7, 3, 2), ("B", "C"): (6, 2, 1), ("A", "C"): (8, 1, 1)}


def play(theta: dict[str, float], nu: float, each: int, seed: int) -> list:
    """Rows (a, b, result, round) of the model itself, every pair ``each`` times."""
    rng = np.random.default_rng(seed)
    rows = []
    for a, b in itertools.combinations(theta, 2):
        weights = np.array(
            [math.exp(theta[a]), math.exp(theta[b]), 2 * nu * math.exp((theta[a] + theta[b]) / 2)]
        )
        results = rng.choice([1.0, 0.0, 0.5], size=each, p=weights / weights.sum())
        rows += [(a, b, float(result), i) for i, result in enumerate(results)]
    return rows


def test_many_games_give_the_strengths_back():
    theta = {"A": 1.0, "B": 0.4, "C": 0.0, "D": -1.4}
    found = bradley_terry(play(theta, nu=0.3, each=4000, seed=0))
    assert found.names == tuple(theta)
    assert found.theta == pytest.approx(list(theta.values()), abs=0.06)
    assert found.nu == pytest.approx(0.3, abs=0.02)
    assert sum(found.theta) == pytest.approx(0.0, abs=1e-9)


def test_two_policies_by_hand():
    """30 wins, 10 losses: t_a - t_b = log 3, its variance 1/30 + 1/10, that of t_a a quarter."""
    found = bradley_terry({("A", "B"): (30, 10, 0)})
    assert found.theta == pytest.approx((math.log(3) / 2, -math.log(3) / 2))
    assert found.sd == pytest.approx([math.sqrt(1 / 30 + 1 / 10) / 2] * 2)
    assert found.nu == 0.0


def test_ties_do_not_move_two_policies():
    """Between two, Davidson's strengths come from the games with a winner; ties are in nu.

    P(tie) / sqrt(P(win) P(loss)) = 2 nu.
    """
    found = bradley_terry({("A", "B"): (30, 10, 20)})
    assert found.theta[0] - found.theta[1] == pytest.approx(math.log(3))
    assert found.nu == pytest.approx(20 / math.sqrt(30 * 10) / 2)


def test_without_ties_it_is_the_maximum_of_plain_bradley_terry():
    """The golden games without ties; computed with choix 0.4.1."""
    found = bradley_terry({pair: (*counts[:2], 0) for pair, counts in GAMES.items()})
    assert found.theta == pytest.approx((0.963351, 0.087620, -1.050971), abs=1e-6)


def test_rows_mappings_and_turned_games_agree():
    rows = [
        (a, b, result, None)
        for (a, b), counts in GAMES.items()
        for result, count in zip((1.0, 0.0, 0.5), counts, strict=True)
        for _ in range(count)
    ]
    turned = {(b, a): (losses, wins, ties) for (a, b), (wins, losses, ties) in GAMES.items()}
    of_counts, of_rows, of_turned = map(bradley_terry, (GAMES, rows, turned))
    assert of_rows.theta == pytest.approx(of_counts.theta)
    assert dict(zip(of_turned.names, of_turned.theta, strict=True)) == pytest.approx(
        dict(zip(of_counts.names, of_counts.theta, strict=True))
    )


def test_intervals_from_standard_errors():
    found = bradley_terry(GAMES)
    for score, sd, bounds in zip(found.scores, found.sd, found.intervals, strict=True):
        assert bounds is not None
        half = 1.959964 * 200 * sd
        assert bounds == pytest.approx((score - half, score + half), abs=1e-3)


def test_the_bootstrap_of_single_games_agrees_with_the_standard_errors():
    theta = {"A": 0.6, "B": 0.0, "C": -0.6}
    counts: dict = {}
    for a, b, result, _ in play(theta, nu=0.2, each=300, seed=1):
        wins, losses, ties = counts.get((a, b), (0, 0, 0))
        counts[a, b] = (wins + (result == 1), losses + (result == 0), ties + (result == 0.5))
    plain, drawn = bradley_terry(counts), bradley_terry(counts, draws=1000, seed=3)
    assert drawn.theta == plain.theta
    for one, other in zip(plain.intervals, drawn.intervals, strict=True):
        assert other == pytest.approx(one, abs=6.0)
    assert drawn == bradley_terry(counts, draws=1000, seed=3)
    assert drawn != bradley_terry(counts, draws=1000, seed=4)


def test_rounds_hang_together():
    """Each game written down five times in its round: five times the games, no more knowledge."""
    rows = play({"A": 0.5, "B": 0.0, "C": -0.5}, nu=0.2, each=120, seed=2)
    rows = [(a, b, result, (a, b, i)) for a, b, result, i in rows]
    once, copied = (bradley_terry(given, draws=600) for given in (rows, rows * 5))
    assert copied.sd == pytest.approx(np.array(once.sd) / math.sqrt(5))
    for one, other in zip(once.intervals, copied.intervals, strict=True):
        assert one is not None and other == pytest.approx(one)


def test_an_unbeaten_policy_is_named():
    games = {("A", "B"): (5, 0, 0), ("B", "C"): (2, 3, 0), ("A", "C"): (5, 0, 0)}
    with pytest.raises(DataError, match=r"\['B', 'C'\] never took a point from \['A'\]"):
        bradley_terry(games)
    tied_once = games | {("A", "C"): (5, 0, 1)}
    assert bradley_terry(tied_once).theta[0] > 1


def test_groups_that_never_met_are_named():
    games = {("A", "B"): (5, 4, 0), ("C", "D"): (2, 3, 0)}
    with pytest.raises(DataError, match="never took a point from"):
        bradley_terry(games)


def test_all_ties_rank_nobody():
    with pytest.raises(DataError, match="all games are ties"):
        bradley_terry({("A", "B"): (0, 0, 9)})


def test_resamplings_without_a_maximum_leave_no_bounds():
    found = bradley_terry({("A", "B"): (6, 1, 0)}, draws=300)
    assert found.intervals == (None, None)
    assert "of 300 resamplings" in found.warnings[0]


def test_what_cannot_be():
    with pytest.raises(DataError, match="0 policies"):
        bradley_terry({})
    with pytest.raises(DataError, match="'A' plays against itself"):
        bradley_terry([("A", "A", 1.0, 0)])
    with pytest.raises(DataError, match="is 3, expected 1, 0, or 0.5"):
        bradley_terry([("A", "B", 3, 0)])
    with pytest.raises(DataError, match=r"\(1, -2, 0\)"):
        bradley_terry({("A", "B"): (1, -2, 0)})
    with pytest.raises(ConfigError, match="draws is -1"):
        bradley_terry(GAMES, draws=-1)
    with pytest.raises(ConfigError, match="confidence is 95"):
        bradley_terry(GAMES, confidence=95)
