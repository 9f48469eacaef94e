"""``worldeval rank``: what it reads, what it refuses, and how long it takes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from worldeval import cli
from worldeval.commands.renamed import as_today
from worldeval.judge_calibration import Assessment
from worldeval.judging.probability import Counts
from worldeval.ranking.leaderboard import build_leaderboard
from worldeval.reports.ranking.page import write_report
from worldeval.reports.ranking.text import render

RATES = {"good": 0.9, "fair": 0.6, "bad": 0.2}
TASKS = ("push", "pull")


def verdicts(rates: dict[str, float], tasks=TASKS, starts: int = 20, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = pd.MultiIndex.from_product(
        [rates, tasks, range(starts)], names=["policy", "task", "number"]
    ).to_frame(index=False)
    rows["start_id"] = rows["task"] + "/" + rows.pop("number").map("{:04d}".format)
    rows["key"] = rows["policy"] + "/" + rows["start_id"]
    chance = rows["policy"].map(rates).to_numpy()
    outcome = np.where(rng.random(len(rows)) < chance, "success", "failure")
    return rows.assign(world="imagination", judge="judge@1", outcome=outcome, probability=np.nan)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder as `worldeval rollout` and `worldeval judge` leave it, without the videos."""
    folder = tmp_path / "runs"
    for name, table in verdicts(RATES).groupby("policy"):
        store = folder / "rollouts" / name
        (store / "meta").mkdir(parents=True)
        (store / "meta" / "info.json").write_text("{}")
        table.to_parquet(store / "verdicts.parquet", index=False)
    return folder


def rank(runs: Path, *options: str) -> dict:
    """The leaderboard; its policies by name."""
    out = runs.parent / "ranked"
    assert cli.main(["rank", str(runs), "--out", str(out), *options]) == 0
    board = json.loads((out / "leaderboard.json").read_text())
    assert (out / "report.html").is_file() and (out / "run.json").is_file()
    return board | {"policies": {row["name"]: row for row in board["policies"]}}


