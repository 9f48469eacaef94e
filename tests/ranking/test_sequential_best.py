"""The best of several policies: who drops out when, and that the best hardly ever does."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.ranking.sequential import e_values
from worldeval.ranking.sequential_best import SequentialBest


def rows(*outcomes: tuple[float | None, ...]) -> list[dict[str, float | None]]:
    return [dict(zip("abc", values, strict=False)) for values in outcomes]


def test_of_two_the_worse_drops_out_at_one_over_alpha() -> None:
    """One-sided: which is better is one question, each side of it has all of alpha."""
    best = SequentialBest("ab", alpha=0.05)
    running = e_values([(0.0, 1.0)] * 20, method="betting")
    needed = int(np.argmax(running >= 20)) + 1
    for number in range(1, needed + 1):
        assert best.active == ("a", "b")
        (*made,) = best.add_block(rows((0.0, 1.0)))
        assert bool(made) is (number == needed)
    assert (made[0].policy, made[0].starts) == ("a", needed)
    assert made[0].e_value == pytest.approx(running[needed - 1])
    assert best.contenders == ("b",) and best.active == () and best.undecided == []


def test_with_more_policies_the_mean_of_their_evidence_counts() -> None:
    """c always fails, a and b always succeed: each brings half of the mean."""
    running = e_values([(0.0, 1.0)] * 20, method="betting")
    needed = int(np.argmax(running >= 20)) + 1
    best = SequentialBest("abc", alpha=0.05)
    made = [best.add_block(rows((1.0, 1.0, 0.0))) for _ in range(needed)]
    assert [len(m) for m in made] == [0] * (needed - 1) + [1] and made[-1][0].policy == "c"
    assert str(made[-1][0]) == f"c is not the best ({needed} start states)"
    # With one witness only, twice as much is needed.
    alone = SequentialBest("abc", alpha=0.05)
    taken = 0
    while "c" in alone.contenders:
        alone.add_block(rows((1.0, None, 0.0)))
        taken += 1
    assert running[taken - 1] >= 40 > running[taken - 2]


def test_who_is_out_is_compared_no_more() -> None:
    best = SequentialBest("abc")
    best.add_block(rows(*[(1.0, 1.0, 0.0)] * 12))
    assert best.contenders == ("a", "b")
    best.add_block(rows(*[(0.0, 1.0, 1.0)] * 4))
    assert best.compared("a", "c") == 12 and best.compared("b", "a") == 16


def test_somebody_remains_whatever_the_evidence() -> None:
    """On different start states each of three can be beaten by another."""
    best = SequentialBest("abc")
    best.add_block(
        rows(*[(1.0, 0.0, None)] * 30, *[(None, 1.0, 0.0)] * 30, *[(0.0, None, 1.0)] * 30)
    )
    assert len(best.contenders) == 1


def test_the_best_is_hardly_ever_dropped() -> None:
    """Four equal policies sharing luck: alpha 0.2 is kept for each of them, here "a"."""
    rng, lost, dropped = np.random.default_rng(0), 0, 0
    for _ in range(60):
        shared = rng.random((40, 4)) < 0.5
        luck = np.where(shared, rng.random((40, 1)), rng.random((40, 4)))
        solved = (luck < 0.6).astype(float)
        best = SequentialBest("abcd", alpha=0.2)
        for first in range(0, 40, 10):
            best.add_block([dict(zip("abcd", row, strict=True)) for row in solved[first:][:10]])
        lost += "a" not in best.contenders
        dropped += len(best.decisions)
    assert lost <= 12 and dropped > 0  # 60 * 0.2


def test_one_policy_is_no_contest() -> None:
    with pytest.raises(ConfigError, match="expected two or more"):
        SequentialBest(["a"])
