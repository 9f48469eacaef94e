"""The circle, with untrained models of a few kilobytes: what is written, kept, and refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from worldeval import cli, shipped
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import read_mp4
from worldeval.evaluation import demo
from worldeval.evaluation.evaluation import Evaluation
from worldeval.evaluation.opening import fingerprint
from worldeval.reports import videos
from worldeval.rollout.recording import open_rollouts, rollout_key
from worldeval.rollout.suite import Suite
from worldeval.types import Episode, StartState
from worldeval.worlds.sawyer import ROBOT, start_states

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fuzz_valid import untrained_world

TASKS = ("drawer-open", "drawer-close")
MY_POLICY = """
import numpy as np
from worldeval.types import PolicySpec

class Still:
    def __init__(self, robot, push=0.0):
        self.push = push
        self.spec = PolicySpec(
            name="still", cameras=robot.views, image_size=None, state_keys=(),
            action_space=robot.action_space, action_dim=robot.action_dim,
            chunk=robot.chunk_steps, execute=robot.chunk_steps, rate_hz=robot.control_hz)

    def reset(self, rollout_ids, instructions, seeds):
        pass

    def act(self, observations):
        shape = (len(observations), self.spec.chunk, self.spec.action_dim)
        return np.full(shape, self.push, np.float32)

    def close(self):
        pass
