"""Labels of people: blinded, the least sure first, taken back, nothing lost, fed to rankings."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pandas as pd
import pytest

import worldeval as we
from tests.apps.conftest import judge, write_rollouts
from worldeval import cli
from worldeval.errors import ConfigError, DataError
from worldeval.evaluation.labelling import Labelling
from worldeval.judging.human import append_label, read_labels


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_rollouts(tmp_path / "run", starts=3)
    judge(tmp_path / "run", {"good": "success", "bad": "undecided"})
    return tmp_path / "run"


def test_the_queue_is_blinded_shuffled_and_asks_first_what_nobody_knows(run: Path) -> None:
    labelling = Labelling(run)
    queue = labelling.queue("ann")
    keys = [labelling.where(item.blind)[1] for item in queue]
    assert [key.partition("/")[0] for key in keys] == ["bad"] * 3 + ["good"] * 3
    assert not any("good" in repr(item) or "bad" in repr(item) for item in queue)
    orders = {tuple(i.blind for i in Labelling(run, seed=s).queue("ann")[:3]) for s in range(8)}
    assert len(orders) > 2, "the seed shuffles"
    assert [i.blind for i in Labelling(run).queue("bob")] == [i.blind for i in queue]


def test_a_label_is_in_the_folder_at_once_and_can_be_taken_back(run: Path) -> None:
    labelling = Labelling(run)
    first, second, *_ = labelling.queue("ann")
    labelling.label(first.blind, "success", rater="ann", comment='odd,\n"really"')
    labelling.label(
        second.blind, "failure", rater="ann", credit=0.5, artefact=True, comment="<script>"
    )
    said = Labelling(run).said_by("ann")
    assert said[first.blind].reason == 'odd, "really"' and said[first.blind].credit is None
    assert said[second.blind].credit == 0.5 and said[second.blind].artefact
    assert len(labelling.queue("ann")) == 4 and len(labelling.queue("bob")) == 6
    labelling.label(first.blind, "failure", rater="ann")
    assert labelling.undo("ann") == first.blind
    assert labelling.said_by("ann")[first.blind].outcome == "success", "the correction went"
    assert labelling.undo("ann") == second.blind and labelling.undo("ann") == first.blind
    assert labelling.undo("ann") is None and labelling.said_by("ann") == {}
    assert len(labelling.path.read_text().splitlines()) == 1 + 6, "nothing was rewritten"


def test_files_of_earlier_versions_grow_columns_when_needed(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    append_label(path, key="k", rater="ann", outcome="success", reason="a, b")
    assert path.read_text().startswith("key,rater,outcome,reason,time\n")
    append_label(path, key="k", rater="bob", outcome="undecided", artefact=True)
    append_label(path, key="k", rater="eve", outcome="failure")
    ann, bob, eve = read_labels(path)
    assert ann.reason == "a, b" and not ann.artefact and bob.artefact and not eve.artefact


@pytest.mark.parametrize(
    ("line", "message"),
    [("k,a,success,,,1.5,", "credit '1.5'"), ("k,a,success,,,,maybe", "artefact 'maybe'")],
)
def test_a_label_that_says_too_much_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"key,rater,outcome,reason,time,credit,artefact\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_labels(path)


def test_what_is_no_label_is_refused(run: Path) -> None:
    labelling = Labelling(run)
    blind = labelling.items[0].blind
    for wrong, message in (
        ({"blind": "../../etc/passwd"}, "no rollout"),
        ({"outcome": "fine"}, "outcome 'fine'"),
        ({"rater": " "}, "no rater"),
        ({"credit": 2.0}, "credit 2.0"),
        ({"comment": "x" * 2000}, "comment has 2000 characters, expected 1000 at most"),
        ({"rater": "x" * 1001}, "rater's name has 1001 characters, expected 1000 at most"),
    ):
        given = {"blind": blind, "outcome": "success", "rater": "ann", **wrong}
        with pytest.raises(ConfigError, match=message):
            labelling.label(given.pop("blind"), given.pop("outcome"), **given)
    assert not labelling.path.exists()


def say(run: Path, rater: str) -> None:
    labelling = Labelling(run)
    for item in labelling.queue(rater):
        labelling.label(item.blind, "success", rater=rater)
        labelling.label(item.blind, "failure", rater=rater, credit=0.1)
        labelling.undo(rater)


def test_several_at_once_lose_nothing(run: Path) -> None:
    context = multiprocessing.get_context("fork")
    raters = [context.Process(target=say, args=(run, name)) for name in ("ann", "bob", "eve")]
    for one in raters:
        one.start()
    for one in raters:
        one.join()
    labelling = Labelling(run)
    for name in ("ann", "bob", "eve"):
        said = labelling.said_by(name)
        assert len(said) == 6 and {label.outcome for label in said.values()} == {"success"}
    assert len(labelling.path.read_text().splitlines()) == 1 + 3 * 6 * 3


def test_two_raters_are_compared(run: Path) -> None:
    labelling = Labelling(run)
    assert labelling.agreement() is None
    words = {"ann": "ssfffs", "bob": "ssffss"}
    for rater, said in words.items():
        for item, word in zip(labelling.items, said, strict=True):
            outcome = {"s": "success", "f": "failure"}[word]
            labelling.label(item.blind, outcome, rater=rater)
    pair = labelling.agreement().pairs[0]
    assert pair.same == pytest.approx(5 / 6) and pair.kappa.value == pytest.approx(2 / 3)


def test_labels_feed_rankings_and_calibrations(run: Path, capsys, monkeypatch) -> None:
    labelling = Labelling(run)
    for item in labelling.items:
        good = labelling.where(item.blind)[1].startswith("good")
        labelling.label(item.blind, "success" if good else "failure", rater="ann")
    out = run.parent / "calibration"
    monkeypatch.setattr(
        "sys.argv",
        ["worldeval", "calibrate", str(run), "--truth", str(labelling.path), "--out", str(out)],
    )
    cli.main()
    assert "stand-in@1 against labels.csv: 6 rollouts" in capsys.readouterr().out
    assert list(out.glob("*.json"))
    evaluation = we.Evaluation.open(run).judge(f"human:{labelling.path}").rank()
    verdicts = evaluation.verdicts
    assert set(zip(verdicts["policy"], verdicts["outcome"], strict=True)) == {
        ("good", "success"),
        ("bad", "failure"),
    }
    board = json.loads((run / "leaderboard.json").read_text())
    assert [row["name"] for row in board["policies"]] == ["good", "bad"]
    assert isinstance(verdicts, pd.DataFrame)