def refused(runs: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert cli.main(["rank", str(runs), "--out", str(runs.parent / "refused"), *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("worldeval: ") and said.count("\n") == 1
    assert not (runs.parent / "refused" / "leaderboard.json").exists()
    return said


def test_rates_letters_and_plans(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = rank(runs)
    assert list(board["policies"]) == ["good", "fair", "bad"]
    assert board["policies"]["good"]["letters"] != board["policies"]["bad"]["letters"]
    assert board["policies"]["good"]["true"] is None
    said = capsys.readouterr().out
    assert "good takes the first place of 3" in said and "report.html" in said


def test_against_the_truth(runs: Path) -> None:
    truth = runs.parent / "truth.parquet"
    verdicts(RATES, seed=1).assign(world="metaworld").to_parquet(truth)
    board = rank(runs, "--truth", str(truth))
    assert board["agreement"]["policies"] == 3
    assert board["agreement"]["warnings"], "three policies cannot support a correlation"


def test_a_few_true_trials_from_a_csv(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = verdicts(RATES, seed=2)
    few = few[few["start_id"].str.endswith(("3", "7"))]
    few = few.assign(success=(few["outcome"] == "success").astype(int))
    path = runs.parent / "few.csv"
    few[["policy", "task", "start_id", "success"]].to_csv(path, index=False)
    board = rank(runs, "--real", str(path))
    joined = board["policies"]["good"]["joined"]
    assert joined["trials"] == 8 and joined["low"] < joined["estimate"] <= joined["high"]
    assert "joined" in capsys.readouterr().out

    few.assign(success="perhaps")[["policy", "task", "start_id", "success"]].to_csv(path)
    assert "has success 'perhaps'" in refused(runs, capsys, "--real", str(path))
    few.assign(start_id="elsewhere/" + few["start_id"]).to_csv(path)
    assert "were not imagined" in refused(runs, capsys, "--real", str(path))
    path.write_text("")
    assert "few.csv is empty" in refused(runs, capsys, "--real", str(path))
    missing = str(runs / "no.csv")
    assert "there is no table at" in refused(runs, capsys, "--real", missing)


def test_trials_are_taken_as_spreadsheets_save_them(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = verdicts(RATES, seed=2)
    few = few[few["start_id"].str.endswith(("3", "7"))]
    few = few.assign(success=(few["outcome"] == "success").map({True: "TRUE", False: "FALSE"}))
    path = runs.parent / "few.csv"
    columns = ["policy", "task", "start_id", "success"]
    few[columns].to_csv(path, index=False)
    text = path.read_text()
    wanted = rank(runs, "--real", str(path))["policies"]
    for written in (
        "\ufeff" + text.replace(",", ";").replace("\n", "\r\n"),
        "sep=\t\n" + text.replace(",", "\t"),
        text.replace(",", " , ").replace("policy", "Policy").replace("start_id", "Start ID"),
        text.replace("\n", "\n,,,\n"),
        text.replace("\n", ",,\n"),
    ):
        path.write_text(written, encoding="utf-8", newline="")
        assert rank(runs, "--real", str(path))["policies"] == wanted
    few.drop(columns="success").to_parquet(path)
    assert rank(runs, "--real", str(path))["policies"] == wanted

    few.assign(success=few["outcome"].ne("success"))[[*columns, "outcome"]].to_csv(path)
    said = refused(runs, capsys, "--real", str(path))
    assert "few.csv line 2 (policy" in said and "contradicts itself" in said
    other = {"success": "Success", "TRUE": "FALSE", "FALSE": "TRUE"}
    lines = [f"{line},{other[line.rpartition(',')[2]]}" for line in text.splitlines()]
    path.write_text("\n".join(lines))
    assert "has the column 'success' twice" in refused(runs, capsys, "--real", str(path))
    path.write_text(text + ",,,12\n")
    assert f"line {len(few) + 2} (policy '', task '', start '') has no policy" in refused(
        runs, capsys, "--real", str(path)
    )
    path.write_text(text.replace("push/0003", "push/3").replace("good", "Good"))
    said = refused(runs, capsys, "--real", str(path))
    assert "14 of 12" not in said and "did you mean policy 'good', start 'push/0003'?" in said


def test_what_meets_nothing_is_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = runs.parent / "truth.csv"
    table = verdicts(RATES, seed=1).assign(world="metaworld")
    table.assign(policy=table["policy"].replace("bad", "Bad ")).to_csv(truth, index=False)
    board = rank(runs, "--against", str(truth))
    assert board["policies"]["bad"]["true"] is None and board["agreement"]["policies"] == 2
    assert board["notes"][0].startswith(
        "40 of 120 true results are of no imagined rollout, such as"
    )
    assert "did you mean policy 'bad'?" in board["notes"][0]
    table.assign(policy=table["policy"].str.upper()).to_csv(truth, index=False)
    said = refused(runs, capsys, "--against", str(truth))
    assert "the 120 true results are of none of the imagined policies" in said
    assert "did you mean policy 'good'?" in said
    few = runs.parent / "few.csv"
    table[(table["policy"] != "bad") & table["start_id"].str.endswith("3")].to_csv(few)
    assert "No decided true trial of bad." in rank(runs, "--real", str(few))["notes"]
    weights = runs.parent / "weights.json"
    weights.write_text('{"push": 3, "Pull ": 1}')
    said = refused(runs, capsys, "--weights", str(weights))
    assert "no rollouts of ['Pull '] (did you mean ['pull']?)" in said
    weights.write_text('{"push": 3, "pull": 1, "push": 1}')
    assert "it has 'push' twice" in refused(runs, capsys, "--weights", str(weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": 1.5}, "row 1 of .*verdicts.parquet .* has probability 1.5"),
        ({"outcome": "banana"}, "row 1 of .*verdicts.parquet .* has the outcome 'banana'"),
        ({"start_id": "push/0003"}, "more than once"),
        ({"policy": float("nan")}, "has no policy"),
    ],
)
def test_verdicts_that_no_judge_gives(
    runs: Path, change: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "rollouts" / "bad" / "verdicts.parquet"
    pd.read_parquet(path).assign(**change).to_parquet(path)
    assert re.search(message, refused(runs, capsys))


def test_weights(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs.parent / "weights.json"
    path.write_text('{"push": 3, "pull": 1}')
    board = rank(runs, "--weights", str(path))
    assert board["weights"] == {"push": 3, "pull": 1}
    assert [row["weight"] for row in board["per_task"]] == [0.75, 0.25]
    assert rank(runs, "--weights", "equal")["weights"] == "equal"
    path.write_text('{"push": 3}')
    assert "no weight for ['pull']" in refused(runs, capsys, "--weights", str(path))
    path.write_text("[1, 2]")
    assert "are a list" in refused(runs, capsys, "--weights", str(path))
    path.write_text("{")
    assert "cannot be read" in refused(runs, capsys, "--weights", str(path))
    assert "expected rollouts, equal" in refused(runs, capsys, "--weights", "some")


def calibration(place: Path, **changes) -> Path:
    counts = Counts(true_positive=18, false_positive=4, false_negative=2, true_negative=16)
    cells = {("imagination", policy, task): counts for policy in RATES for task in TASKS}
    return Assessment(**({"judge": "judge@1", "truth": "world", "cells": cells} | changes)).save(
        place
    )


def test_rates_are_corrected_for_the_judges_errors(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = calibration(runs.parent / "calibrated")
    board = rank(runs, "--calibration", str(path.parent))
    for row in board["policies"].values():
        expected = (row["imagined"]["rate"] - 0.2) / 0.7
        assert row["corrected"]["rate"] == pytest.approx(np.clip(expected, 0, 1), abs=0.05)
        assert row["corrected"]["low"] < row["corrected"]["high"]
        assert row["corrected"]["errors_of"] == "own"
    counts = Counts(true_positive=18, false_positive=4, false_negative=2, true_negative=16)
    cells = {("imagination", policy, task): counts for policy in "xyz" for task in TASKS}
    board = rank(runs, "--calibration", str(calibration(runs.parent / "of others", cells=cells)))
    assert {row["corrected"]["errors_of"] for row in board["policies"].values()} == {"others"}
    assert "other policies, task by task (others)" in " ".join(capsys.readouterr().out.split())
    other = calibration(runs.parent / "other", judge="judge@2")
    assert "is of judge 'judge@2'" in refused(runs, capsys, "--calibration", str(other))
    cells = {("imagination", "good", "push"): Counts(true_positive=5, true_negative=5)}
    less = calibration(runs.parent / "less", cells=cells)
    assert "not calibrated on the tasks ['pull']" in refused(
        runs, capsys, "--calibration", str(less)
    )
    made = {"format": "worldeval-run-1", "config": {"world_model": "abc"}}
    (runs / "run.json").write_text(json.dumps(made))
    model = calibration(runs.parent / "model", world_model="def")
    assert "world model def" in refused(runs, capsys, "--calibration", str(model))


def test_distrusted_rollouts(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stores = sorted((runs / "rollouts").iterdir())
    for store in stores:
        table = pd.read_parquet(store / "verdicts.parquet")[["key", "policy", "task", "start_id"]]
        trusted = np.arange(len(table)) > 0
        table.assign(distrust=0.5, trusted=trusted).to_parquet(store / "trust.parquet")
    board = rank(runs)
    assert board["trust"]["distrusted"] == 3
    assert board["policies"]["good"]["trusted"]["undecided"] == 1
    assert "left reality" in capsys.readouterr().out
    for store in stores:  # as without a calibration: nothing says whom to distrust
        table = pd.read_parquet(store / "trust.parquet")
        unknown = pd.array([pd.NA] * len(table), dtype="boolean")
        table.assign(distrust=np.nan, trusted=unknown).to_parquet(store / "trust.parquet")
    assert rank(runs)["trust"] is None
    table.assign(trusted=[None, *["False"] * (len(table) - 1)]).to_parquet(
        stores[0] / "trust.parquet"
    )
    assert "says of 81 of 120 rollouts" in refused(runs, capsys)
    for store in stores:  # "False" is not true
        table = pd.read_parquet(store / "verdicts.parquet")[["key", "policy", "task", "start_id"]]
        table.assign(distrust="0,5", trusted="False").to_parquet(store / "trust.parquet")
    assert rank(runs)["trust"]["distrusted"] == 120
    table.assign(distrust="0,5", trusted="perhaps").to_parquet(store / "trust.parquet")
    assert "has trusted 'perhaps', expected true or false" in refused(runs, capsys)
    (stores[0] / "trust.parquet").unlink()
    assert "2 of 3 stores" in refused(runs, capsys)


def test_pairs_may_be_required(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = runs / "rollouts" / "bad" / "verdicts.parquet"
    pd.read_parquet(place).iloc[1:].to_parquet(place, index=False)
    assert "compared by counts" in rank(runs)["notes"][0]
    assert "'bad' lacks 'push/0000'" in refused(runs, capsys, "--paired")


@pytest.mark.parametrize("option", ["--alpha=0", "--confidence=1.5", "--correction=tukey"])
def test_settings_that_cannot_be(runs: Path, option: str) -> None:
    assert cli.main(["rank", str(runs), "--out", str(runs.parent / "x"), option]) == 2


def test_twenty_policies_are_ranked_in_seconds(tmp_path: Path) -> None:
    """20 policies, 10 tasks, 50 rollouts each, paired, weighted and against the truth."""
    rates = {f"p{i:02d}": 0.05 + 0.045 * i for i in range(20)}
    tasks = [f"t{i}" for i in range(10)]
    imagined, true = (verdicts(rates, tasks, 50, seed) for seed in (0, 1))
    few = true[true["start_id"].str.endswith("7")]
    weights = {task: 1.0 + i for i, task in enumerate(tasks)}
    began = time.process_time()
    board = build_leaderboard(imagined, true, real=few, weights=weights)
    render(board)
    write_report(tmp_path / "report.html", board)
    # The command takes about 2 s beside this, to start and to read the tables.
    assert time.process_time() - began < 8


def test_another_seed_and_times_of_success_reach_the_stability(runs: Path, tmp_path: Path):
    """Imagined again, the best and the worst change places; the best solves its tasks late."""
    table = verdicts(RATES)
    late = table["policy"].map({"good": 0.9, "fair": 0.4, "bad": 0.2})
    table["solved_at"] = late.where(table["outcome"] == "success")
    again = table.assign(policy=table["policy"].map({"good": "bad", "fair": "fair", "bad": "good"}))
    table.to_csv(tmp_path / "seen.csv", index=False)
    again.drop(columns="solved_at").to_parquet(tmp_path / "again.parquet", index=False)
    out = tmp_path / "ranked"
    words = ["rank", tmp_path / "seen.csv", "--again", tmp_path / "again.parquet", "--out", out]
    assert cli.main([str(word) for word in words]) == 0
    found = json.loads((out / "leaderboard.json").read_text())["stability"]
    turned = {check["change"]: check["turned"] for check in found["checks"]}
    assert ["good", "bad"] in turned["another seed"]
    assert ["good", "bad"] in turned["0.5 of the horizon"]
    assert found["stable"] is False and "Not stable" in (out / "report.html").read_text()


def test_options_of_earlier_versions_work_or_say_what_took_their_place(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = runs.parent / "truth.parquet"
    verdicts(RATES, seed=1).assign(world="metaworld").to_parquet(truth)
    now = rank(runs, "--truth", str(truth))
    assert rank(runs, f"--against={truth}") == rank(runs, "--against", str(truth)) == now
    for gone in ("--stop-when-sure", "--stop_when_sure=best"):
        said = refused(runs, capsys, gone)
        assert "worldeval evaluate --until-sure" in said and "no --stop" in said
    assert cli.main(["rank", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--truth" in told and "--against" not in told
    assert as_today("trust", ["runs", "--against=t"]) == ["runs", "--truth=t"]
