"""The verb as a whole on the shipped world: killed and continued, made again, with bad input."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import worldeval
from tests.test_kill import strike
from worldeval import EpisodeStore, shipped
from worldeval.cli import main
from worldeval.data import digests, origin
from worldeval.errors import DataError, MismatchError, StoreError
from worldeval.judging.loading import load_judge
from worldeval.judging.tables import judge_store
from worldeval.synthesis.again import make_again
from worldeval.synthesis.asking import MeaningJudge
from worldeval.synthesis.synthesize import Synthesis
from worldeval.synthesis.variety import Variety

pytestmark = pytest.mark.weights

POLICY = str(shipped.path(shipped.POLICIES) / "full")
OPTIONS = [
    "--policy", POLICY, "--task", "drawer-open", "--task", "drawer-close", "--per-task", "1",
    "--chunks", "1", "--variations", "3", "--batch", "4", "--threads", "1", "--moved", "0.5",
    "--select", "all",
]  # fmt: skip

LONGER = ["--variations", "10"]


def words(out: Path, *more: str) -> list[str]:
    return ["synthesize", *OPTIONS, "--out", str(out), *more]


def assert_same_dataset(one: Path, other: Path) -> None:
    ours, theirs = (EpisodeStore.open(folder / "dataset") for folder in (one, other))
    assert [e.key for e in ours] == [e.key for e in theirs]
    for episode, same in zip(ours, theirs, strict=True):
        for fact in ("exactly", "recipe", "probability"):
            assert episode.extra[fact] == same.extra[fact]
        assert episode.instruction == same.instruction and episode.success == same.success


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthesis") / "whole"
    assert main(words(out)) == 0
    return out


def test_the_dataset_is_marked_and_says_how_it_was_made(made: Path) -> None:
    store = EpisodeStore.open(made / "dataset")
    assert store.verify() == []
    assert origin.marked(store) and not origin.marked(EpisodeStore.open(made / "imagined"))
    assert origin.imagined_episodes(EpisodeStore.open(made / "imagined")) == 6
    table = store.metadata()
    assert len(table) == 6 and set(table["kind"]) == {"synthetic"}
    assert set(table["world"]) == {"imagination"} and table["success"].notna().all()
    assert {"judge", "selected_by", "recipe", "made_by", "exactly", "words"} <= set(table.columns)
    assert {"moved", "noise", "probability"} <= set(table.columns)
    funnel = json.loads((made / "funnel.json").read_text())
    assert funnel["kept"] == 6 and funnel["tasks"]["all"]["imagined"] == 6
    page = (made / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 2 and "drawer-close: kept" in page


def test_films_are_those_that_were_judged(made: Path) -> None:
    imagined, dataset = (EpisodeStore.open(made / n) for n in ("imagined", "dataset"))
    for episode in dataset:
        np.testing.assert_array_equal(episode.frames, imagined.by_key(episode.key).frames)


def test_an_episode_is_made_again_bit_for_bit_from_itself(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EpisodeStore.open(made / "dataset")
    key = next(e.key for e in store if e.extra["moved"])
    again = make_again(store, key)
    assert again.same and again.episode.extra["exactly"] == store.by_key(key).extra["exactly"]
    np.testing.assert_array_equal(again.episode.actions, store.by_key(key).actions)
    assert main(["synthesize", "--again", key, "--out", str(made)]) == 0
    assert "every bit of it is the same" in capsys.readouterr().out


def test_killed_and_run_again_it_ends_with_the_same_dataset(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "killed"

    def in_the_first_batch() -> bool:  # some of its rollouts are written, the others are not
        return len(list((out / "imagined").glob("data/*/*.parquet"))) >= 2

    strike(words(out), signal.SIGKILL, in_the_first_batch)
    assert not (out / "dataset").exists()
    held = len(EpisodeStore.open(out / "imagined"))
    assert 0 < held < 6
    assert main(words(out)) == 0, capsys.readouterr().err
    assert_same_dataset(out, made)
    assert not list((out / "imagined").parent.glob(".again-*"))


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rollouts for judging to begin before the last ones are imagined."""
    out = tmp_path_factory.mktemp("longer") / "whole"
    assert main(words(out, *LONGER)) == 0
    return out


