"""Agreement of predicted rates with true ones; the published tables are in test_golden.py.

WorldGym: arXiv 2506.00613, appendix matrix, successes out of 10, half successes as printed.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking.agreement import (
    TaskCounts,
    agree_in_cells,
    agreement,
    mmrv,
    order_kept,
)
from worldeval.ranking.agreement_statistics import STATISTICS

# Rows: RT-1-X, Octo, OpenVLA; columns: 17 tasks; successes of 10.
WORLDGYM_REAL = (
    (1, 0, 1, 1, 1, 3, 2, 1, 2, 0, 1, 3, 6, 0.5, 2.5, 1.5, 5),
    (5, 1, 1, 3.5, 4, 0.5, 1, 0, 6, 0, 0, 0, 0, 0, 4, 2.5, 5.5),
    (10, 10, 7, 7.5, 9, 7.5, 4.5, 8, 8, 7, 5, 1, 4, 4.5, 7.5, 10, 9.5),
)
WORLDGYM_IMAGINED = (
    (1, 0, 3, 0.5, 3, 2, 0.5, 0, 3, 1, 2, 1, 5, 0, 0.5, 2.5, 1.5),
    (1, 2, 3, 3.5, 6, 1.5, 3, 1, 1, 0, 3, 1, 2, 0, 5, 2.5, 5),
    (7, 6, 9, 8, 9.5, 7.5, 6, 4, 5, 4, 5, 6, 4, 6, 9, 10, 8.5),
)


def _counts(successes, trials=10) -> TaskCounts:
    array = np.asarray(successes, np.float64)
    return TaskCounts(successes=array, decided=np.full_like(array, trials))


def test_mmrv_ties_follow_the_paper():
    assert mmrv(real=(0.9, 0.8, 0.1), predicted=(0.5, 0.5, 0.5)) == pytest.approx(0.3)


def test_mmrv_weighs_by_the_real_gap():
    """Only B and C change places: truly 0.3 apart, as predicted 0.1."""
    real, predicted = (0.9, 0.6, 0.3), (0.9, 0.4, 0.5)
    assert mmrv(real, predicted) == pytest.approx((0 + 0.3 + 0.3) / 3)
    assert mmrv(predicted, real) == pytest.approx((0 + 0.1 + 0.1) / 3)


def test_mmrv_of_the_reversed_order_is_the_mean_of_the_widest_gaps():
    real = (0.0, 0.3, 1.0)
    assert mmrv(real=real, predicted=(1.0, 0.3, 0.0)) == pytest.approx((1.0 + 0.7 + 1.0) / 3)


def test_correlations_with_ties_are_those_of_scipy():
    from scipy.stats import kendalltau, linregress, pearsonr, spearmanr

    rng = np.random.default_rng(3)
    for _ in range(20):
        x, y = rng.integers(0, 4, (2, 9)) / 4
        if np.ptp(x) and np.ptp(y):
            found = agreement(x, y)
            assert found.spearman == pytest.approx(spearmanr(x, y).statistic)
            assert found.kendall == pytest.approx(kendalltau(x, y).statistic)
            assert found.pearson == pytest.approx(pearsonr(x, y).statistic)
            line = linregress(x, y)
            assert (found.slope, found.intercept) == pytest.approx((line.slope, line.intercept))


def test_regret():
    real = (0.2, 0.9, 0.6)
    wrong, right = agreement(real, (0.1, 0.3, 0.8)), agreement(real, (0.1, 0.8, 0.3))
    assert (wrong.winner, wrong.top1_regret) == ("policy 3", pytest.approx(0.3))
    assert (right.winner, right.top1_regret) == ("policy 2", 0.0)


def test_regret_of_tied_winners_is_the_worst_of_them():
    for order in itertools.permutations(range(3)):
        real = np.array((0.2, 0.9, 0.6))[list(order)]
        imagined = np.array((0.1, 0.8, 0.8))[list(order)]
        assert agreement(real=real, predicted=imagined).top1_regret == pytest.approx(0.3)


def test_figures_do_not_depend_on_the_order_of_policies():
    real, predicted = (0.93, 0.89, 0.74, 0.63, 0.52, 0.0), (0.86, 0.67, 0.89, 0.34, 0.44, 0.28)
    forwards = agreement(real, predicted, names="ABCDEF")
    backwards = agreement(real[::-1], predicted[::-1], names="FEDCBA")
    for name in (*STATISTICS, "winner"):
        assert getattr(forwards, name) == pytest.approx(getattr(backwards, name))


def test_two_policies_have_an_order_but_no_correlation():
    found = agreement(real=(0.2, 0.7), predicted=(0.5, 0.4))
    assert found.mmrv == pytest.approx(0.5)
    assert found.top1_regret == pytest.approx(0.5)
    assert found.pearson is found.spearman is found.slope is found.intercept is None
    assert "at least 3" in found.reasons["pearson"]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_policies_for_any_order(count):
    found = agreement(real=[0.5] * count, predicted=[0.4] * count)
    assert found.mmrv is found.top1_regret is found.pearson is None
    assert "at least 2" in found.reasons["mmrv"]


def test_constant_real_rates():
    # 0.1 + 0.2 differs from 0.3 in the last bit, which is no order.
    found = agreement(real=(0.3, 0.1 + 0.2, 0.3), predicted=(0.1, 0.5, 0.9))
    assert found.pearson is found.spearman is found.slope is None
    assert "all real rates are 0.300" in found.reasons["pearson"]
    assert found.mmrv == found.top1_regret == 0.0
    assert found.mean_bias == pytest.approx(0.2)


def test_constant_imagined_rates():
    found = agreement(real=(0.1, 0.5, 0.9), predicted=(0.4, 0.4, 0.4))
    assert found.pearson is found.spearman is None
    assert "all predicted rates are 0.400" in found.reasons["spearman"]
    assert found.slope == 0.0
    assert found.top1_regret == pytest.approx(0.8)


def test_lengths_that_differ():
    with pytest.raises(MismatchError, match="3.* real and .*2.* predicted"):
        agreement((0.1, 0.2, 0.3), (0.1, 0.2))
    with pytest.raises(MismatchError, match="names are"):
        agreement((0.1, 0.2), (0.1, 0.2), names=("A",))
    with pytest.raises(MismatchError, match="rates of both or counts of both"):
        agreement((0.1, 0.2), _counts([[1], [2]]))


def test_nan_is_refused():
    with pytest.raises(DataError, match="NaN"):
        mmrv((0.1, float("nan")), (0.1, 0.2))
    nothing_decided = TaskCounts(successes=np.zeros((2, 3)), decided=np.zeros((2, 3)))
    with pytest.raises(DataError, match="without a decided rollout"):
        agreement(_counts(np.ones((2, 3))), nothing_decided)


def test_bootstrap_takes_whole_tasks():
    """Two tasks, biased by 0 and by 1: a draw is biased by 0, 1/2, 1 in shares 1/4, 1/2, 1/4.

    An interval of 20 % of two tasks is one of 35 % of the draws: t_1 is 0.325 there, times sqrt 2.
    """
    real, imagined = _counts([[5, 0]] * 3), _counts([[5, 10]] * 3)
    wide = agreement(real=real, predicted=imagined, confidence=0.95)
    narrow = agreement(real=real, predicted=imagined, confidence=0.2)
    assert wide.mean_bias == pytest.approx(0.5)
    assert wide.intervals["mean_bias"] == (0.0, 1.0)
    assert narrow.intervals["mean_bias"] == (0.5, 0.5)


def test_bootstrap_of_equal_tasks_has_no_width():
    real = _counts(np.repeat([[1], [4], [8]], 5, axis=1))
    imagined = _counts(np.repeat([[2], [3], [9]], 5, axis=1))
    found = agreement(real=real, predicted=imagined)
    bounds = found.intervals["pearson"]
    assert bounds is not None
    assert bounds.low == pytest.approx(found.pearson) == pytest.approx(bounds.high)


def test_bootstrap_is_seeded():
    real, imagined = _counts(WORLDGYM_REAL), _counts(WORLDGYM_IMAGINED)
    first, again, other = (
        agreement(real=real, predicted=imagined, draws=200, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.intervals["pearson"] != other.intervals["pearson"]


def test_bootstrap_weighs_tasks_by_their_rollouts():
    """Pooled rates: (9 + 0) / (90 + 10), not the mean 0.05 of the two tasks' rates."""
    counts = TaskCounts(successes=np.array([[9.0, 0.0]]), decided=np.array([[90.0, 10.0]]))
    assert counts.rates == pytest.approx([0.09])


