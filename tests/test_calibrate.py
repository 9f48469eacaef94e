"""``worldeval calibrate``: from judged rollouts and their truth to a file that corrects rates."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from worldeval import cli
from worldeval.commands.calibrate import choose, judged_by
from worldeval.errors import DataError
from worldeval.judge_calibration import Assessment

CELL = ["policy", "task", "start_id"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run with two stores, judged by two judges, and what truly happened."""
    rows = [
        {"key": f"{policy}/open/{n}", "policy": policy, "task": "open", "start_id": f"open/{n}",
         "world": "imagination", "outcome": "success" if n % 2 else "failure",
         "probability": 0.9 if n % 2 else 0.1}
        for policy in ("one", "two")
        for n in range(12)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table["judge"] = "last@1"
    other = table.assign(judge="first@1", outcome="success", probability=float("nan"))
    for policy, part in table.groupby("policy"):
        store = tmp_path / "run" / "rollouts" / str(policy)
        (store / "meta").mkdir(parents=True)
        (store / "meta" / "info.json").write_text("{}")
        (store / "verdicts").mkdir()
        part.to_parquet(store / "verdicts.parquet")
        part.to_parquet(store / "verdicts" / "last@1.parquet")
        other[other["policy"] == policy].to_parquet(store / "verdicts" / "first@1.parquet")
    manifest = {"format": "worldeval-run-1", "config": {"world_model": "abc"}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    # One of the judge's verdicts in six is wrong.
    wrong = table["start_id"].isin(["open/0", "open/1"])
    flipped = table["outcome"].map({"success": "failure", "failure": "success"})
    truth = table.assign(outcome=table["outcome"].where(~wrong, flipped), world="metaworld")
    truth.to_parquet(tmp_path / "truth.parquet")
    return tmp_path


def calibrate(runs: Path, *options: str) -> int:
    return cli.main(["calibrate", str(runs / "run"), "--out", str(runs / "out"), *options])


def test_the_verb_writes_what_rank_needs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(runs, "--truth", str(runs / "truth.parquet")) == 0
    said = capsys.readouterr().out
    assert "last@1 against metaworld: 24 rollouts" in said
    found = Assessment.load(runs / "out")
    assert found.judge == "last@1" and found.world_model == "abc" and found.tasks == ("open",)
    assert found.rates().sensitivity.rate == pytest.approx(10 / 12)
    assert set(found.errors_for(["one", "new"])) == {"one", "new"}
    assert found.raters.raters == ("last@1", "metaworld", "first@1")
    assert "How often last@1 is right" in (runs / "out" / "calibration.html").read_text()
    assert (runs / "out" / "run.json").is_file()


def test_another_judge_of_the_same_rollouts_can_be_named(runs: Path) -> None:
    assert calibrate(runs, "--truth", str(runs / "truth.parquet"), "--judge", "first") == 0
    found = Assessment.load(runs / "out")
    assert found.judge == "first@1" and found.rates().sensitivity.rate == 1
    assert found.rates().specificity.rate == 0
    with pytest.raises(DataError, match=r"'third', which fits 0 .* \['last@1', 'first@1'\]"):
        choose(judged_by(runs / "run"), "third")


def test_labels_of_people_are_truth_and_raters(runs: Path) -> None:
    table = pd.read_parquet(runs / "truth.parquet")[[*CELL, "outcome"]]
    table.assign(rater="ann").to_csv(runs / "ann.csv", index=False)
    table.assign(rater="bob").head(8).to_csv(runs / "bob.csv", index=False)
    labels = ["--labels", str(runs / "bob.csv"), "--labels", str(runs / "ann.csv")]
    assert calibrate(runs, "--truth", str(runs / "ann.csv"), *labels) == 0
    found = Assessment.load(runs / "out")
    assert found.truth == "ann.csv"
    assert found.rates().sensitivity.rate == pytest.approx(10 / 12)
    assert found.raters.raters == ("last@1", "ann.csv", "first@1", "bob", "ann")


def test_true_trials_in_a_csv_are_truth(runs: Path) -> None:
    table = pd.read_parquet(runs / "truth.parquet")
    trials = table[CELL].assign(success=(table["outcome"] == "success").astype(int))
    trials.to_csv(runs / "trials.csv", index=False)
    assert calibrate(runs, "--truth", str(runs / "trials.csv")) == 0
    assert Assessment.load(runs / "out").rates().specificity.rate == pytest.approx(10 / 12)


def test_what_meets_nothing_is_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_parquet(runs / "truth.parquet")
    truth = table.assign(policy=table["policy"].replace("two", "Two"))
    truth[[*CELL, "outcome"]].to_csv(runs / "truth.csv", index=False, sep=";")
    labels = truth[[*CELL, "outcome"]].assign(rater="ann")
    labels.to_csv(runs / "ann.csv", index=False, sep=";")
    words = ["--truth", str(runs / "truth.csv"), "--labels", str(runs / "ann.csv")]
    assert calibrate(runs, *words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ann.csv: 12 of 24 labels are of rollouts that were not judged" in said
    assert "12 of 24 true results are of rollouts that were not judged" in said
    assert said.count("did you mean policy 'two'?") == 2
    table.assign(policy=table["policy"].str.title()).to_parquet(runs / "truth.parquet")
    assert calibrate(runs, "--truth", str(runs / "truth.parquet")) == 2
    assert "did you mean policy 'one'?" in capsys.readouterr().err
    labels.assign(key="one/open/1", policy="two").to_csv(runs / "ann.csv")
    assert calibrate(runs, *words) == 2
    assert "ann's label on 'one/open/1' contradicts itself" in capsys.readouterr().err


VERDICTS = "run/rollouts/two/verdicts.parquet"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda runs: (runs / VERDICTS).unlink(), "two is not judged"),
        (lambda runs: (runs / VERDICTS).write_text("x"), "cannot be read"),
        (lambda runs: (runs / "truth.parquet").unlink(), "holds no rollouts"),
        (
            lambda runs: pd.DataFrame({"a": [1]}).to_parquet(runs / "truth.parquet"),
            "expected at least ['policy'",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(
    runs: Path, prepare: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(runs)  # type: ignore[operator]
    assert calibrate(runs, "--truth", str(runs / "truth.parquet")) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1
