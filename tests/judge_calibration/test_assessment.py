"""How often a judge is right: joined with the truth, kept in a file, used to correct rates."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.judge_calibration import Assessment
from worldeval.judge_calibration.assessing import AssessConfig, assess
from worldeval.judge_calibration.label_tables import majority_table, tables_by_rater
from worldeval.judge_calibration.truth import join
from worldeval.judging.human import Label, blind_id
from worldeval.judging.probability import Counts
from worldeval.ranking import Confusion, JudgeCalibration, PeerErrors
from worldeval.reports.judge.page import write_page
from worldeval.reports.judge.text import to_text
from worldeval.types import Outcome

JUDGE = "classifier@1"


def tables(
    policies: tuple[str, ...] = ("good", "bad"),
    *,
    starts: int = 20,
    world: str = "imagination",
    errs: float = 0.2,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Verdicts of a judge that errs on a share of the rollouts, and what truly happened."""
    rng = np.random.default_rng(seed)
    said, true = [], []
    for number, policy in enumerate(policies):
        for task in ("open", "close"):
            for start in range(starts):
                start_id = f"{task}/{start:04d}"
                success = bool(rng.random() < 0.8 - 0.6 * number / max(len(policies) - 1, 1))
                probability = float(np.clip(0.5 + (0.3 if success else -0.3) + rng.normal(0, 0.1),
                                            0.01, 0.99))  # fmt: skip
                if rng.random() < errs:
                    probability = 1 - probability
                cell = {"policy": policy, "task": task, "start_id": start_id}
                said.append({"key": f"{policy}/{start_id}", **cell, "world": world, "judge": JUDGE,
                             "outcome": "success" if probability >= 0.5 else "failure",
                             "probability": probability})  # fmt: skip
                true.append({"key": f"true/{policy}/{start_id}", **cell, "world": "metaworld",
                             "judge": "world",
                             "outcome": "success" if success else "failure"})  # fmt: skip
    return pd.DataFrame(said), pd.DataFrame(true)


def counted() -> Assessment:
    """Two policies with known counts."""
    return Assessment(
        judge=JUDGE, truth="metaworld", world_model="abc",
        cells={
            ("imagination", "good", "open"): Counts(true_positive=18, false_negative=2,
                                                    true_negative=3, false_positive=2),
            ("imagination", "bad", "open"): Counts(true_positive=6, false_negative=4,
                                                   true_negative=14, false_positive=1,
                                                   undecided_negative=5),
            ("imagination", "bad", "close"): Counts(true_positive=0, true_negative=10),
            ("metaworld", "good", "open"): Counts(true_positive=20, true_negative=5),
        },
    )  # fmt: skip


def test_verdicts_meet_the_truth_of_the_same_start() -> None:
    said, true = tables()
    found = assess(said, true.sample(frac=1, random_state=0), world_model="abc")
    # By hand: every rollout's verdict against its truth, over all and over one policy and task.
    right = said["outcome"].to_numpy() == true["outcome"].to_numpy()
    success = (true["outcome"] == "success").to_numpy()
    assert found.rates().sensitivity.rate == pytest.approx(right[success].mean())
    assert found.rates().specificity.rate == pytest.approx(right[~success].mean())
    one = ((said["policy"] == "bad") & (said["task"] == "close")).to_numpy()
    rates = found.rates(policy="bad", tasks=["close"])
    assert rates.counts.total == 20
    assert rates.sensitivity.rate == pytest.approx(right[one & success].mean())
    assert (found.judge, found.truth, found.worlds) == (JUDGE, "metaworld", ("imagination",))
    assert found.tasks == ("open", "close") and found.policies == ("bad", "good")
    gap = said["probability"].to_numpy() - success
    assert found.reliability.brier == pytest.approx(np.mean(gap**2))
    assert [threshold.name for threshold in found.thresholds] == ["as judged", "precise", "steady"]


