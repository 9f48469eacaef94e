"""Error rates of groups drawn towards the rate of all."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import DataError
from worldeval.judge_calibration.shrinkage import SharedRate
from worldeval.ranking import rogan_gladen


def test_a_group_without_examples_gets_the_rate_of_all() -> None:
    shared = SharedRate([9, 45, 0], [10, 50, 0])
    assert shared.mean == pytest.approx(54.5 / 61)
    assert shared.of().mean == pytest.approx(shared.mean)


def test_an_own_count_lies_between_its_rate_and_that_of_all() -> None:
    shared = SharedRate([50, 90, 75, 60], [100] * 4)
    for right in (50, 90):
        assert min(right / 100, shared.mean) < shared.of(right, 100).mean
        assert shared.of(right, 100).mean < max(right / 100, shared.mean)


def test_groups_that_are_alike_share_and_groups_that_differ_do_not() -> None:
    alike, apart = SharedRate([80] * 12, [100] * 12), SharedRate([60, 100] * 6, [100] * 12)
    assert alike.mean == pytest.approx(apart.mean)
    assert alike.spread < 0.01 < 0.1 < apart.spread
    # Three of ten: one is told by the others, the other by itself.
    assert alike.of(3, 10).mean > 0.7 > 0.45 > apart.of(3, 10).mean
    assert alike.of().worth > 200 > 20 > apart.of().worth


def test_the_spread_between_groups_is_recovered() -> None:
    rng = np.random.default_rng(1)
    rho, mean = 0.1, 0.8
    strength = 1 / rho - 1
    rates = rng.beta(mean * strength, (1 - mean) * strength, 400)
    total = rng.integers(5, 60, 400)
    shared = SharedRate(rng.binomial(total, rates), total)
    assert shared.spread == pytest.approx(rho, rel=0.2)
    # What is known of an unseen group is worth the strength of the prior.
    assert shared.of().worth == pytest.approx(strength, rel=0.25)


def test_one_group_tells_little_of_another() -> None:
    alone = SharedRate([90], [100])
    assert alone.of(90, 100).worth > 60
    assert alone.of().worth < 5


def test_corrected_rates_of_seen_and_unseen_groups_are_covered_and_near_the_truth() -> None:
    """Twelve policies on whom a judge errs differently, sixty examples each: where the pooled

    error rates give intervals that are far too sure, these cover.
    """
    rng = np.random.default_rng(2)
    policies, examples, rollouts, rounds = 12, 60, 100, 120
    strength = 1 / 0.08 - 1
    covered = {"seen": 0, "unseen": 0, "pooled": 0}
    gaps: dict[str, list[float]] = {"seen": [], "pooled": [], "raw": []}
    for _ in range(rounds):
        true = rng.uniform(0.05, 0.95, policies + 1)
        hit, reject = rng.beta(0.85 * strength, 0.15 * strength, (2, policies + 1))
        positives = rng.binomial(examples, true[:-1])
        negatives = examples - positives
        right = rng.binomial(positives, hit[:-1]), rng.binomial(negatives, reject[:-1])
        shared = SharedRate(right[0], positives), SharedRate(right[1], negatives)
        pooled = [
            (r.sum() / n.sum(), n.sum()) for r, n in zip(right, (positives, negatives), strict=True)
        ]
        for kind, i in (("seen", 0), ("pooled", 0), ("unseen", policies)):
            said = rng.binomial(rollouts, true[i] * hit[i] + (1 - true[i]) * (1 - reject[i]))
            if kind == "pooled":
                (se, m1), (sp, m0) = pooled
            else:
                own = [(right[k][i], n[i]) if i < policies else (0, 0)
                       for k, n in enumerate((positives, negatives))]  # fmt: skip
                a, b = shared[0].of(*own[0]), shared[1].of(*own[1])
                se, sp, m1, m0 = a.mean, b.mean, a.worth, b.worth
            found = rogan_gladen(
                said / rollouts, se, sp, trials=rollouts, positives=m1, negatives=m0
            )
            covered[kind] += found.low <= true[i] <= found.high
            if kind in gaps:
                gaps[kind].append(abs(found.rate - true[i]))
            if kind == "seen":
                gaps["raw"].append(abs(said / rollouts - true[i]))
    assert covered["seen"] / rounds > 0.91
    assert covered["unseen"] / rounds > 0.91
    assert covered["pooled"] / rounds < 0.8
    assert np.mean(gaps["seen"]) < 0.9 * np.mean(gaps["raw"])
    assert np.mean(gaps["seen"]) < 0.9 * np.mean(gaps["pooled"])


def test_impossible_counts_are_told() -> None:
    with pytest.raises(DataError, match=r"\[3\] right of \[2\]"):
        SharedRate([3], [2])
    with pytest.raises(DataError, match="no examples in any group"):
        SharedRate([0, 0], [0, 0])
