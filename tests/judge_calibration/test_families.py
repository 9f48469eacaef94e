"""Corrections are tried on families left out, and shown for strangers only where they help."""

from __future__ import annotations

import numpy as np

from worldeval.judge_calibration import Assessment
from worldeval.judge_calibration.families import (
    held_out_rates,
    helps_rates,
    measured_on_families,
)
from worldeval.judging.probability import Counts

FAMILIES = {f"p{n}": f"family {n // 3}" for n in range(12)}


def assessed(flattery, seed: int = 0, rollouts: int = 400) -> Assessment:
    """12 policies that truly succeed in 20 to 80 %; ``flattery(family)`` of their failures are
    taken for successes."""
    rng = np.random.default_rng(seed)
    cells = {}
    for n, rate in enumerate(rng.permutation(np.linspace(0.2, 0.8, 12))):
        true = int(rollouts * rate)
        false = rng.binomial(rollouts - true, flattery(n // 3))
        cells["imagination", f"p{n}", "push"] = Counts(
            true_positive=true,
            false_positive=int(false),
            true_negative=rollouts - true - int(false),
        )
    return Assessment(judge="j", truth="t", cells=cells)


def test_errors_that_all_families_share_are_undone_for_one_left_out():
    made = measured_on_families(assessed(lambda family: 0.3), FAMILIES)
    assert made.helps_families is True and "corrections help." in made.notes[-1]
    assert set(made.errors_for(["stranger", "p0"])) == {"stranger", "p0"}


def test_errors_of_one_family_alone_do_not_help_others_and_strangers_get_no_correction(tmp_path):
    made = measured_on_families(assessed(lambda family: 0.6 * (family == 0)), FAMILIES)
    assert made.helps_families is False and "are not sure to help" in made.notes[-1]
    read = Assessment.load(made.save(tmp_path))
    assert read.helps_families is False
    assert set(read.errors_for(["stranger", "p0"])) == {"p0"}


def test_a_policy_is_corrected_by_other_families_alone():
    rates = held_out_rates(assessed(lambda family: 0.6 * (family == 0)), FAMILIES)
    true, plain, corrected = rates["p0"]
    assert plain - true > 0.05 and abs(corrected - plain) < 0.02, "only its own family is flattered"


def test_two_families_tell_nothing():
    assert helps_rates({"a": (0.5, 0.6, 0.5), "b": (0.5, 0.6, 0.5)}, {}) is None
    nan = float("nan")
    rates = {name: (0.5, 0.6, 0.5) for name in "abc"} | {"d": (0.5, nan, nan)}
    assert helps_rates(rates, {}) is True
    made = measured_on_families(assessed(lambda family: 0.3), dict.fromkeys(FAMILIES, "one"))
    assert made.helps_families is None and "cannot be told" in made.notes[-1]


def test_rank_shows_no_corrected_rate_of_a_stranger_where_it_is_not_sure_to_help() -> None:
    from tests.ranking.verdict_tables import table
    from worldeval.ranking.leaderboard.build import build_leaderboard
    from worldeval.reports.ranking.text import render

    made = measured_on_families(assessed(lambda family: 0.6 * (family == 0)), FAMILIES)
    names = ["stranger", "p0", "p5"]
    board = build_leaderboard(
        table(stranger={"push": "s" * 12 + "f" * 8}, p0={"push": "s" * 20}, p5={"push": "f" * 20}),
        judge_errors=made.errors_for(names),
    )
    corrected = {row.name: row.corrected for row in board.policies}
    assert corrected["stranger"] is None and corrected["p0"] is not None
    assert any("No corrected rate of stranger" in note for note in board.notes)
    assert "not sure to help" in render(board)