"""


def episode(key: str, start: StartState, frames: int) -> Episode:
    rng = np.random.default_rng(start.seed % 1000)
    shape = (frames, len(ROBOT.views), *ROBOT.image_size, 3)
    return Episode(
        key=key,
        task=start.task,
        instruction=start.instruction,
        views=ROBOT.views,
        frames=rng.integers(0, 255, shape, np.uint8),
        poses=np.tile(np.array([0, 0.6, 0.2, -1], np.float32), (frames, 1)),
        actions=np.zeros((frames - 1, ROBOT.steps_per_frame, ROBOT.action_dim), np.float32),
        extra={"start_id": start.start_id, "seed": start.seed, "split": start.split},
    )


def make_shipped(root: Path, policies: tuple[str, str] = ("able", "poor")) -> None:
    """The embedded world in small, with two policies, of which the first always succeeds."""
    untrained_world(root, policies)
    starts = [start for task in TASKS for start in start_states("evaluation", task, 3)]
    Suite(name="tiny", robot=ROBOT.name, chunks=2, starts=tuple(starts)).save(root / shipped.SUITE)
    with open_rollouts(root / shipped.STARTS, ROBOT, images="lossless") as store:
        for start in starts:
            store.append(episode(start.start_id, start, 2))
    with open_rollouts(root / shipped.TRUTH_CLIPS, ROBOT) as store:
        for start in starts[:1]:
            store.append(episode(rollout_key(policies[0], start.start_id), start, 5))
    rows = [
        {
            "key": rollout_key(name, start.start_id),
            "policy": name,
            "task": start.task,
            "start_id": start.start_id,
            "world": "metaworld",
            "judge": "world",
            "outcome": "success" if name == policies[0] else "failure",
            "probability": np.nan,
        }
        for name in policies
        for start in starts
    ]
    pd.DataFrame(rows).to_parquet(root / shipped.TRUTH, index=False)


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shipped")
    make_shipped(root)
    return root


@pytest.fixture
def world(world_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(world_folder))
    return world_folder


def leaderboard(out: Path) -> dict[str, dict]:
    board = json.loads((out / "leaderboard.json").read_text())
    return {row["name"]: row for row in board["policies"]}


def rollouts(out: Path) -> dict[str, set[str]]:
    stores = sorted((out / "rollouts").iterdir())
    return {store.name.partition("@")[0]: EpisodeStore.open(store).keys for store in stores}


def test_the_circle_closes_and_a_second_run_only_adds_what_is_new(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out), "--threads", "1"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "2 policies x 4 start states of 2 tasks = 8 rollouts" in said
    board = leaderboard(out)
    assert set(board) == {"able", "poor"}
    assert board["able"]["true"]["rate"] == 1.0
    assert board["poor"]["true"]["failures"] == 4
    assert "data:video/mp4" in (out / "report.html").read_text()
    beside = [path for path in (out / "videos").glob("*.mp4") if "imagined" not in path.name]
    assert beside
    assert json.loads((out / "run.json").read_text())["command"] == "demo"

    # The full suite, and a policy of the user's: what is there already is kept.
    before = {path: path.stat().st_mtime_ns for path in out.glob("rollouts/*/data/**/*.parquet")}
    mine = tmp_path / "mine.py"
    mine.write_text(MY_POLICY)
    words = ["demo", "--out", str(out), "--full", "--threads", "1"]
    words += ["--policy", f"python:{mine}:Still"]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {name: len(keys) for name, keys in rollouts(out).items()} == {
        "able": 6,
        "poor": 6,
        "still": 6,
    }
    board = leaderboard(out)
    assert board["still"]["true"] is None
    assert sum(board["still"]["imagined"][k] for k in ("successes", "failures", "undecided")) == 6

    # The user edits the policy: its rollouts are made anew, the earlier ones are not lost.
    mine.write_text(MY_POLICY.replace("push=0.0", "push=0.5"))
    assert cli.main(words) == 0, capsys.readouterr().err
    assert len(list((out / "earlier").iterdir())) == 1
    store = EpisodeStore.open(next((out / "rollouts").glob("still@*")))
    assert (store.trajectory(0).actions == 0.5).all()

    # What was judged can be ranked again without the demo.
    words = [
        "rank",
        str(out),
        "--against",
        str(world / shipped.TRUTH),
        "--out",
        str(tmp_path / "r"),
    ]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert leaderboard(tmp_path / "r") == leaderboard(out)

    # Opened as an evaluation it knows the truth that the demo compared with.
    rows = Evaluation.open(out).leaderboard().to_dict()["policies"]
    assert json.loads(json.dumps({row["name"]: row for row in rows})) == leaderboard(out)


def test_a_demo_is_an_evaluation_like_any_other(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    words = ["demo", "--out", str(out), "--threads", "1"]
    assert cli.main(words) == 0, capsys.readouterr().err
    made = {name: (out / name).read_bytes() for name in ("leaderboard.json", "report.html")}
    for name in made:
        (out / name).unlink()
    run = Evaluation.open(out).rank()
    assert {name: (out / name).read_bytes() for name in made} == made
    assert b"data:video/mp4" in made["report.html"]
    assert run.truth is not None and set(run.rollouts) == {"able", "poor"}

    # All start states, and again the few: of those alone the short demo tells, as before.
    assert cli.main([*words, "--full"]) == 0, capsys.readouterr().err
    assert (out / "leaderboard.json").read_bytes() != made["leaderboard.json"]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert (out / "leaderboard.json").read_bytes() == made["leaderboard.json"]
    assert {len(views) for views in Evaluation.open(out).rollouts.values()} == {6}
    some = Evaluation.open(out).only(run.rollouts["able"][0].start_id for _ in range(1))
    assert {len(views) for views in some.rollouts.values()} == {1} and len(some.verdicts) == 2


@pytest.mark.weights
def test_what_was_calibrated_on_another_world_is_told_and_not_used(
    world_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = shutil.copytree(world_folder, tmp_path / "shipped")
    for part in (shipped.TRUST, str(Path(shipped.CALIBRATION).parent)):
        shutil.copytree(Path(__file__).parents[2] / "checkpoints" / part, root / part)
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(root))
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out), "--threads", "1"]) == 0, capsys.readouterr().err
    notes = json.loads((out / "leaderboard.json").read_text())["notes"]
    assert any("not to trust cannot be told: trust was calibrated for" in note for note in notes)
    assert any("not corrected for the judge's errors: the calibration is of" in n for n in notes)
    assert all(row["corrected"] is None for row in leaderboard(out).values())


def test_two_policies_of_one_name_are_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["demo", "--out", str(tmp_path), "--policy", str(world / "policies" / "able")]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "two policies are called 'able'" in said
    assert "?name=another" in said


def test_a_missing_world_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(tmp_path / "nowhere"))
    assert cli.main(["demo", "--out", str(tmp_path / "demo")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"worldeval: {tmp_path / 'nowhere'}")
    assert said.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_a_truncated_shard_is_one_sentence(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(world, copy)
    shard = copy / shipped.WORLD_MODEL / "weights-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(copy))
    assert cli.main(["demo", "--out", str(tmp_path / "demo")]) == 2
    said = capsys.readouterr().err
    assert "truncated" in said
    assert str(shard) in said


def test_an_unwritable_folder_is_one_sentence(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "file" / "demo")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "file") in said
    assert said.count("\n") == 1


def test_rollout_judge_and_rank_are_the_same_circle_by_hand(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    words = ["rollout", "--policy", "random", "--policy", "zero", "--out", str(out)]
    words += ["--per-task", "1", "--sampler-steps", "2", "--threads", "1"]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert cli.main(words) == 0
    assert "2 from before" in capsys.readouterr().out
    chunk = json.loads(EpisodeStore.open(out).metadata()["chunks"][0])[0]
    assert chunk["nfe"] == 2
    assert not (out / "truth.parquet").exists(), "imagination does not know the truth"
    assert cli.main(["rank", str(out), "--out", str(tmp_path / "ranked")]) == 2
    assert "is not judged" in capsys.readouterr().err
    assert cli.main(["judge", str(out)]) == 0
    assert cli.main(["rank", str(out), "--out", str(tmp_path / "ranked")]) == 0
    assert set(leaderboard(tmp_path / "ranked")) == {"random", "zero"}


def test_a_folder_is_not_continued_with_other_settings(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rollout", "--policy", "zero", "--out", str(tmp_path), "--per-task", "1"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--sampler-steps", "3"]) == 2
    assert "sampler_steps" in capsys.readouterr().err


def test_replay_measures_every_variant(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = start_states("validation", "drawer-open", 2)
    with open_rollouts(tmp_path / "recorded", ROBOT) as store:
        for start in starts:
            store.append(episode(start.start_id, start, 9))
    words = ["replay", "--store", str(tmp_path / "recorded"), "--out", str(tmp_path / "replay")]
    assert cli.main([*words, "--chunks", "2", "--threads", "1"]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "replay" / "replay.json").read_text())
    variants = {row["variant"]: row["episodes"] for row in report["variants"]}
    assert variants == {"own": 2, "shuffled": 2, "zero": 2, "repeat-first": 2}


def test_videos_side_by_side_wait_for_the_longer_one() -> None:
    imagined = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(3, axis=3)
    true = np.full((5, 1, 1, 3), 9, np.uint8)
    both = videos.beside(imagined, true)
    assert both.shape == (5, 6, 1, 3)
    assert both[:, 0, 0, 0].tolist() == [0, 1, 2, 2, 2]
    assert (both[:, 5] == 9).all()


def test_store_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "store"
    with open_rollouts(root, ROBOT) as store:
        for start in start_states("evaluation", "reach", 3):
            store.append(episode(start.start_id, start, 5))
    frames = EpisodeStore.open(root).frames(1)
    assert cli.main(["store", "compact", str(root)]) == 0
    np.testing.assert_array_equal(EpisodeStore.open(root).frames(1), frames)
    assert cli.main(["store", "verify", str(root)]) == 0
    assert "3 episodes, nothing damaged" in capsys.readouterr().out
    video = next(root.rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:200])
    assert cli.main(["store", "verify", str(root)]) == 1
    assert video.name in capsys.readouterr().out


def test_read_mp4_of_a_demo_video_has_three_enlarged_views(tmp_path: Path) -> None:
    from worldeval.data.video import write_mp4

    frames = np.zeros((2, len(ROBOT.views), *ROBOT.image_size, 3), np.uint8)
    write_mp4(tmp_path / "a.mp4", videos.tiled(frames), ROBOT.frame_hz)
    height, width = ROBOT.image_size
    expected = (2, height * videos.ENLARGE, 3 * width * videos.ENLARGE, 3)
    assert read_mp4(tmp_path / "a.mp4").shape == expected


def test_weights_behind_an_argument_are_part_of_a_policy(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, push = tmp_path / "mine.py", tmp_path / "push.json"
    mine.write_text(MY_POLICY.replace("self.push = push", "self.push = float(np.loadtxt(push))"))
    push.write_text("0.25")
    words = ["demo", "--out", str(tmp_path / "demo"), "--threads", "1"]
    words += ["--policy", f"python:{mine}:Still?push={push}"]
    assert cli.main(words) == 0, capsys.readouterr().err
    push.write_text("0.5")
    assert cli.main(words) == 0, capsys.readouterr().err
    assert "'still' has changed" in capsys.readouterr().out
    store = EpisodeStore.open(next((tmp_path / "demo" / "rollouts").glob("still@*")))
    assert (store.trajectory(0).actions == 0.5).all()


def test_a_demo_of_the_version_before_goes_on_and_says_so(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policies = shipped.policies()
    uri = str(policies["able"])
    before = tmp_path / "rollouts" / f"able@{demo._version(str(fingerprint(uri)), '')}"
    before.mkdir(parents=True)
    folder = demo.rollouts_of(tmp_path, uri, "able")
    assert folder.is_dir() and not before.exists()
    assert "cannot be checked" in caplog.text
    caplog.clear()
    assert demo.rollouts_of(tmp_path, uri, "able") == folder and not caplog.records


def rollout(out: Path, *options: str) -> int:
    words = ["rollout", "--policy", "zero", "--per-task", "1", "--chunks", "1", "--threads", "1"]
    return cli.main([*words, "--out", str(out), *options])


def test_starts_and_world_models_of_the_same_names(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    starts = tmp_path / "starts"
    shutil.copytree(world / shipped.STARTS, starts)
    options = ("--starts", str(starts), "--suite", str(world / shipped.SUITE))
    assert rollout(tmp_path / "out", *options) == 0
    source = EpisodeStore.open(starts)
    source.compact()
    assert rollout(tmp_path / "out", *options) == 0  # the same pictures in other files
    episodes = list(EpisodeStore.open(starts))
    shutil.rmtree(starts)
    with open_rollouts(starts, ROBOT, images="lossless") as store:
        for one in episodes:
            one.frames[0, 0, 0, 0, 0] ^= 1  # one value of the first frame
            store.append(one)
    assert rollout(tmp_path / "out", *options) == 2
    assert "its start state has changed" in capsys.readouterr().err

    # Rollouts that say nothing of their first frame are used, and that is said.
    out = tmp_path / "old"
    assert rollout(out, *options) == 0
    episodes = list(EpisodeStore.open(out))
    for name in ("data", "meta", "videos"):
        shutil.rmtree(out / name)
    with open_rollouts(out, ROBOT) as store:
        for one in episodes:
            del one.extra["start_digest"]
            store.append(one)
    assert rollout(out, *options) == 0
    assert "no digest of their first frame" in caplog.text

    # The same weights, configured otherwise.
    shutil.copytree(world / shipped.WORLD_MODEL, tmp_path / "world-model")
    shutil.copytree(world / shipped.AUTOENCODER, tmp_path / "autoencoder")
    options = (*options, "--world-model", str(tmp_path / "world-model"))
    assert rollout(tmp_path / "third", *options) == 0
    config = tmp_path / "world-model" / "config.json"
    content = json.loads(config.read_text())
    content["config"]["sampler"]["steps"] = 2
    config.write_text(json.dumps(content))
    capsys.readouterr()
    assert rollout(tmp_path / "third", *options) == 2
    assert "begun with another world model" in capsys.readouterr().err


def test_recordings_that_are_replayed(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(world / shipped.STARTS, store)
    suite = ("--suite", str(world / shipped.SUITE), "--starts", str(store))
    words = ["rollout", "--policy", f"replay:{store}", "--per-task", "1", "--chunks", "1", *suite]
    words += ["--threads", "1", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert cli.main(words) == 0, capsys.readouterr().err
    episodes = list(EpisodeStore.open(store))
    shutil.rmtree(store)
    with open_rollouts(store, ROBOT, images="lossless") as made:
        for one in episodes:
            one.actions[:] = 0.5  # from the same first frames
            made.append(one)
    assert cli.main(words) == 2
    assert "begun with another policy replay:" in capsys.readouterr().err
