import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval.data.atomic import alone
from worldeval.errors import ConfigError, DataError, StoreError
from worldeval.judging import human
from worldeval.judging.human import HumanJudge, append_label, blind_id, read_labels
from worldeval.types import Episode, Outcome


def episode_of(key: str, **extra: str) -> Episode:
    return Episode(
        key=key, task="open", instruction="open it", views=("a",),
        frames=np.zeros((2, 1, 8, 8, 3), np.uint8), poses=np.zeros((2, 4), np.float32),
        actions=np.zeros((1, 3, 4), np.float32), extra=dict(extra),
    )  # fmt: skip


def outcome(judge: HumanJudge, episode: Episode) -> tuple[str, float | None]:
    (verdict,) = judge.judge([episode])
    assert verdict.key == episode.key and verdict.judge == judge.name
    return verdict.outcome.value, verdict.probability


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_majority_of_raters_decides(tmp_path: Path) -> None:
    labels = written(tmp_path / "labels.csv", "\ufeffkey,rater,outcome,reason\n"
        "a,ann,success,\na,bob,success,opened\na,cem,failure,\n"
        "tie,ann,success,\ntie,bob,failure,\n"
        "shy,ann,undecided,\n"
        "lone,ann,undecided,\nlone,bob,failure,\n")  # fmt: skip
    judge = HumanJudge.read(labels)
    assert outcome(judge, episode_of("a")) == ("success", 2 / 3)
    assert outcome(judge, episode_of("tie")) == ("undecided", 0.5)
    assert outcome(judge, episode_of("shy")) == ("undecided", None)
    assert outcome(judge, episode_of("lone")) == ("failure", 0.0)
    assert outcome(judge, episode_of("other")) == ("undecided", None)
    said = judge.judge([episode_of(key) for key in ("a", "other")])
    assert said[0].reason == "ann says success; bob says success (opened); cem says failure"
    assert said[1].reason == "nobody labelled it" and said[1].cost.dollars is None


def test_rollouts_are_named_by_key_by_cell_or_blindly(tmp_path: Path) -> None:
    episode = episode_of("able/open/7", policy="able", start_id="open/7")
    by_cell = written(
        tmp_path / "cell.csv", "policy,task,start_id,rater,outcome\nable,open,open/7,ann,success\n"
    )
    assert outcome(HumanJudge.read(by_cell), episode) == ("success", 1.0)
    assert outcome(HumanJudge.read(by_cell), episode_of("x", policy="able"))[0] == "undecided"
    blind = blind_id(episode.key)
    assert len(blind) == 16 and "able" not in blind and blind != blind_id("able/open/8")
    by_blind = written(tmp_path / "blind.csv", f"key,rater,outcome\n{blind},ann,failure\n")
    assert outcome(HumanJudge.read(by_blind), episode) == ("failure", 0.0)


def test_a_correction_is_appended_and_the_last_label_counts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "labels.csv"
    for said in ("success", "failure"):
        append_label(path, key="k", rater="ann", outcome=said, reason='slipped, "twice"\nthen')
    append_label(path, key="l", rater="bob", outcome=Outcome.UNDECIDED)
    labels = read_labels(path)
    assert [label.outcome.value for label in labels] == ["success", "failure", "undecided"]
    assert labels[0].reason == 'slipped, "twice" then'  # one label, one line
    assert len(path.read_text().splitlines()) == 4
    first = HumanJudge.read(path)
    assert outcome(first, episode_of("k")) == ("failure", 0.0)
    append_label(path, key="k", rater="cem", outcome="failure")
    assert HumanJudge.read(path).name != first.name  # so its kept verdicts are not used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected a line with the names"),
        ("key,rater\nk,ann\n", r"lacks the columns \['outcome'\]"),
        ("policy,task,rater,outcome\n", r"lacks the columns \['start_id'\]"),
        ("key,rater,outcome,reasn\n", "column 'reasn', which is unknown; did you mean 'reason'"),
        ("key,key,rater,outcome\n", "has the column 'key' twice"),
        (
            "key,rater,outcome\nk,ann,sucess\n",
            "has outcome 'sucess', expected success or",
        ),
        (
            "key,rater,outcome\nk,ann,success\nk,bob,error\n",
            r"line 3 .* the outcome 'error'",
        ),
        ("key,rater,outcome\nk,,success\n", r"line 2 \('k'\) has no rater"),
        ("key,rater,outcome\n ,ann,success\n", r"line 2 \(''\) has no key"),
        ("key,rater,outcome\nk,ann\n", "line 2 has 2 cells, expected 3"),
        ('key,rater,outcome\n"k,ann,success\n', "is not CSV"),
    ],
)
def test_labels_are_read_strictly(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        HumanJudge.read(written(tmp_path / "labels.csv", text))


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no table at"):
        HumanJudge.read(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes("key,rater,outcome\nk,Jürgen,success\n".encode("latin-1"))
    with pytest.raises(DataError, match="not text in UTF-8"):
        HumanJudge.read(tmp_path / "latin.csv")
    by_hand = written(tmp_path / "hand.csv", "policy,task,start_id,rater,outcome\n")
    with pytest.raises(DataError, match="write labels to another file"):
        append_label(by_hand, key="k", rater="ann", outcome="success")
    cut = written(tmp_path / "cut.csv", "key,rater,outcome,reason,time\nk,ann,succ")
    with pytest.raises(DataError, match="ends within a line"):
        append_label(cut, key="k", rater="ann", outcome="success")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"outcome": "yes"}, "the label has the outcome 'yes'"),
        ({"outcome": "error"}, "the outcome 'error'"),
        ({"key": " "}, "has no key"),
        ({"rater": ""}, "has no rater"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    cells: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    with pytest.raises(ConfigError, match=message):
        append_label(path, **{"key": "k", "rater": "ann", "outcome": "success", **cells})
    assert not path.exists()


def test_a_full_disk_leaves_the_labels_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.csv"
    append_label(path, key="k", rater="ann", outcome="success")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        append_label(path, key="l", rater="ann", outcome="success")
    assert path.read_bytes() == before and not list(tmp_path.glob("*.tmp"))
    monkeypatch.undo()
    append_label(path, key="l", rater="ann", outcome="success")  # the lock was let go
    assert len(read_labels(path)) == 2


def _write_some(path: Path, rater: str, count: int) -> None:
    for number in range(count):
        append_label(path, key=f"k{number}", rater=rater, outcome="success")


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    context = multiprocessing.get_context("fork")
    raters = [
        context.Process(target=_write_some, args=(path, f"rater{number}", 10))
        for number in range(3)
    ]
    for rater in raters:
        rater.start()
    for rater in raters:
        rater.join()
    labels = read_labels(path)
    assert len({(label.rollout, label.rater) for label in labels}) == 30 == len(labels)


def test_who_waits_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(human, "WAIT_S", 0.02)
    with (
        alone(tmp_path / "labels.csv"),
        pytest.raises(StoreError, match="being written by another"),
    ):
        append_label(tmp_path / "labels.csv", key="k", rater="ann", outcome="success")
