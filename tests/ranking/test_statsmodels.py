"""The same numbers from statsmodels, where that is installed, on random data."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.ranking import (
    adjust_p_values,
    clopper_pearson_interval,
    difference_interval,
    paired_test,
    rollouts_needed,
    wilson_interval,
)

proportion = pytest.importorskip("statsmodels.stats.proportion")
rng = np.random.default_rng(0)
COUNTS = [(int(rng.integers(0, n + 1)), int(n)) for n in rng.integers(1, 200, 30)]


@pytest.mark.parametrize(
    ("ours", "method"), [(wilson_interval, "wilson"), (clopper_pearson_interval, "beta")]
)
def test_intervals(ours, method):
    for successes, trials in COUNTS:
        expected = proportion.proportion_confint(successes, trials, alpha=0.1, method=method)
        assert ours(successes, trials, 0.9) == pytest.approx(expected, abs=1e-9)


def test_newcombe():
    for (k_a, n_a), (k_b, n_b) in zip(COUNTS[::2], COUNTS[1::2], strict=True):
        expected = proportion.confint_proportions_2indep(k_b, n_b, k_a, n_a, method="newcomb")
        assert difference_interval(k_a, n_a, k_b, n_b) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_corrections(correction):
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(1).random(40) ** 3
    expected = multipletests(p_values, method=correction)[1]
    assert adjust_p_values(p_values, correction) == pytest.approx(expected)


def test_mcnemar():
    from statsmodels.stats.contingency_tables import mcnemar

    outcomes = np.random.default_rng(2).random((20, 2, 60)) < np.array([[0.4], [0.6]])
    for a, b in outcomes:
        table = [[int((a & b).sum()), int((a & ~b).sum())], [int((~a & b).sum()), 0]]
        assert paired_test(a, b).p_value == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_rollouts_needed():
    from statsmodels.stats.power import NormalIndPower

    for p1, p2, power, alpha in ((0.75, 0.9, 0.9, 0.01), (0.1, 0.3, 0.8, 0.05), (0.5, 1, 0.8, 0.1)):
        effect = proportion.proportion_effectsize(p2, p1)
        needed = NormalIndPower().solve_power(effect, alpha=alpha, power=power)
        assert rollouts_needed(p1, p2, power, alpha) == int(np.ceil(needed))