def test_one_task_cannot_be_resampled():
    found = agreement(real=_counts([[1], [5], [9]]), predicted=_counts([[2], [4], [9]]))
    assert found.pearson is not None
    assert found.intervals["pearson"] is None
    assert "at least 2" in found.reasons["intervals"]


def test_an_interval_that_most_draws_leave_undefined_is_none():
    """A policy with rollouts in one task of 25 has no rate in the draws that miss this task."""
    tasks = 25
    real = np.full((3, tasks), 5.0)
    decided = np.full((3, tasks), 10.0)
    decided[0, 1:] = real[0, 1:] = 0.0  # policy 0 has rollouts in the first task alone
    counts = TaskCounts(successes=real + np.eye(3, tasks) * (decided > 0), decided=decided)
    found = agreement(real=counts, predicted=counts)
    # The first task is in 1 - (24/25)^25 = 64 % of the draws: an interval from those.
    assert found.intervals["mean_bias"] is not None
    decided[1, :1] = decided[1, 2:] = 0.0
    counts = TaskCounts(successes=np.minimum(counts.successes, decided), decided=decided)
    found = agreement(real=counts, predicted=counts)
    # Both the first and the second in about 40 %: too few.
    assert found.mean_bias == 0.0
    assert found.intervals["mean_bias"] is None
    assert "undefined in" in found.reasons["intervals.mean_bias"]