def test_intervals_are_wilson_s_and_absent_where_nothing_was_seen() -> None:
    found = counted()
    pooled = found.rates(worlds=["imagination"])
    assert pooled.counts.true_positive == 24 and pooled.counts.total == 65
    assert pooled.sensitivity.rate == pytest.approx(24 / 30)
    ten = found.rates(policy="bad", tasks=["close"])
    assert ten.sensitivity is None, "no true success was seen"
    # Wilson 0 of 10 is [0, 0.277533]; 10 of 10 is its mirror image.
    assert ten.specificity.low == pytest.approx(1 - 0.277533, abs=1e-6)
    assert ten.specificity.high == 1


def test_abstentions_and_errors_enter_no_rate() -> None:
    said, true = tables(starts=10)
    plain = assess(said, true)
    more = said.copy()
    more.loc[0, "outcome"] = "undecided"
    more.loc[1, ["outcome", "probability"]] = ["error", None]
    found = assess(more, true)
    without = assess(said.drop(index=[0, 1]), true)
    assert found.rates().sensitivity == without.rates().sensitivity
    assert found.rates().specificity == without.rates().specificity
    assert found.counts().total == plain.counts().total - 1, "an error is no verdict"
    assert found.counts().abstention == pytest.approx(1 / 39)
    assert "1 rollout ended with an error and is left out." in found.notes


def test_a_judge_that_decides_nothing_has_no_rates(tmp_path: Path) -> None:
    said, true = tables()
    found = assess(said.assign(outcome="undecided"), true)
    assert found.rates().sensitivity is None and found.rates().specificity is None
    assert "100 % it leaves undecided" in to_text(found)
    assert Assessment.load(found.save(tmp_path)) == found
    with pytest.raises(DataError, match="truly succeeded"):
        found.errors_for(["good"])


def test_uneven_abstention_is_told() -> None:
    said, true = tables()
    success = (true["outcome"] == "success").to_numpy()
    said.loc[np.flatnonzero(success)[:15], "outcome"] = "undecided"
    assert any("rates over decided rollouts" in note for note in assess(said, true).notes)


def test_rollouts_without_truth_are_left_out_and_counted() -> None:
    said, true = tables()
    true.loc[3, "outcome"] = "undecided"
    found = join(said, true.drop(index=[0, 1]))
    assert (found.unmatched, found.unknown, len(found.table)) == (2, 1, len(said) - 3)
    notes = " ".join(assess(said, true.drop(index=[0, 1])).notes)
    assert "2 judged rollouts have no truth" in notes
    assert "truth of 1 rollout is undecided" in notes


def test_truth_by_key_and_by_cell_is_the_same() -> None:
    said, true = tables()
    by_key = pd.DataFrame({"key": said["key"], "outcome": true["outcome"]})
    found = assess(said, by_key)
    assert found.cells == assess(said, true).cells
    assert found.truth == "labels"


def test_two_worlds_are_told_apart() -> None:
    said, true = tables()
    again, _ = tables(world="metaworld", errs=0.0)
    found = assess(pd.concat([said, again]), true)
    assert found.worlds == ("imagination", "metaworld")
    assert found.rates(worlds=["metaworld"]).sensitivity.rate == 1
    assert found.rates(worlds=["imagination"]).sensitivity.rate < 1
    imagined = found.errors_for(["good"], worlds=["imagination"])["good"]
    assert (
        imagined.sensitivity < found.errors_for(["good"], worlds=["metaworld"])["good"].sensitivity
    )


def test_errors_are_drawn_towards_those_of_all_and_new_policies_get_these() -> None:
    found = counted()
    errors = found.errors_for(["good", "bad", "new"], worlds=["imagination"])
    pooled = (24 + 0.5) / (30 + 1)
    assert errors["new"].sensitivity == pytest.approx(pooled)
    assert pooled < errors["good"].sensitivity < 18 / 20
    assert 6 / 10 < errors["bad"].sensitivity < pooled
    # An unseen policy is known worse than one with as many examples as all together.
    assert errors["new"].positives < min(30, errors["good"].positives)
    assert errors["good"].correct(50, 100).low < 0.5 < errors["good"].correct(50, 100).high
    of_open = found.errors_for(["bad"], worlds=["imagination"], tasks=["open"])["bad"]
    assert of_open.specificity < errors["bad"].specificity


