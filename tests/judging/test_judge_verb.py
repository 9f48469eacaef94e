"""`worldeval judge`: several judges, each kept, and the panel that rankings read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from worldeval import cli
from worldeval.data.store.episodes import EpisodeStore
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.human import append_label
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.progress import ProgressJudge

SHAPE = {"views": ("front",), "image_size": (16, 16), "channels": (8, 8, 8), "hidden": 8}


@pytest.fixture
def store(make_store: Callable[..., EpisodeStore], tmp_path: Path) -> Path:
    torch.manual_seed(0)
    SuccessClassifier(JudgeNetwork(JudgeConfig(**SHAPE)), Calibration()).save(tmp_path / "judge")
    several = JudgeNetwork(JudgeConfig(**SHAPE, outputs=3))
    ProgressJudge(several, Calibration(), bins=(0, 1, 2)).save(tmp_path / "progress")
    labels = tmp_path / "labels.csv"
    for side in ("left", "right"):
        append_label(labels, key=f"recorded/{side}/{side}/1", rater="ann", outcome="success")
    append_label(labels, key="recorded/left/right/1", rater="ann", outcome="failure")
    return make_store("rollouts", range(1, 2)).root


def judge(store: Path, *words: str) -> pd.DataFrame:
    assert cli.main(["judge", str(store), "--threads", "1", *words]) == 0
    return pd.read_parquet(store / "verdicts.parquet").set_index("key")


def test_each_judge_is_kept_and_the_last_one_is_ranked(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = store.parent
    human = f"human:{root / 'labels.csv'}"
    table = judge(store, "--judge", human)
    assert table["outcome"].value_counts().to_dict() == {
        "success": 2, "failure": 1, "undecided": 1,
    }  # fmt: skip
    assert "1 failure, 2 success, 1 undecided" in capsys.readouterr().out
    table = judge(store, "--judge", human, "--judge", str(root / "progress"))
    assert table["judge"].str.startswith("progress-judge@").all()
    assert table["reason"].str.contains("of the way at frame").all()
    assert len(list((store / "verdicts").glob("*.parquet"))) == 2
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and "human@" in printed[1] and "verdicts.parquet" in printed[3]
    assert printed[0].startswith("1 of 4 rollouts of ") and "'recorded/right/left/1'" in printed[0]


def test_labels_that_name_no_rollout_are_told_before_anything_is_written(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = store.parent / "typed.csv"
    words = ["judge", str(store), "--threads", "1", "--judge", f"human:{labels}"]
    labels.write_text("key;rater;outcome\nRecorded/left/left/1;ann;yes\n")
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "name none of the 4 rollouts" in said and "mean 'recorded/left/left/1'?" in said
    labels.write_text("key;rater;outcome\n")
    assert cli.main(words) == 2 and "has no label" in capsys.readouterr().err
    assert not (store / "verdicts.parquet").exists() and not (store / "verdicts").exists()
    labels.write_text(
        "key,task,rater,success\nrecorded/left/left/1,left,ann,TRUE\nelsewhere,,ann,FALSE\n"
    )
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "1 of 2 labelled rollouts are not in" in told and "'elsewhere'" in told
    assert "3 of 4 rollouts" in told and "1 success, 3 undecided" in told
    labels.write_text("key,task,rater,success\nrecorded/left/left/1,right,ann,1\n")
    assert cli.main(words) == 2
    assert "label on 'recorded/left/left/1' contradicts itself" in capsys.readouterr().err


def test_a_panel_of_three(store: Path) -> None:
    root = store.parent
    uris = [f"human:{root / 'labels.csv'}", str(root / "judge"), str(root / "progress")]
    words = [word for uri in uris for word in ("--judge", uri)]
    panel = judge(store, *words, "--panel", "majority")
    assert panel["judge"].str.startswith("majority(human@").all()
    members = [
        pd.read_parquet(path).set_index("key")["outcome"]
        for path in sorted((store / "verdicts").glob("*.parquet"))
        if not path.name.startswith("majority")
    ]
    assert len(members) == 3
    votes = pd.concat(members, axis=1)
    yes, no = (votes == "success").sum(axis=1), (votes == "failure").sum(axis=1)
    for key, row in panel.iterrows():
        expected = "success" if yes[key] > no[key] else "failure" if no[key] > yes[key] else None
        assert row["outcome"] == (expected or "undecided")
        assert row["reason"].count(" says ") >= 3
    assert panel["dollars"].isna().all()  # what the rater was paid is not known

    # Kept verdicts are used: without the store's frames the same panel still answers.
    for path in (store / "data").rglob("*.parquet"):
        path.unlink()
    again = judge(store, *words, "--panel", "majority")
    pd.testing.assert_frame_equal(again, panel)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--panel", "majority"], "expected two judges or more"),
        (["--judge", "labels.csv:human"], "expected the folder of a checkpoint, human:LABELS.csv"),
        (["--judge", "human:none.csv"], "there is no table at none.csv"),
        (["--panel", "median", "--judge", "x"], ""),
    ],
)
def test_what_cannot_judge_is_said_in_one_line(
    words: list[str],
    message: str,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(store.parent))
    assert cli.main(["judge", str(store), *words]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (store / "verdicts.parquet").exists()
