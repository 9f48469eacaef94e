from __future__ import annotations

import numpy as np
import pytest

from tests.ranking.verdict_tables import table
from worldeval.errors import DataError, MismatchError
from worldeval.ranking.leaderboard import build_leaderboard
from worldeval.ranking.leaderboard.moved_threshold import moved_threshold
from worldeval.ranking.leaderboard.stability import Check, Stability, stability
from worldeval.types import Outcome

S, F, U, E = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNDECIDED, Outcome.ERROR


def outcomes(**rates: int) -> dict[tuple[str, str, str], Outcome]:
    """40 rollouts per policy, of which so many succeed, spread over the start states."""
    return {
        (policy, ("push", "pull")[start % 2], str(start)): S if start * 7 % 40 < count else F
        for policy, count in rates.items()
        for start in range(40)
    }


def check(found: Stability, change: str) -> Check:
    return next(c for c in found.checks if c.change == change)


def test_an_order_with_wide_gaps_is_stable_in_every_half():
    found = stability(
        outcomes(a=38, b=20, c=2), distinguishable=[("a", "b"), ("a", "c"), ("b", "c")]
    )
    halves = check(found, "other half of the start states")
    assert found.stable and halves.kendall == halves.low == halves.high == halves.winner_kept == 1


def test_an_order_of_chance_is_not_kept_by_halves():
    rng = np.random.default_rng(0)
    cells = {
        (f"p{i}", "push", str(s)): S if rng.random() < 0.5 else F
        for i in range(8)
        for s in range(30)
    }
    found = stability(cells, distinguishable=[("p0", "p1")])
    halves = check(found, "other half of the start states")
    assert halves.kendall is not None and abs(halves.kendall) < 0.4
    assert found.stable is False and "half of the start states" in found.sentence


def test_halves_share_no_rollout():
    """Two policies that each solve one half of four starts: the other half says the opposite."""
    cells = {("a", "t", "0"): S, ("a", "t", "1"): F, ("b", "t", "0"): F, ("b", "t", "1"): S}
    halves = stability(cells).checks[0]
    assert halves.winner_kept == 0 and halves.kendall is None


def test_an_order_that_flips_with_the_horizon_is_warned_about():
    """The fast policies solve little but early, the slow ones much but late."""
    cells = outcomes(slow=36, middle=24, fast=12)
    late = {"slow": 0.9, "middle": 0.7, "fast": 0.3}
    when = {cell: late[cell[0]] for cell, outcome in cells.items() if outcome is S}
    apart = [("slow", "middle"), ("slow", "fast"), ("middle", "fast")]
    found = stability(cells, distinguishable=apart, solved_at=when)
    half = check(found, "0.5 of the horizon")
    assert half.turned == (("slow", "fast"), ("middle", "fast")) and half.winner_kept == 0
    assert found.stable is False
    assert "with 0.5 of the horizon the order turns (fast then beats slow" in found.sentence
    assert check(found, "1.5 of the horizon").reason == "no rollout was watched beyond the horizon"


def test_a_longer_horizon_counts_what_is_solved_later():
    cells = outcomes(a=30, b=20, c=5)
    when = {c: 0.5 if o is S else (1.2 if c[0] == "c" else np.inf) for c, o in cells.items()}
    found = stability(cells, distinguishable=[("a", "c")], solved_at=when)
    assert check(found, "1.25 of the horizon").turned == (("a", "c"),)


def test_without_times_the_horizon_is_not_checked_and_it_is_said():
    found = stability(outcomes(a=38, b=20, c=2), distinguishable=[("a", "b")])
    assert "do not say when" in check(found, "0.75 of the horizon").reason
    assert "not checked" in found.sentence and "another horizon" in found.sentence
    with pytest.raises(DataError, match="a share of 0 or more"):
        stability(outcomes(a=3, b=2), solved_at={("a", "push", "0"): -1.0})


@pytest.mark.parametrize("count, percent", [(0, "0 %"), (40, "100 %")])
def test_a_suite_that_all_fail_or_all_solve_is_not_stable(count, percent):
    found = stability(outcomes(a=count, b=count, c=count))
    assert found.stable is False
    assert found.sentence == (
        f"Not stable, because nothing distinguishes the policies: each succeeds in {percent}."
    )