def test_cells_without_a_decided_rollout_are_left_out():
    real = TaskCounts(successes=np.array([[1.0, 2.0]]), decided=np.array([[4.0, 4.0]]))
    imagined = TaskCounts(successes=np.array([[2.0, 0.0]]), decided=np.array([[4.0, 0.0]]))
    cells = agree_in_cells(real=real, predicted=imagined)
    assert (cells.cells, cells.mean_absolute_error, cells.pearson) == (1, 0.25, None)


def test_bad_bootstrap_settings():
    counts = _counts(WORLDGYM_REAL)
    with pytest.raises(ConfigError, match="draws is 0"):
        agreement(real=counts, predicted=counts, draws=0)
    with pytest.raises(ConfigError, match="confidence is 95"):
        agreement(real=counts, predicted=counts, confidence=95)
    with pytest.raises(MismatchError, match="same"):
        agreement(real=counts, predicted=_counts([[1.0]]))


# --- what the figures cannot support -----------------------------------------------------------


def test_three_policies_cannot_support_a_correlation():
    found = agreement((0.1, 0.5, 0.9), (0.2, 0.4, 0.8))
    assert found.pearson is not None and found.pearson > 0.98
    assert found.warnings == (
        "3 policies cannot support a correlation: a prediction that knows nothing puts 3 policies "
        "in the right order one time in 6.",
    )
    assert "one time in 2" in agreement((0.1, 0.5), (0.2, 0.4)).warnings[0]
    assert "1 policy cannot" in agreement((0.1,), (0.2,)).warnings[0]
    assert agreement((), ()).warnings == ()


def test_a_correlation_that_may_be_chance():
    """The limit of 5 policies is 0.878: of independent rates 1 in 40 are above."""
    real = np.array((0.1, 0.3, 0.5, 0.7, 0.9))
    weak = agreement(real, (0.2, 0.1, 0.5, 0.3, 0.6))
    assert "may be chance" in weak.warnings[0] and "reach 0.88" in weak.warnings[0]
    assert agreement(real, 0.8 * real).warnings == ()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20000, 5))
    beyond = [np.corrcoef(a, b)[0, 1] > 0.878 for a, b in zip(x[:4000], y[:4000], strict=True)]
    assert np.mean(beyond) == pytest.approx(1 / 40, abs=0.008)


def test_a_wrong_winner_is_named():
    """A high correlation with the wrong winner: what a correlation does not say."""
    found = agreement((0.9, 0.8, 0.5, 0.1, 0.05), (0.8, 0.85, 0.5, 0.1, 0.0), names="ABCDE")
    assert found.pearson is not None and found.pearson > 0.97
    assert found.warnings == (
        "The prediction names B the best, which it is not: A truly succeeds 10.0 points more "
        "often.",
    )


def test_a_shared_first_place_is_told():
    found = agreement((0.9, 0.8, 0.5, 0.1, 0.05), (0.8, 0.8, 0.5, 0.1, 0.0), names="ABCDE")
    assert (found.winner, found.sharing) == ("B", 2)
    assert found.warnings == (
        "In the prediction B shares the first place of 2: A truly succeeds 10.0 points more often.",
    )


def test_few_tasks_are_told():
    counts = _counts([[1, 2], [4, 5], [8, 9], [3, 3], [6, 6]])
    assert "2 tasks cannot tell" in agreement(counts, counts).warnings[-1]


def test_order_kept():
    """Three true pairs: A < C and B < C keep their order, A < B ties; A = D is no pair."""
    assert order_kept((0.1, 0.2, 0.9), (0.4, 0.4, 0.5)) == (2, 3)
    assert order_kept((0.1, 0.1), (0.3, 0.4)) == (0, 0)
    assert order_kept((0.1, 0.2, 0.9), (0.5, 0.4, 0.3)) == (0, 3)


def test_agreement_is_json():
    found = agreement(_counts(WORLDGYM_REAL), _counts(WORLDGYM_IMAGINED), draws=50).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["intervals"]) == set(STATISTICS) < set(found)


@pytest.mark.parametrize(("tasks", "least"), [(8, 0.87), (20, 0.92)])
def test_intervals_of_the_bias_cover(tasks, least):
    """Tasks biased by 0.1 on average with a spread of 0.15: resampled tasks know that spread."""
    rng = np.random.default_rng(7)
    times = 250
    real = _counts(np.full((2, tasks), 500), trials=1000)
    covered = 0
    for bias in rng.normal(0.1, 0.15, (times, tasks)):
        predicted = _counts(500 + 1000 * np.stack([bias, bias]), trials=1000)
        bounds = agreement(real, predicted, draws=500).intervals["mean_bias"]
        assert bounds is not None
        covered += bounds.low <= 0.1 <= bounds.high
    assert least <= covered / times <= 0.98
