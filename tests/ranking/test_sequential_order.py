"""The order of several policies: when a claim is made, what follows from it, what it may cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.ranking.sequential_order import SequentialOrder, difference_sequence


def evidence_of(names: str, **given: float) -> dict[tuple[str, str], float]:
    """E-values, those of ``given`` ("ab": a is better) and 0 for all else."""
    pairs = itertools.permutations(names, 2)
    return {(a, b): given.get(a + b, 0.0) for a, b in pairs}


def test_two_policies_need_twice_one_over_alpha() -> None:
    for e_value, decided in ((39.9, False), (40.0, True)):
        order = SequentialOrder("ab", alpha=0.05)
        assert bool(order.decide(evidence_of("ab", ba=e_value))) is decided
        assert order.active == (() if decided else ("a", "b"))


def test_a_claim_is_made_where_no_set_of_hypotheses_with_it_has_a_small_mean() -> None:
    """Equation (1) against its definition: all sets of hypotheses, one by one."""
    alpha, rng = 0.2, np.random.default_rng(0)
    claims = list(itertools.permutations("abc", 2))
    made = 0
    for _ in range(200):
        evidence = dict(zip(claims, np.exp(rng.normal(1.5, 2.0, 6)).tolist(), strict=True))
        strongest = max(evidence, key=lambda claim: evidence[claim])
        others = [c for c in claims if c != strongest]
        means = [
            np.mean([evidence[c] for c in (strongest, *some)])
            for size in range(6)
            for some in itertools.combinations(others, size)
        ]
        order = SequentialOrder("abc", alpha=alpha)
        first = order.decide(evidence)[:1]
        assert bool(first) is bool(min(means) >= 1 / alpha)
        assert not first or (first[0].better, first[0].worse) == strongest
        made += len(first)
    assert 20 < made < 180


def test_three_policies_start_at_bonferroni_and_get_easier() -> None:
    assert not SequentialOrder("abc", alpha=0.05).decide(evidence_of("abc", ab=119.9))
    order = SequentialOrder("abc", alpha=0.05)
    # Six hypotheses: 6/alpha = 120. With one rejected five are left, and those that hold 1/alpha
    # by themselves count no more: 20 + 4 * 20 = 100.
    evidence = evidence_of("abc", ab=120.0, ac=100.0)
    assert [(d.better, d.worse) for d in order.decide(evidence)] == [("a", "b"), ("a", "c")]
    assert order.undecided == [("b", "c")] and order.active == ("b", "c")


def test_what_follows_from_decisions_is_decided_too() -> None:
    order = SequentialOrder("abcd", alpha=0.05)
    order.decide(evidence_of("abcd", ab=1e6))
    made = order.decide(evidence_of("abcd", ab=1e6, cd=1e5, bc=1e4))
    assert {(d.better, d.worse): d.e_value for d in made} == {
        ("c", "d"): 1e5,
        ("b", "c"): 1e4,
        ("a", "c"): None,
        ("a", "d"): None,
        ("b", "d"): None,
    }
    assert order.active == () and not order.undecided
    # Evidence against what is decided comes too late.
    assert order.decide(evidence_of("abcd", da=1e9)) == []


def test_blocks_are_fed_to_undecided_pairs_only_and_the_unknown_is_left_out() -> None:
    order = SequentialOrder(["good", "bad", "odd"], alpha=0.05)
    row = {"good": 1.0, "bad": 0.0, "odd": None}
    made = order.add_block([row] * 20)
    assert [(d.better, d.worse, d.starts) for d in made] == [("good", "bad", 20)]
    assert order.compared("odd", "good") == 0
    order.add_block([{"good": 0.0, "bad": 1.0, "odd": 1.0}] * 2)
    assert order.compared("good", "bad") == 20  # decided: its evidence stands still
    assert order.compared("bad", "odd") == order.compared("good", "odd") == 2


def test_partial_credit_counts() -> None:
    order = SequentialOrder("ab")
    for _ in range(40):
        order.add_block([{"a": 0.75, "b": 0.25}])
    assert [d.better for d in order.decisions] == ["a"]


def test_block_by_block_the_bet_is_fair_though_tasks_differ() -> None:
    """The product over a block of one start of each task, E <= 1: b wins task 1, a wins task 2.

    Within a block it is not: after task 1 alone it expects 1.35.
    """
    xi = (np.arange(64) + 0.5) / 64
    assert (1 + 0.7 * xi).mean() == pytest.approx(1.35)
    assert ((1 + 0.7 * xi) * (1 - 0.7 * xi)).max() <= 1


@pytest.mark.parametrize(
    ("names", "alpha", "text"),
    [
        (["a"], 0.05, r"\['a'\], expected two or more"),
        (["a", "b", "a"], 0.05, "different names"),
        (["a", "b"], 1.0, "alpha is 1.0"),
        (["a", "b"], float("nan"), "alpha is nan"),
    ],
)
def test_what_cannot_be_put_in_order(names: list[str], alpha: float, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        SequentialOrder(names, alpha=alpha)


def test_a_difference_that_holds_at_all_times() -> None:
    nothing = difference_sequence(0, 0, 0)
    assert nothing == (-1.0, 1.0)
    low, high = difference_sequence(10, 30, 60)
    assert -1 < low < 0.2 < high < 1
    assert difference_sequence(30, 10, 60) == pytest.approx((-high, -low))
    closer = difference_sequence(100, 300, 600)
    assert low < closer.low < 0.2 < closer.high < high
    wider = difference_sequence(10, 30, 60, confidence=0.99)
    assert wider.low < low and wider.high > high


def test_a_difference_excludes_nothing_exactly_when_the_pair_is_decided() -> None:
    for only_b in range(1, 15):
        order = SequentialOrder("ab", alpha=0.05)
        order.add_block([{"a": 0.0, "b": 1.0}] * only_b)
        low = difference_sequence(0, only_b, 0).low
        assert bool(order.decisions) is (low >= -0.0025)  # a grid point on the safe side


@pytest.mark.parametrize(
    ("counts", "confidence", "text"),
    [((-1, 0, 0), 0.95, "only_a is -1"), ((1, 1, 1), 95, "confidence is 95")],
)
def test_impossible_differences(counts: tuple[int, int, int], confidence: float, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        difference_sequence(*counts, confidence=confidence)