def test_imagined_successes_where_all_truly_fail_are_no_order():
    board = build_leaderboard(
        table(a={"push": "s" * 20}, b={"push": "f" * 20}, c={"push": "s" * 10 + "f" * 10}),
        table("true", **{name: {"push": "f" * 20} for name in "abc"}),
    )
    assert board.stability.stable is False
    assert "each of the 3 whose truth is known fails always" in board.stability.sentence
    assert board.to_dict()["stability"]["stable"] is False


def test_policies_within_chance_of_each_other_are_not_stable():
    assert "no two policies can be told apart" in stability(outcomes(a=20, b=19, c=18)).sentence


def test_the_threshold_moves_with_the_verdicts():
    cells = outcomes(a=30, b=20, c=4)
    # c fails by a hair, everybody else clearly.
    chance = {c: 0.9 if o is S else (0.45 if c[0] == "c" else 0.1) for c, o in cells.items()}
    found = stability(cells, distinguishable=[("a", "c")], probabilities=chance)
    assert check(found, "the judge's threshold -0.1").turned == (("a", "c"),)
    assert check(found, "the judge's threshold +0.1").kendall == 1
    assert found.stable is False


def test_a_band_of_abstention_moves_whole():
    cells = {("a", "t", str(i)): o for i, o in enumerate((F, U, S, E, U))}
    chance = {c: p for c, p in zip(cells, (0.1, 0.5, 0.9, 0.5), strict=False)}
    moved, reason = moved_threshold(cells, chance, 0.25)
    assert not reason and list(moved.values()) == [F, F, U, E, U]


def test_thresholds_of_single_tasks_and_judges_without_one():
    easy = {("a", "easy", str(i)): o for i, o in enumerate((F, S))}
    hard = {("a", "hard", str(i)): o for i, o in enumerate((F, S))}
    chance = dict(zip(easy | hard, (0.1, 0.3, 0.7, 0.8), strict=True))
    moved, _ = moved_threshold(easy | hard, chance, 0.15)
    assert list(moved.values()) == [F, F, F, F]
    assert "by a threshold" in moved_threshold(easy, dict.fromkeys(easy, 0.5), 0.1)[1]
    assert "no probability" in moved_threshold(easy, {}, 0.1)[1]
    assert "some of its verdicts" in moved_threshold(easy, {next(iter(easy)): 0.1}, 0.1)[1]


def test_another_seed_must_be_of_the_same_policies():
    cells = outcomes(a=38, b=20, c=2)
    turned = {(dict(a="c", b="b", c="a")[p], t, s): o for (p, t, s), o in cells.items()}
    found = stability(cells, distinguishable=[("a", "c")], again=turned)
    assert check(found, "another seed").kendall == -1
    assert check(found, "another seed").turned == (("a", "c"),)
    with pytest.raises(MismatchError, match="have none of \\['c'\\]"):
        stability(cells, again={c: o for c, o in cells.items() if c[0] != "c"})


def test_one_policy_or_none_decided_is_unknown():
    assert stability(outcomes(a=3)).stable is None
    assert stability({("a", "t", "0"): U, ("b", "t", "0"): E}).stable is None


def test_tasks_weigh_as_in_the_leaderboard():
    """a wins the many starts of one task, b the few of the other two."""
    sizes = {"many": 20, "few": 4, "rare": 4}
    cells = {
        (p, t, str(i)): S if (t == "many") == (p == "a") else F
        for p in "ab"
        for t, n in sizes.items()
        for i in range(n)
    }
    assert stability(cells, distinguishable=[("a", "b")], again=cells).checks[-1].turned == ()
    by_task = stability(cells, weights="equal", distinguishable=[("a", "b")], again=cells)
    assert by_task.checks[-1].turned == (("a", "b"),)  # by task b is above a


def test_halving_is_repeated_exactly():
    cells = outcomes(a=22, b=20, c=15)
    assert stability(cells, seed=3) == stability(cells, seed=3)