def test_verdicts_given_while_others_are_imagined_are_those_given_at_the_end(longer: Path) -> None:
    judge = MeaningJudge(load_judge(shipped.path(shipped.JUDGE)))
    at_the_end = judge_store(judge, EpisodeStore.open(longer / "imagined"))
    kept = pd.read_parquet(longer / "imagined" / "verdicts.parquet")
    assert kept.attrs == at_the_end.attrs
    pd.testing.assert_frame_equal(
        kept.drop(columns="seconds"), at_the_end.drop(columns="seconds"), check_exact=True
    )


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.heavy)]
)
def test_killed_while_it_judges_beside_it_ends_with_the_same_dataset(
    number: signal.Signals, longer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "killed"
    command = words(out, *LONGER)

    def judging() -> bool:
        return bool(list((out / "imagined" / "verdicts").glob("*.parquet")))

    said = strike(command, number, judging)
    if number == signal.SIGINT:
        assert "rollouts are kept" in said.splitlines()[-1] and "Traceback" not in said
    assert not (out / "imagined" / "verdicts.parquet").exists()
    assert 8 <= len(EpisodeStore.open(out / "imagined")) < 20
    assert main(command) == 0, capsys.readouterr().err
    assert_same_dataset(out, longer)
    tables = [pd.read_parquet(folder / "imagined/verdicts.parquet") for folder in (out, longer)]
    one, other = (table.drop(columns="seconds") for table in tables)
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_run_again_nothing_is_made_anew(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests.of_store(EpisodeStore.open(made / "dataset"))
    assert main(words(made)) == 0
    assert digests.of_store(EpisodeStore.open(made / "dataset")) == before
    assert "frames/s" not in capsys.readouterr().out  # nothing was imagined


def test_another_selection_is_made_from_the_pool_and_never_over_a_dataset(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = ["synthesize", "--pool", str(made), "--select", "quota?per_task=2"]
    assert main([*pool, "--out", str(tmp_path / "few")]) == 0
    assert len(EpisodeStore.open(tmp_path / "few" / "dataset")) == 4
    assert main([*pool, "--out", str(made)]) == 2
    assert "holds a dataset of 6 episodes of another selection" in capsys.readouterr().err


def test_rollouts_are_learned_under_other_words_and_say_what_was_told(
    made: Path, tmp_path: Path
) -> None:
    pool = ["synthesize", "--pool", str(made), "--select", "all", "--instructions", "drawn"]
    assert main([*pool, "--out", str(tmp_path / "drawn")]) == 0
    told, drawn = EpisodeStore.open(made / "dataset"), EpisodeStore.open(tmp_path / "drawn/dataset")
    assert drawn.extra["instructions"] == "drawn" and "instructions" not in told.extra
    was = told.metadata().set_index("key")["instruction"]
    now = drawn.metadata().set_index("key")
    assert now["told"].to_dict() == was.to_dict()
    assert (now["instruction"] != now["told"]).sum() >= 3
    assert all("drawer" in w or "handle" in w for w in now["instruction"])


def test_nothing_survives_and_nothing_looks_like_a_dataset(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none"
    rule = "success?threshold=1"
    assert main(["synthesize", "--pool", str(made), "--select", rule, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "nothing survived the selection: 6 imagined, 6 judged, 0 judged a success" in said
    assert "no dataset was written" in said and "Traceback" not in said
    names = ["funnel.json", "report.html", "selection.parquet"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert Synthesis.open(out).pool == made / "imagined"
    assert json.loads((out / "funnel.json").read_text())["kept"] == 0


def test_a_full_disk_leaves_no_half_dataset(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, copied = shutil.copyfile, []

    def full(source: Path, target: Path) -> Path:
        copied.append(target)
        if len(copied) > 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DataError, match="No space left on device.*nothing is imagined again"):
        worldeval.synthesize(pool=made, select="all", out=tmp_path)
    assert not (tmp_path / "dataset").exists() and not (tmp_path / ".dataset.tmp").exists()
    monkeypatch.undo()
    run = worldeval.synthesize(pool=made, select="all", out=tmp_path)
    assert isinstance(run, Synthesis) and len(run.store) == 6
    assert "drawer-open" in repr(run) and len(run.imagined.verdicts) == 6


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--select", "sucess"], "there is no rule 'sucess'"),
        (["--select", "success,trust"], "give each rule with a --select of its own"),
        (
            ["--policy", "random"],
            f"--policy was given {POLICY!r} and 'random', but `worldeval synt",
        ),
        (["--world", "toy"], "synthesis is done in imagination"),
        (["--select", "success?threshold=2"], "threshold is 2, expected a probability"),
        (["--select", "progress"], "give one with --progress"),
        (["--select", "labels"], "give a table with --labels"),
        (["--select", "labels", "--labels", "nowhere.csv"], "nowhere.csv"),
        (["--select", "advantage"], "tried once; give --samples 4"),
        (["--near-failure", "0.5"], "give one with --progress"),
        (["--moved", "2"], "moved is 2.0, expected a share"),
        (["--judge", "nowhere"], "no checkpoint at nowhere"),
        (["--wording", "gpt"], "wording is 'gpt', expected templates or http"),
        (["--wording", "http://localhost:1/v1"], "names no model"),
        (["--select", "trust"], "does not help families of policies that nobody has seen; select"),
        (["--task", "juggle"], "has no task 'juggle'"),
    ],
)
def test_bad_input_is_a_sentence_before_anything_is_imagined(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["synthesize", "--policy", POLICY, "--out", str(out), *more]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not (out / "dataset").exists() and not list(out.rglob("*.mp4"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--policy", POLICY], "policy cannot be chosen for a pool, whose rollouts are imagined"),
        (["--variations", "9", "--seed", "1"], "variations, seed cannot be chosen for a pool"),
        (["--task", "reach", "--per-task", "1"], "per_task, task cannot be chosen for a pool"),
    ],
)
def test_what_was_imagined_is_not_chosen_again(
    more: list[str], said: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synthesize", "--pool", str(made), "--out", str(tmp_path / "out"), *more]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_no_policy_and_no_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synthesize", "--out", str(tmp_path)]) == 2
    assert "no policy was given" in capsys.readouterr().err


def test_a_task_that_the_judge_does_not_know_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = json.loads(shipped.path(shipped.SUITE).read_text())
    suite["starts"] = [{**suite["starts"][0], "task": "juggle"}]
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    given = ["--suite", str(tmp_path / "suite.json"), "--policy", POLICY]
    assert main(["synthesize", *given, "--out", str(tmp_path / "out")]) == 2
    assert "does not know the task 'juggle': it was validated on" in capsys.readouterr().err


def test_start_states_of_another_robot_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EpisodeStore.create(
        tmp_path / "other", views=("left",), image_size=(16, 16), pose_names=("x",),
        action_names=("dx",), steps_per_frame=1, fps=5, robot_type="another",
    ).close()  # fmt: skip
    given = ["--starts", str(tmp_path / "other"), "--policy", POLICY]
    suite = ["--suite", str(shipped.path(shipped.SUITE))]
    assert main(["synthesize", *given, *suite, "--out", str(tmp_path / "out")]) == 2
    assert "was recorded with robot 'another'" in capsys.readouterr().err


def test_rollouts_that_do_not_say_how_they_were_made_are_no_pool() -> None:
    with pytest.raises(DataError, match="do not say how they were made"):
        worldeval.synthesize(pool=shipped.path(shipped.TRUTH_CLIPS), out="nowhere")
    with pytest.raises(StoreError, match="there is no episode store at missing"):
        worldeval.synthesize(pool="missing", out="nowhere")


def test_other_settings_do_not_go_on_in_the_same_folder(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(made, "--noise", "0.3")) == 2
    assert "was begun with variety.noise = 0.1, now it is 0.3" in capsys.readouterr().err


def test_a_changed_world_is_told_instead_of_imagined(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made / "dataset", copy)
    store = EpisodeStore.open(copy)
    key = min(store.keys)
    making = json.loads(store.by_key(key).extra["made_by"])
    making["content"]["policy"] = {"what it names": "000000000000"}
    row = store._rows[store.index_of(key)]
    extra = json.loads(row["worldeval.extra"])
    row["worldeval.extra"] = json.dumps({**extra, "made_by": json.dumps(making)})
    with pytest.raises(MismatchError, match="the policy has changed since: it was"):
        make_again(store, key)


def test_recorded_episodes_are_not_mixed_into_synthetic_ones(made: Path) -> None:
    store = EpisodeStore.open(made / "dataset")
    with pytest.raises(MismatchError, match="holds synthetic episodes, others are not mixed"):
        EpisodeStore.open_or_create(made / "dataset", **vars(store.layout), extra={"kind": "x"})


def test_variety_from_python_is_checked() -> None:
    assert Variety(near_failure=0.5, variations=4).near_failures == 2
