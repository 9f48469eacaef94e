"""What is promised of kept rollouts holds for new ones, and where nothing can be, nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.imagination.test_trust_worth import rollouts, truth_of
from worldeval.errors import ConfigError
from worldeval.imagination.trust.calibration import Evidence, TrustCalibration, calibrate_trust
from worldeval.imagination.trust.promise import Promise, design_effect, make_promise
from worldeval.reports.trust import calibration_report, evaluation_report


def draw(count: int, seed: int, families: int = 6, off: float = 0.0):
    """Distrust that is right on average; families differ by ``off``."""
    rng = np.random.default_rng(seed)
    owner = rng.integers(families, size=count)
    distrust = rng.beta(1, 4, count)
    shift = off * rng.normal(size=families)[owner]
    return distrust, rng.random(count) < np.clip(distrust + shift, 0, 1), owner


def test_the_promise_is_kept_in_as_many_draws_as_was_said() -> None:
    """At most 10 % wrong among kept ones of a large new sample, in 90 % of 150 calibrations."""
    new_distrust, new_wrong, _ = draw(50_000, 999)
    broken, kept = 0, []
    for seed in range(150):
        promise = make_promise(*draw(400, seed))
        if promise.threshold is None:
            continue
        mine = new_distrust <= promise.threshold
        broken += new_wrong[mine].mean() > 0.1
        kept.append(mine.mean())
    assert broken <= 0.1 * 150 + 4 and np.mean(kept) > 0.3


def test_nothing_is_kept_where_doubt_knows_nothing() -> None:
    rng = np.random.default_rng(0)
    promise = make_promise(rng.random(400), rng.random(400) < 0.3, rng.integers(5, size=400))
    assert promise.threshold is None and promise.kept == 0
    assert "the promise keeps none" in promise.sentence


def test_few_rollouts_promise_nothing_and_families_that_differ_count_for_less() -> None:
    distrust = np.arange(12) / 12
    assert make_promise(distrust, np.zeros(12, bool), np.arange(12)).threshold is None
    wrong = np.arange(400) % 100 < 6
    mixed, apart = np.arange(400) % 4, (np.arange(400) >= 100).astype(int)
    assert design_effect(wrong, mixed) == pytest.approx(1, abs=0.5)
    one_family = np.arange(400) < 24  # the same share, all of it in one family
    assert design_effect(one_family, apart) > 5
    assert make_promise(np.zeros(400), wrong, mixed).kept == 400
    assert make_promise(np.zeros(400), one_family, apart).kept == 0


def test_a_promise_is_a_share() -> None:
    with pytest.raises(ConfigError, match="most_wrong is 1.5"):
        Promise(most_wrong=1.5)


FAMILIES = {f"p{n}": f"family {n // 2}" for n in range(6)}


def test_families_are_held_out_and_what_is_found_is_kept_in_the_file(tmp_path) -> None:
    table, wrong = rollouts(1200)
    evidence = Evidence(table=table, truth=truth_of(table, wrong))
    made = calibrate_trust(
        evidence, world_model="w", instrument="i", families=FAMILIES, promised=0.1
    )
    read = TrustCalibration.load(made.save(tmp_path / "trust.json"))
    assert read.measured_on == "families" and read.helps is made.helps is not None
    assert read.promise == made.promise and made.promise.threshold == made.threshold
    kept = ~(made.apply(table)["distrust"] > made.threshold)
    assert wrong[kept].mean() <= 0.1
    assert "each family by weights fitted without it" in calibration_report(read)
    plain = calibrate_trust(evidence, world_model="w", instrument="i")
    assert plain.measured_on == "policies" and plain.helps is None
    assert "it takes --families" in calibration_report(plain)


def test_a_mark_of_one_family_is_worth_nothing_for_the_others() -> None:
    """Held out policy by policy it looks like knowledge, family by family it does not."""
    table, wrong = rollouts(1200)
    family = table["policy"].map(FAMILIES)
    table = table.assign(a=np.where(wrong, family.str[-1].astype(float) + 1, 0.0), b=0.0)
    table["a"] = np.where(family == "family 0", table["a"], np.random.default_rng(0).random(1200))
    evidence = Evidence(table=table, truth=truth_of(table, wrong))
    settings = {"world_model": "w", "instrument": "i"}
    by_policy = calibrate_trust(evidence, **settings).held_out["auroc"]
    by_family = calibrate_trust(evidence, **settings, families=FAMILIES).held_out["auroc"]
    assert by_family < by_policy - 0.03


def test_where_it_does_not_help_families_nobody_is_told_whom_to_trust(tmp_path) -> None:
    table, wrong = rollouts(1200)
    noise = np.random.default_rng(3).normal(size=(2, 1200))
    table = table.assign(a=noise[0], b=noise[1])
    evidence = Evidence(table=table, truth=truth_of(table, wrong))
    made = calibrate_trust(
        evidence, world_model="w", instrument="i", families=FAMILIES, promised=0.1
    )
    assert made.helps is not True and made.promise.threshold is None
    assert made.held_out["rates"]["removed"] == 1200
    assert "rollouts removed | | - | - |" in calibration_report(made)
    off = TrustCalibration.load(made.save(tmp_path / "trust.json"))
    told = TrustCalibration(**{**vars(off), "helps": False}).apply(table)
    assert told["trusted"].isna().all() and told["distrust"].notna().all()
    unsure = TrustCalibration(**{**vars(off), "helps": False})
    after = Evidence(table=told, truth=truth_of(table, wrong))
    assert "rollouts removed | | - | - |" in evaluation_report(after, unsure)