def test_new_policies_get_the_errors_on_three_others_task_by_task() -> None:
    counts = Counts(true_positive=18, false_negative=2, true_negative=12, false_positive=8)
    none = Counts(undecided_positive=3)
    cells = {("w", policy, task): counts for policy in "abc" for task in ("open", "close")}
    cells |= {("w", "never decided", "open"): none, ("other", "a", "open"): counts}
    found = Assessment(judge=JUDGE, truth="t", cells=cells)
    errors = found.errors_for(["a", "new", "never decided"], worlds=["w"], tasks=["open"])
    assert isinstance(errors["a"], JudgeCalibration) and errors["a"].errors_of == "own"
    peers = errors["new"]
    assert isinstance(peers, PeerErrors) and errors["never decided"] == peers
    assert peers.peers == dict.fromkeys("abc", {"open": Confusion(18, 8, 12, 2)})
    two = {cell: counts for cell, counts in cells.items() if cell[1] != "c"}
    pooled = Assessment(judge=JUDGE, truth="t", cells=two).errors_for(["new"])["new"]
    assert isinstance(pooled, JudgeCalibration) and pooled.errors_of == "pooled"


def test_a_judge_no_better_than_a_coin_corrects_nothing() -> None:
    coin = Counts(true_positive=10, false_negative=10, true_negative=9, false_positive=11)
    found = Assessment(judge=JUDGE, truth="t", cells={("w", "p", "a"): coin})
    assert found.errors_for(["p", "new"]) == {}
    many = Assessment(judge=JUDGE, truth="t", cells={("w", p, "a"): coin for p in "pqr"})
    assert many.errors_for(["p", "new"]) == {}
    assert "no better than a coin" in to_text(found)


def test_only_one_outcome_corrects_nothing() -> None:
    said, true = tables()
    with pytest.raises(DataError, match="all 80 rollouts with known truth truly succeeded"):
        assess(said, true.assign(outcome="success"))
    alone = Assessment(judge=JUDGE, truth="t", cells={("w", "p", "a"): Counts(true_positive=4)})
    with pytest.raises(DataError, match="no decided rollout of the calibration truly failed"):
        alone.errors_for(["p"])


def test_the_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    said, true = tables()
    found = assess(said, true, others={"ann": true}, world_model="abc")
    path = found.save(tmp_path)
    assert path == tmp_path / "calibration.json"
    assert Assessment.load(tmp_path) == Assessment.load(path) == found
    content = json.loads(path.read_text())
    assert content["format"] == "worldeval-judge-calibration-1"
    assert content["per_policy"]["good"]["sensitivity"]["rate"] == pytest.approx(
        found.rates(policy="good").sensitivity.rate
    )
    assert set(content["per_task"]) == {"open", "close"}


