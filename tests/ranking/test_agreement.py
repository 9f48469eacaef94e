"""Agreement against the figures of published tables.

SIMPLER: arXiv 2405.05941, Table IV, Google Robot, with the MMRV and Pearson r it prints.
WorldGym: arXiv 2506.00613, appendix matrix, successes out of 10, half successes as printed.
Ctrl-World: arXiv 2510.10125, Table 3; the paper prints its two fitted lines.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking.agreement import (
    STATISTICS,
    TaskCounts,
    agree,
    agree_in_cells,
    agree_over_tasks,
    mmrv,
    pearson,
    slope_and_intercept,
    spearman,
    top1_regret,
)

COKE = (0.853, 0.92, 0.76, 0.907, 0.293, 0.133)
OPEN = (0.815, 0.704, 0.519, 0.333, 0.148, 0)
CLOSE = (0.926, 0.889, 0.741, 0.63, 0.519, 0)
DRAWER = (0.87, 0.796, 0.63, 0.481, 0.333, 0)
SIMPLER = [
    (COKE, (0.857, 0.71, 0.567, 0.787, 0.17, 0.027), 0.031, 0.976),
    (COKE, (0.898, 0.813, 0.49, 0.823, 0.006, 0.022), 0.084, 0.96),
    (OPEN, (0.601, 0.463, 0.296, 0.157, 0.009, 0), 0.0, 0.983),
    (OPEN, (0.27, 0.212, 0.069, 0.333, 0, 0.005), 0.303, 0.629),
    (CLOSE, (0.861, 0.667, 0.891, 0.343, 0.444, 0.278), 0.123, 0.768),
    (CLOSE, (0.376, 0.323, 0.519, 0.372, 0.021, 0.132), 0.321, 0.613),
    (DRAWER, (0.73, 0.565, 0.597, 0.25, 0.227, 0.139), 0.055, 0.915),
    (DRAWER, (0.323, 0.267, 0.294, 0.353, 0.011, 0.069), 0.321, 0.737),
]

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

# Success, 7 tasks x (pi0, pi0-FAST, pi0.5), in that order.
CTRL_WORLD_REAL = (
    (0.7, 0.85, 0.85, 0.4, 0.55, 0.75, 0.05, 0.15, 0.8, 0.2, 0.5, 0.8)
    + (0.15, 0.5, 0.7, 0.3, 0.1, 0.75, 0.6, 0.7, 0.65)
)  # fmt: skip
CTRL_WORLD_IMAGINED = (
    (0.55, 0.7, 0.7, 0.2, 0.4, 0.65, 0, 0.05, 0.3, 0, 0.35, 0.65)
    + (0, 0, 0.05, 0.2, 0, 0.5, 0.4, 0.55, 0.55)
)  # fmt: skip


def _counts(successes, trials=10) -> TaskCounts:
    array = np.asarray(successes, np.float64)
    return TaskCounts(successes=array, decided=np.full_like(array, trials))


@pytest.mark.parametrize(("real", "imagined", "published_mmrv", "published_r"), SIMPLER)
def test_simpler(real, imagined, published_mmrv, published_r):
    assert mmrv(real=real, imagined=imagined) == pytest.approx(published_mmrv, abs=1e-3)
    assert pearson(real=real, imagined=imagined) == pytest.approx(published_r, abs=4e-3)


def test_mmrv_weighs_by_the_real_gap():
    """The published value with the arguments swapped, which must differ."""
    imagined = SIMPLER[0][1]
    assert mmrv(real=imagined, imagined=COKE) == pytest.approx(0.0618, abs=1e-4)
    with pytest.raises(TypeError):
        mmrv(COKE, imagined)  # type: ignore[misc]


def test_mmrv_ties_follow_the_paper():
    assert mmrv(real=(0.9, 0.8, 0.1), imagined=(0.5, 0.5, 0.5)) == pytest.approx(0.3)


def test_mmrv_of_the_reversed_order_is_the_mean_of_the_widest_gaps():
    real = (0.0, 0.3, 1.0)
    assert mmrv(real=real, imagined=(1.0, 0.3, 0.0)) == pytest.approx((1.0 + 0.7 + 1.0) / 3)


def test_worldgym():
    real, imagined = _counts(WORLDGYM_REAL), _counts(WORLDGYM_IMAGINED)
    cells = agree_in_cells(real=real, imagined=imagined)
    assert cells.cells == 51
    assert cells.pearson == pytest.approx(0.7848, abs=1e-4)
    policies = agree_over_tasks(real=real, imagined=imagined)
    assert policies.policies == 3
    assert policies.pearson == pytest.approx(0.9924, abs=1e-4)
    assert policies.mmrv == policies.top1_regret == 0
    assert 100 * np.abs(imagined.rates - real.rates).mean() == pytest.approx(3.33, abs=5e-3)
    bounds = policies.intervals["pearson"]
    assert bounds is not None and bounds.low < policies.pearson < bounds.high <= 1


def test_ctrl_world():
    real, imagined = CTRL_WORLD_REAL, CTRL_WORLD_IMAGINED
    fit = slope_and_intercept(real=real, imagined=imagined)
    # The paper prints y = 0.81 x - 0.11, from rates before their rounding to 5 points.
    assert fit == pytest.approx((0.82, -0.108), abs=1e-3)
    assert pearson(real=real, imagined=imagined) == pytest.approx(0.832, abs=1e-3)
    assert spearman(real=real, imagined=imagined) == pytest.approx(0.846, abs=1e-3)
    assert agree(real=real, imagined=imagined).mean_bias == pytest.approx(-0.202, abs=1e-3)


def test_spearman_with_ties_is_that_of_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(3)
    for _ in range(20):
        x, y = rng.integers(0, 4, (2, 9)) / 4
        if np.ptp(x) and np.ptp(y):
            assert spearman(real=x, imagined=y) == pytest.approx(spearmanr(x, y).statistic)


def test_regret():
    assert top1_regret(real=(0.2, 0.9, 0.6), imagined=(0.1, 0.3, 0.8)) == pytest.approx(0.3)
    assert top1_regret(real=(0.2, 0.9, 0.6), imagined=(0.1, 0.8, 0.3)) == 0.0


def test_regret_of_tied_winners_is_the_worst_of_them():
    for order in itertools.permutations(range(3)):
        real = np.array((0.2, 0.9, 0.6))[list(order)]
        imagined = np.array((0.1, 0.8, 0.8))[list(order)]
        assert top1_regret(real=real, imagined=imagined) == pytest.approx(0.3)


def test_figures_do_not_depend_on_the_order_of_policies():
    real, imagined = SIMPLER[4][:2]
    forwards = agree(real=real, imagined=imagined)
    backwards = agree(real=real[::-1], imagined=imagined[::-1])
    for name in STATISTICS:
        assert getattr(forwards, name) == pytest.approx(getattr(backwards, name))


def test_two_policies_have_an_order_but_no_correlation():
    found = agree(real=(0.2, 0.7), imagined=(0.5, 0.4))
    assert found.mmrv == pytest.approx(0.5)
    assert found.top1_regret == pytest.approx(0.5)
    assert found.pearson is found.spearman is found.slope is found.intercept is None
    assert "at least 3" in found.reasons["pearson"]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_policies_for_any_order(count):
    found = agree(real=[0.5] * count, imagined=[0.4] * count)
    assert found.mmrv is found.top1_regret is found.pearson is None
    assert "at least 2" in found.reasons["mmrv"]


def test_constant_real_rates():
    # 0.1 + 0.2 differs from 0.3 in the last bit, which is no order.
    found = agree(real=(0.3, 0.1 + 0.2, 0.3), imagined=(0.1, 0.5, 0.9))
    assert found.pearson is found.spearman is found.slope is None
    assert "all real rates are 0.300" in found.reasons["pearson"]
    assert found.mmrv == found.top1_regret == 0.0
    assert found.mean_bias == pytest.approx(0.2)


def test_constant_imagined_rates():
    found = agree(real=(0.1, 0.5, 0.9), imagined=(0.4, 0.4, 0.4))
    assert found.pearson is found.spearman is None
    assert "all imagined rates are 0.400" in found.reasons["spearman"]
    assert found.slope == 0.0
    assert found.top1_regret == pytest.approx(0.8)


def test_lengths_that_differ():
    with pytest.raises(MismatchError, match="3.* real and .*2.* imagined"):
        pearson(real=(0.1, 0.2, 0.3), imagined=(0.1, 0.2))


def test_nan_is_refused():
    with pytest.raises(DataError, match="NaN"):
        mmrv(real=(0.1, float("nan")), imagined=(0.1, 0.2))


def test_bootstrap_takes_whole_tasks():
    """Two tasks, biased by 0 and by 1: a draw is biased by 0, 1/2, 1 in shares 1/4, 1/2, 1/4."""
    real, imagined = _counts([[5, 0]] * 3), _counts([[5, 10]] * 3)
    wide = agree_over_tasks(real=real, imagined=imagined, confidence=0.95)
    narrow = agree_over_tasks(real=real, imagined=imagined, confidence=0.4)
    assert wide.mean_bias == pytest.approx(0.5)
    assert wide.intervals["mean_bias"] == (0.0, 1.0)
    assert narrow.intervals["mean_bias"] == (0.5, 0.5)


def test_bootstrap_of_equal_tasks_has_no_width():
    real = _counts(np.repeat([[1], [4], [8]], 5, axis=1))
    imagined = _counts(np.repeat([[2], [3], [9]], 5, axis=1))
    found = agree_over_tasks(real=real, imagined=imagined)
    bounds = found.intervals["pearson"]
    assert bounds is not None
    assert bounds.low == pytest.approx(found.pearson) == pytest.approx(bounds.high)


def test_bootstrap_is_seeded():
    real, imagined = _counts(WORLDGYM_REAL), _counts(WORLDGYM_IMAGINED)
    first, again, other = (
        agree_over_tasks(real=real, imagined=imagined, draws=200, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.intervals["pearson"] != other.intervals["pearson"]


def test_bootstrap_weighs_tasks_by_their_rollouts():
    """Pooled rates: (9 + 0) / (90 + 10), not the mean 0.05 of the two tasks' rates."""
    counts = TaskCounts(successes=np.array([[9.0, 0.0]]), decided=np.array([[90.0, 10.0]]))
    assert counts.rates == pytest.approx([0.09])


