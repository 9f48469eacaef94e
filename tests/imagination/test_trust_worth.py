"""What trust is worth: areas under curves, weights, thresholds and rates, checked by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from worldeval.data.finite import finite
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.imagination.trust.calibration import (
    Evidence,
    RateErrors,
    TrustCalibration,
    calibrate_trust,
    rate_errors,
    threshold_for,
)
from worldeval.imagination.trust.combining import (
    Combination,
    Weights,
    fit_combination,
    held_out_distrust,
)
from worldeval.imagination.trust.measuring import spearman, wrong_verdicts
from worldeval.metrics.roc import area, auroc
from worldeval.reports.trust import calibration_report, evaluation_report, rates_table


def test_auroc_by_hand() -> None:
    scores, wrong = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert auroc(scores, wrong) == 0.75  # 3 of the 4 pairs are in order
    assert auroc(-scores, wrong) == 0.25
    assert auroc(np.ones(4), wrong) == 0.5, "ties are worth a coin"
    assert auroc(np.array([1.0, 2, 2, 3]), wrong) == (1 + 1 + 0.5 + 1) / 4
    assert np.isnan(auroc(scores, np.zeros(4, bool)))


def test_scores_that_are_missing_are_left_out() -> None:
    scores = np.array([0.1, np.nan, 0.35, 0.8])
    assert auroc(scores, np.array([False, True, True, False])) == 0.5


def test_the_interval_widens_when_rollouts_share_their_start() -> None:
    rng = np.random.default_rng(0)
    wrong = np.repeat(rng.random(40) < 0.5, 10)
    scores = np.repeat(rng.normal(size=40) + wrong[::10], 10)  # ten equal rollouts a start
    together = area(scores, wrong, np.repeat(np.arange(40), 10))
    apart = area(scores, wrong, np.arange(400))
    assert together.value == apart.value
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert np.isnan(area(scores[:10], wrong[:10], np.arange(10)).value), "too few of a kind"


def test_spearman_of_ranks_and_of_constants() -> None:
    assert spearman(np.arange(5.0), np.exp(np.arange(5.0))) == pytest.approx(1)
    assert spearman(np.ones(5), np.arange(5.0)) is None
    assert spearman(np.array([1, np.nan, 2, 3]), np.array([3, 9, 2, 1.0])) == pytest.approx(-1)


def test_the_threshold_removes_the_wanted_share_and_keeps_ties_together() -> None:
    assert threshold_for(np.arange(10.0), 0.2) == 7.0  # 8 and 9 lie beyond
    ties = np.array([0, 0, 0, 0, 0, 0, 5, 5, 5, 5.0])
    assert threshold_for(ties, 0.2) == 5.0, "four are tied for two places: all are trusted"
    assert threshold_for(np.array([np.nan, 1, 2, 3, 4, 5]), 0.2) == 4.0
    assert threshold_for(np.ones(3), 0.2) == 1.0
    with pytest.raises(DataError, match="no rollout with a verdict"):
        threshold_for(np.array([np.nan]))


def test_rates_with_and_without_the_doubted() -> None:
    table = pd.DataFrame(
        {
            "policy": ["good"] * 4 + ["bad"] * 4,
            "outcome": ["success", "success", "failure", "undecided"] + ["failure"] * 3 + ["error"],
            "trusted": [True, True, False, True] + [True] * 4,
        }
    )
    truth = pd.DataFrame({"policy": ["good"] * 4 + ["bad"] * 4, "outcome": ["success"] * 4
                          + ["failure"] * 3 + ["success"]})  # fmt: skip
    rates = rate_errors(table, truth)
    assert rates.by_policy["good"] == pytest.approx((100, 200 / 3, 100))
    assert rates.by_policy["bad"] == pytest.approx((25, 0, 0))
    assert (rates.all_rollouts, rates.kept) == pytest.approx(((100 / 3 + 25) / 2, 12.5))
    assert rates.removed == 1, "rollouts without a verdict are not removed"


def rollouts(count: int = 600, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Successes are wrong where "a" is large, failures where "b" is; "noise" says nothing."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "key": [f"k{i}" for i in range(count)],
            "policy": [f"p{i % 6}" for i in range(count)],
            "task": [f"t{i // 6 % 5}" for i in range(count)],
            "start_id": [f"s{i // 30}" for i in range(count)],
            "judge": "j",
            "outcome": np.where(rng.random(count) < 0.5, "success", "failure"),
            "a": rng.normal(size=count),
            "b": rng.normal(size=count),
            "noise": rng.normal(size=count),
        }
    )
    table["start_id"] = table["policy"].str[1:] + "-" + np.arange(count).astype(str)
    reason = np.where(table["outcome"] == "success", table["a"], table["b"])
    wrong = rng.random(count) < 1 / (1 + np.exp(-(2 * reason - 1.5)))
    return table, wrong


def truth_of(table: pd.DataFrame, wrong: np.ndarray) -> pd.DataFrame:
    other = {"success": "failure", "failure": "success"}
    true = [other[o] if w else o for o, w in zip(table["outcome"], wrong, strict=True)]
    return table[["key", "policy", "task", "start_id"]].assign(outcome=true)


def test_each_verdict_is_doubted_for_its_own_reasons() -> None:
    table, wrong = rollouts()
    names = {"success": ["a", "b", "noise"], "failure": ["a", "b", "noise"]}
    fitted = fit_combination(table, wrong, names, penalty=1.0)
    success, failure = (
        {n: w for n, (_, _, w) in fitted.verdicts[v].signals.items()} for v in names
    )
    assert success["a"] > 1.5 > 0.4 > success["b"] and failure["b"] > 1.5 > 0.4 > failure["a"]
    assert auroc(fitted.distrust(table), wrong) > 0.8


def test_a_signal_that_says_the_opposite_gets_no_weight() -> None:
    table, wrong = rollouts()
    table["a"] = -table["a"]
    fitted = fit_combination(table, wrong, {"success": ["a"], "failure": []})
    assert fitted.verdicts["success"].signals["a"][2] == 0
    assert fitted.needed == ()


def test_distrust_is_the_written_formula() -> None:
    weights = Weights(intercept=-1.0, signals={"a": (2.0, 4.0, 3.0)})
    combination = Combination(verdicts={"success": weights, "failure": Weights(intercept=0.0)})
    table = pd.DataFrame(
        {"outcome": ["success", "success", "success", "failure", "undecided"],
         "a": [2.0, 4.0, 1e9, np.nan, 0.0]}
    )  # fmt: skip
    expected = [1 / (1 + np.exp(1)), 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-8)), 0.5]
    assert combination.distrust(table)[:4] == pytest.approx(expected)
    assert np.isnan(combination.distrust(table)[4]), "there is no verdict to doubt"
    with pytest.raises(DataError, match=r"lack the signals \['a'\]"):
        combination.distrust(table.drop(columns="a"))


def test_held_out_weights_have_not_seen_their_own_policy() -> None:
    table, wrong = rollouts()
    table["mark"] = np.where(wrong & (table["policy"] == "p0"), 1.0, 0.0)  # betrays p0's alone
    names = {"success": ["mark"], "failure": ["mark"]}
    mine = (table["policy"] == "p0").to_numpy()
    held = held_out_distrust(table, wrong, lambda *_: names, table["policy"].to_numpy())
    fitted = fit_combination(table, wrong, names).distrust(table)
    assert auroc(fitted[mine], wrong[mine]) > 0.8
    assert np.unique(held[mine]).size == 2, "one number a verdict: the mark was never seen"


def test_calibration_turns_on_what_works_and_helps(tmp_path) -> None:
    table, wrong = rollouts(1200)
    evidence = Evidence(table=table, truth=truth_of(table, wrong))
    made = calibrate_trust(evidence, world_model="w", instrument="i")
    worth = {m.signal: m for m in made.measured}
    assert worth["a"].by_verdict["success"].low > 0.7
    assert set(made.combination.verdicts["success"].signals) == {"a"}
    assert set(made.combination.verdicts["failure"].signals) == {"b"}
    assert made.held_out["auroc"] > 0.8
    assert 0.15 <= 1 - made.apply(table)["trusted"].mean() <= 0.25
    text = calibration_report(made)
    assert "| noise |" in text and "off |" in text and "success 1" in text

    read = TrustCalibration.load(made.save(tmp_path / "trust.json"))
    fresh, fresh_wrong = rollouts(seed=1)
    applied = read.apply(fresh)
    assert applied["distrust"].to_numpy() == pytest.approx(made.apply(fresh)["distrust"].to_numpy())
    assert read.measured[0].signal == made.measured[0].signal
    assert auroc(applied["distrust"].to_numpy(), fresh_wrong) > 0.75
    told = evaluation_report(Evidence(table=applied, truth=truth_of(fresh, fresh_wrong)), read)
    assert "| distrust |" in told and "mean absolute error" in told


def test_rollouts_without_a_verdict_stay_trusted() -> None:
    combination = Combination(verdicts={v: Weights(intercept=9.0) for v in ("success", "failure")})
    calibration = TrustCalibration(
        combination=combination, threshold=0.5, share=0.2, world_model=None, instrument="i",
        judges=("j",),
    )  # fmt: skip
    told = calibration.apply(pd.DataFrame({"outcome": ["success", "error", "undecided"]}))
    assert told["trusted"].tolist() == [False, True, True]


def test_truth_is_looked_up_by_cell_and_undecided_is_not_wrong() -> None:
    table = pd.DataFrame({"key": ["a", "b", "c"], "outcome": ["success", "failure", "undecided"]})
    truth = pd.DataFrame({"key": ["c", "b", "a"], "outcome": ["success", "success", "success"]})
    wrong = wrong_verdicts(table, truth, ["key"])
    assert wrong[:2].tolist() == [0, 1] and np.isnan(wrong[2])
    with pytest.raises(MismatchError, match="1 of 3 rollouts have no true outcome, such as"):
        wrong_verdicts(table, truth[1:], ["key"])
    with pytest.raises(DataError, match=r"lacks \['outcome'\]"):
        wrong_verdicts(table, truth[["key"]], ["key"])


def test_a_calibration_for_something_else_is_refused(tmp_path) -> None:
    table, wrong = rollouts()
    made = calibrate_trust(
        Evidence(table=table, truth=truth_of(table, wrong)), world_model="w", instrument="i"
    )
    made.check(world_model="w", instrument="i", judges={"j"})
    made.check(world_model=None, instrument="i", judges={"j"})
    for wrong_one, said in (
        ({"world_model": "other"}, "world model 'w', these rollouts are of 'other'"),
        ({"instrument": "x"}, "trust checkpoint 'i'"),
        ({"judges": {"vlm"}}, "judge"),
    ):
        given = {"world_model": "w", "instrument": "i", "judges": {"j"}} | wrong_one
        with pytest.raises(MismatchError, match=said):
            made.check(**given)
    with_seeds = Combination(
        verdicts={"success": Weights(intercept=0.0, signals={"seeds_top": (0.0, 1.0, 0.5)})}
    )
    needing = replace(made, combination=with_seeds)
    with pytest.raises(MismatchError, match="make them with --seeds 1"):
        needing.check(world_model="w", instrument="i", judges={"j"}, seeds=False)
    needing.check(world_model="w", instrument="i", judges={"j"}, seeds=True)
    path = tmp_path / "trust.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        TrustCalibration.load(path)
    path.write_text(json.dumps({"format": "worldeval-judge-calibration-1"}))
    with pytest.raises(ConfigError, match="is not a trust calibration"):
        TrustCalibration.load(path)
    path.write_text(json.dumps({"format": "worldeval-trust-1", "verdicts": {}}))
    with pytest.raises(ConfigError, match="is damaged"):
        TrustCalibration.load(path)


def test_what_cannot_be_calibrated_is_said() -> None:
    table, wrong = rollouts(60)
    settings = {"world_model": None, "instrument": "i"}
    right = Evidence(table=table, truth=truth_of(table, np.zeros(60, bool)))
    with pytest.raises(DataError, match="0 of 60 verdicts of 6 policies are wrong"):
        calibrate_trust(right, **settings)
    one = table.assign(policy="p")
    with pytest.raises(DataError, match="of two policies or more"):
        calibrate_trust(Evidence(table=one, truth=truth_of(one, wrong)), **settings)
    with pytest.raises(ConfigError, match="share is 1.5"):
        calibrate_trust(Evidence(table=table, truth=truth_of(table, wrong)), share=1.5, **settings)


def test_a_policy_of_which_nothing_is_trusted_has_no_rate(tmp_path):
    """It stands in the table as "-", and its calibration can be written and read again."""
    nothing = RateErrors(
        all_rollouts=1.0, kept=2.0, removed=3, by_policy={"a": (50.0, 40.0, float("nan"))}
    )
    assert "| a | 50.0 % | 40.0 % | - |" in rates_table(nothing)
    calibration = TrustCalibration(
        combination=Combination(
            verdicts={v: Weights(intercept=9.0) for v in ("success", "failure")}
        ),
        threshold=0.5,
        share=0.2,
        world_model=None,
        instrument="x",
        judges=("j",),
        held_out={"auroc": float("nan"), "rates": finite(nothing)},
    )
    again = TrustCalibration.load(calibration.save(tmp_path / "trust.json"))
    assert again.held_out["auroc"] is None
    assert rates_table(RateErrors(**again.held_out["rates"])) == rates_table(nothing)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("threshold",), float("nan"), "threshold is no finite number"),
        (("threshold",), None, "threshold is None"),
        (("threshold",), "0.5", "threshold is '0.5'"),
        (("threshold",), 1.5, "threshold is 1.5"),
        (("share",), 0, "share 0"),
        (("judges",), "j", "judges is 'j', expected a list"),
        (("instrument",), 5, "instrument is 5"),
        (("verdicts", "success", "intercept"), float("inf"), "intercept is no finite number"),
        (("verdicts", "success", "signals", "a"), [0, 0, 1], "spread 0"),
        (("verdicts", "success", "signals", "a"), [0, 1, -1], "weight -1"),
        (("verdicts", "success", "signals", "a"), [0, True, 1], "is True, expected a finite"),
        (("verdicts", "success", "signals", "a"), [0, 1], "expected a list of 3"),
        (("verdicts", "sucess"), {"intercept": 0.0}, "sucess"),
        (("verdicts",), {}, "it has weights for"),
        (("measured",), [{}], "KeyError"),
    ],
)
def test_a_calibration_that_is_damaged_is_one_sentence(tmp_path, place, value, says) -> None:
    """A threshold that is NaN would trust everything, a missing verdict all of its kind."""
    path = TrustCalibration(
        combination=Combination(
            verdicts={
                v: Weights(intercept=1.0, signals={"a": (0.0, 1.0, 0.5)})
                for v in ("success", "failure")
            }
        ),
        threshold=0.5,
        share=0.2,
        world_model="w",
        instrument="i",
        judges=("j",),
    ).save(tmp_path / "trust.json")
    assert TrustCalibration.load(path).threshold == 0.5
    content = json.loads(path.read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="is damaged") as error:
        TrustCalibration.load(path)
    assert says in str(error.value) and "\n" not in str(error.value)