def edited(text: str, change: Any) -> str:
    """The JSON ``text`` after ``change`` of its object."""
    content = json.loads(text)
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[]", "its format is 'list'"),
        (lambda text: text.replace("calibration-1", "calibration-9"), "calibration-9"),
        (lambda text: text.replace('"judge":', '"jugde":', 1), "damaged .KeyError"),
        (lambda text: text.replace('"true_positive": 18', '"true_positive": -1', 1), "damaged"),
        (lambda text: text.replace('"true_positive": 18', '"true_positive": "x"', 1), "damaged"),
        (lambda text: text.replace('"confidence": 0.95', '"confidence": 7', 1), "confidence"),
        (lambda text: text.replace('"cells": [', '"cells": 3, "x": [', 1), "damaged"),
        (lambda text: edited(text, lambda c: c["cells"].append(c["cells"][0])), "there twice"),
        (lambda text: edited(text, lambda c: c["cells"][0].update(policy=None)), "as text"),
        (lambda text: edited(text, lambda c: c["cells"][0].update(true_positive=True)), "counts"),
        (lambda text: edited(text, lambda c: c["cells"][0].update(true_positive=10**30)), "counts"),
        (lambda text: edited(text, lambda c: c["cells"][0].update(true_negative=999)), "the cells"),
        (lambda text: edited(text, lambda c: c["pooled"]["sensitivity"].update(rate=1.2)), "cells"),
        (lambda text: edited(text, lambda c: c["pooled"].update(sensitivity=math.nan)), "finite"),
        (lambda text: edited(text, lambda c: c.update(confidence=math.nan)), "confidence is no"),
        (lambda text: edited(text, lambda c: c.update(confidence="x")), "confidence is 'x'"),
        (lambda text: edited(text, lambda c: c.update(confidence=True)), "confidence is True"),
        (lambda text: edited(text, lambda c: c.update(judge=None)), "judge is None"),
        (lambda text: edited(text, lambda c: c.update(notes="ab")), "notes is 'ab'"),
        (lambda text: edited(text, lambda c: c.update(thresholds=[{}])), "is missing"),
        (lambda text: edited(text, lambda c: c.update(raters=[1])), "damaged"),
        (
            lambda text: edited(
                text,
                lambda c: c.update(
                    reliability={"bins": [], "brier": 2.0, "ece": 0.1, "rollouts": 3}
                ),
            ),
            "brier is 2.0",
        ),
        (lambda text: "[" * 100_000, "nest too deeply"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, change: Any, message: str) -> None:
    path = counted().save(tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message) as told:
        Assessment.load(path)
    assert "worldeval calibrate" in str(told.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no calibration"):
        Assessment.load(tmp_path / "nowhere.json")


def test_a_calibration_of_other_data_is_refused() -> None:
    found = counted()
    fits: dict[str, Any] = {
        "judges": [JUDGE], "worlds": ["imagination"], "world_model": "abc", "tasks": ["open"],
    }  # fmt: skip
    found.check(**fits)
    found.check(**{**fits, "world_model": None})
    for name, other, message in (
        (
            "judges",
            ["classifier@2"],
            r"of judge 'classifier@1', the verdicts are of \['classifier@2'\]",
        ),
        (
            "worlds",
            ["toy"],
            r"calibrated on rollouts in .* the verdicts are on rollouts in \['toy'\]",
        ),
        ("world_model", "def", "world model abc, the verdicts are on that of def"),
        ("tasks", ["open", "fly"], r"not calibrated on the tasks \['fly'\]"),
    ):
        with pytest.raises(MismatchError, match=message):
            found.check(**{**fits, name: other})


def test_bad_tables_are_told() -> None:
    said, true = tables()
    cases: list[tuple[pd.DataFrame, pd.DataFrame, str]] = [
        (said, true.assign(policy="other " + true["policy"]),
         "the truth knows none of the 80 judged rollouts"),
        (said, true.assign(outcome="undecided"), "undecided for all 80"),
        (said, true.assign(outcome="perhaps"), "outcome 'perhaps'"),
        (said, pd.concat([true, true]), "the truth has .* more than once"),
        (pd.concat([said, said]), true, "the verdict table has .* more than once"),
        (said, true.drop(columns=["outcome"]), r"the truth .* lacks \['outcome'\]"),
        (said, true.drop(columns=["start_id", "key"]), "expected policy, task and start_id"),
        (said.drop(columns=["judge"]), true, r"lacks \['judge'\]"),
        (pd.concat([said, said.assign(judge="b", world="x")]), true, "of 2 judges"),
        (said.iloc[:0], true, "the verdict table is empty"),
        (said.assign(probability=1.5), true, "probability 1.5"),
        (said.assign(probability="high"), true, "probability 'high', expected a number in"),
    ]  # fmt: skip
    for verdicts, truth, message in cases:
        with pytest.raises(DataError, match=message):
            assess(verdicts, truth)


@pytest.mark.parametrize("column", ["missing", "empty"])
def test_a_judge_without_probabilities_has_no_thresholds(column: str, tmp_path: Path) -> None:
    said, true = tables()
    bare = (
        said.drop(columns="probability") if column == "missing" else said.assign(probability=None)
    )
    found = assess(bare, true)
    assert found.cells == assess(said, true).cells
    assert found.reliability is None and found.thresholds == ()
    assert any("gives no probabilities" in note for note in found.notes)
    assert "Brier" not in to_text(found) + write_page(tmp_path / "page.html", found).read_text()


def test_raters_are_compared_on_the_same_rollouts() -> None:
    said, true = tables()
    everybody = assess(said, true, others={"ann": true, "bob": said.head(10)}).raters
    assert everybody.raters == (JUDGE, "metaworld", "ann", "bob")
    kappas = {(pair.first, pair.second): pair.kappa for pair in everybody.pairs}
    assert kappas["metaworld", "ann"].value == 1
    assert kappas[JUDGE, "bob"].value == 1 and kappas[JUDGE, "bob"].rollouts == 10
    assert 0.3 < kappas[JUDGE, "metaworld"].value < 0.9
    with pytest.raises(MismatchError, match="ann rated none of the judged rollouts"):
        assess(said, true, others={"ann": true.assign(policy="other " + true["policy"])})


def test_labels_name_rollouts_by_key_blind_id_or_cell() -> None:
    said, _ = tables()
    key, cell = said.loc[0, "key"], tuple(said.loc[1, ["policy", "task", "start_id"]])
    labels = [
        Label(rollout=(key,), rater="ann", outcome=Outcome.FAILURE),
        Label(rollout=(blind_id(key),), rater="ann", outcome=Outcome.SUCCESS),
        Label(rollout=(blind_id(key),), rater="bob", outcome=Outcome.FAILURE),
        Label(rollout=cell, rater="bob", outcome=Outcome.SUCCESS),
        Label(rollout=("elsewhere",), rater="bob", outcome=Outcome.SUCCESS),
    ]
    found = tables_by_rater(labels, said)
    assert found["ann"]["outcome"].tolist() == ["success"], "the last label of a rater counts"
    assert found["bob"]["outcome"].tolist() == ["failure", "success"]
    most = majority_table(labels, said)
    assert most["outcome"].tolist() == ["undecided", "success"], "a tie is undecided"
    assert tuple(most.loc[1, ["policy", "task", "start_id"]]) == cell
    with pytest.raises(MismatchError, match="none of the 80 judged rollouts"):
        majority_table(labels[-1:], said)


def test_text_and_page_tell_the_rates_and_escape_names(tmp_path: Path) -> None:
    said, true = tables(("a<b>\x1b[2J", "good"))
    found = assess(said, true, others={"ann": true})
    text = to_text(found)
    assert "\x1b" not in text and "a<b>?[2J" in text
    counts = found.counts()
    rate = 100 * counts.sensitivity
    assert f"It calls {rate:.0f} %" in text
    assert "Krippendorff's alpha" in text and "Cohen's kappa" in text
    assert to_text(found, unicode=False).isascii()
    page = write_page(tmp_path / "calibration.html", found).read_text()
    assert "<b>\x1b" not in page and "a&lt;b&gt;" in page
    assert page.count("<svg") == page.count("</svg>") == 3
    assert "http" not in page.replace("http-equiv", "")


def test_settings_are_checked() -> None:
    for name, value in (("precision", 1.2), ("max_abstention", -1), ("confidence", 1), ("bins", 0)):
        with pytest.raises(ConfigError, match=f"{name} is {value}"):
            AssessConfig(**{name: value})