def test_one_task_cannot_be_resampled():
    found = agree_over_tasks(real=_counts([[1], [5], [9]]), imagined=_counts([[2], [4], [9]]))
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
    found = agree_over_tasks(real=counts, imagined=counts)
    # The first task is in 1 - (24/25)^25 = 64 % of the draws: an interval from those.
    assert found.intervals["mean_bias"] is not None
    decided[1, :1] = decided[1, 2:] = 0.0
    counts = TaskCounts(successes=np.minimum(counts.successes, decided), decided=decided)
    found = agree_over_tasks(real=counts, imagined=counts)
    # Both the first and the second in about 40 %: too few.
    assert found.mean_bias == 0.0
    assert found.intervals["mean_bias"] is None
    assert "undefined in" in found.reasons["intervals.mean_bias"]


def test_cells_without_a_decided_rollout_are_left_out():
    real = TaskCounts(successes=np.array([[1.0, 2.0]]), decided=np.array([[4.0, 4.0]]))
    imagined = TaskCounts(successes=np.array([[2.0, 0.0]]), decided=np.array([[4.0, 0.0]]))
    cells = agree_in_cells(real=real, imagined=imagined)
    assert (cells.cells, cells.mean_absolute_error, cells.pearson) == (1, 0.25, None)


def test_bad_bootstrap_settings():
    counts = _counts(WORLDGYM_REAL)
    with pytest.raises(ConfigError, match="draws is 0"):
        agree_over_tasks(real=counts, imagined=counts, draws=0)
    with pytest.raises(ConfigError, match="confidence is 95"):
        agree_over_tasks(real=counts, imagined=counts, confidence=95)
    with pytest.raises(MismatchError, match="same"):
        agree_over_tasks(real=counts, imagined=_counts([[1.0]]))
