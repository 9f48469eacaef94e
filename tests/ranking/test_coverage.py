"""benchmarks/coverage.py, small: the intervals cover and the tests keep alpha, as its page says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import simulated_intervals
import simulated_tests

BENCHMARKS = Path(simulated_tests.__file__).parent
# By its path: a package for test coverage has the same name.
_spec = importlib.util.spec_from_file_location("coverage_page", BENCHMARKS / "coverage.py")
assert _spec is not None and _spec.loader is not None
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)
sys.path.remove(str(BENCHMARKS))


def mean(rows: list) -> float:
    return float(np.mean([row.share for row in rows]))


@pytest.mark.parametrize("kind", ["wilson", "newcombe", "judged"])
def test_intervals_cover(kind: str) -> None:
    """Over 30 to 48 settings of 150 draws, the mean has a standard error of 0.3 %."""
    rows = getattr(simulated_intervals, kind)(np.random.default_rng(0), 150)
    assert mean(rows) == pytest.approx(0.95, abs=0.015)


def test_prediction_powered_intervals_cover() -> None:
    rng = np.random.default_rng(0)
    assert mean(simulated_intervals.powered_mean(rng, 60, "wilson")) == pytest.approx(
        0.95, abs=0.02
    )
    assert mean(simulated_intervals.powered_difference(rng, 80, "wilson")) == pytest.approx(
        0.95, abs=0.02
    )


def test_the_coverage_is_that_of_the_truth() -> None:
    """Against a hand-made case: five experiments, three of whose intervals hold 0.5."""
    results = np.array([[0], [1], [2], [2], [3]])
    share = simulated_intervals.share_covered(results, 0.5, lambda k: (k / 4 - 0.25, k / 4 + 0.25))
    assert share == 4 / 5  # 1, 2, 2, 3


@pytest.mark.parametrize("dependence", ["independent", "positive", "negative"])
def test_pairs_have_the_rates_and_the_dependence_that_they_say(dependence: str) -> None:
    pairs = simulated_tests.draw_pairs(np.random.default_rng(0), 0.5, 0.7, dependence, 200, 100)
    assert pairs.reshape(-1, 2).mean(0) == pytest.approx([0.5, 0.7], abs=0.015)
    correlation = np.corrcoef(pairs.reshape(-1, 2).T)[0, 1]
    sign = {"independent": 0, "positive": 1, "negative": -1}[dependence]
    assert np.sign(round(correlation, 1)) == sign


def test_stopping_at_will_raises_no_false_alarms() -> None:
    """A look after each of 150 pairs; 12 settings of 60 draws: a standard error of 0.8 %."""
    rows = simulated_tests.sequential_alarms(np.random.default_rng(0), 60, length=150)
    assert mean(rows) < simulated_tests.ALPHA


def test_the_foreign_bet_shows_why_pairs_need_their_own() -> None:
    pairs = simulated_tests.draw_pairs(np.random.default_rng(0), 0.5, 0.5, "negative", 300, 300)
    assert (simulated_tests.stops(pairs, "turner-grunwald") > 0).mean() > 0.1
    assert (simulated_tests.stops(pairs) > 0).mean() < 0.07  # 300 draws: an error of 1.3 %


def test_several_policies_keep_alpha_together() -> None:
    rng = np.random.default_rng(0)
    assert mean(simulated_tests.order_alarms(rng, 60)) < simulated_tests.ALPHA
    assert mean(simulated_tests.best_alarms(rng, 60)) < simulated_tests.ALPHA
    field = simulated_tests.draw_field(rng, (0.1, 0.5, 0.9), 200)
    assert field.mean((0, 1)) == pytest.approx([0.1, 0.5, 0.9], abs=0.02)


def test_the_dreams_are_as_correlated_as_they_say() -> None:
    rng = np.random.default_rng(0)
    for kind in simulated_intervals.IMAGINED:
        n00, n01, n10, n11, only = kind.draw(rng, 20_000, 20_000, 1)[0].tolist()
        real, paired, alone = simulated_intervals.arrays(n00, n01, n10, n11, only, 20_000)
        assert real.mean() == pytest.approx(kind.rate, abs=0.015)
        assert paired.mean() == pytest.approx(alone.mean(), abs=0.02)
        assert np.corrcoef(real, paired)[0, 1] == pytest.approx(kind.correlation, abs=0.03)


def test_the_page_has_a_line_for_every_kind() -> None:
    kinds = {**table.INTERVALS, **table.ALARMS}
    results = {
        kind: [simulated_tests.Row("a setting", 0.96), simulated_tests.Row("worst", 0.93)]
        for kind in kinds
    }
    saved = simulated_tests.Saving(
        rates=(0.5, 0.7), dependence="independent", formula=93, fixed=101, mean=90.9, cap=150,
        open_mean=97.0, open_power=0.99,
    )  # fmt: skip
    page = table.page(results, [saved], 100, "how it was made")
    for kind in kinds:
        assert f"| {kind} | 2 | 94.5% |" in page
    assert "| 0.5 v 0.7 | independent | 93 | 101 | 91, 150 | 10% | 97, 99% | 75% |" in page
