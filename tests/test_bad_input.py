"""What a user may get wrong, on the real command line: one sentence, exit code 2, nothing lost.

Each sentence names the thing, says what was expected, and what to do. What nobody expected fails
the test, because ``cli.main`` ends it with an exit code of its own.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.evaluation.test_demo import make_shipped
from worldeval import cli, shipped
from worldeval.data.store.episodes import EpisodeStore
from worldeval.rollout.suite import Suite
from worldeval.types import Episode
from worldeval.worlds import toy
from worldeval.worlds.sawyer import ROBOT

Refused = Callable[..., str]

LOOP = ["--loop.steps", "2", "--loop.batch", "2", "--loop.threads", "1"]
AUTOENCODER = ["--model.widths", "8", "8", "8", *LOOP]
WORLD_MODEL = ["--backbone.widths", "8", "16", "--backbone.blocks", "1", *LOOP]
WORLD_MODEL += ["--backbone.token-width", "16", "--backbone.heads", "2"]
POLICY = [*LOOP, "--channels", "8", "8", "8", "--hidden", "8"]
JUDGE = LOOP
POLICY_FILE = """
import numpy as np
from worldeval.types import PolicySpec

class Mine:
    def __init__(self, robot):
        self.spec = PolicySpec(
            name="mine", cameras=robot.views, image_size=None, state_keys=(),
            action_space=robot.action_space, action_dim=robot.action_dim,
            chunk=robot.chunk_steps, execute=robot.chunk_steps, rate_hz=robot.control_hz)

    def reset(self, rollout_ids, instructions, seeds):
        pass

    def act(self, observations):
        actions = np.zeros((len(observations), self.spec.chunk, self.spec.action_dim), np.float32)
        {fault}
        return actions

    def close(self):
        pass
"""


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shipped")
    make_shipped(root)
    return root


@pytest.fixture
def world(world_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a tiny shipped world, to be damaged."""
    copy = tmp_path / "checkpoints"
    shutil.copytree(world_folder, copy)
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(copy))
    return copy


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    def run(*words: str | Path) -> str:
        """The one sentence with which a command line was refused."""
        capsys.readouterr()
        assert cli.main([str(word) for word in words]) == 2
        said = capsys.readouterr().err
        # Progress bars end in a carriage return or stand on lines of their own.
        lines = [line for line in said.splitlines() if line.strip() and "%|" not in line]
        assert len(lines) == 1, said
        assert lines[0].startswith("worldeval: ")
        return lines[0].removeprefix("worldeval: ")

    return run


def write_store(root: Path, episodes: int = 2, **changes: Any) -> Path:
    """Episodes of the robot of the command line, but for ``changes`` of the layout."""
    layout: dict[str, Any] = {
        "views": ROBOT.views,
        "image_size": ROBOT.image_size,
        "pose_names": ROBOT.pose_names,
        "action_names": ROBOT.action_names,
        "steps_per_frame": ROBOT.steps_per_frame,
        "fps": ROBOT.frame_hz,
        "robot_type": ROBOT.name,
        "images": "lossless",
    }
    layout |= changes
    with EpisodeStore.create(root, **layout) as store:
        for number in range(episodes):
            rng = np.random.default_rng(number)
            poses = np.zeros((6, len(layout["pose_names"])), np.float32)
            shape = (5, layout["steps_per_frame"], len(layout["action_names"]))
            store.append(
                Episode(
                    key=f"e{number}",
                    task="reach",
                    instruction="touch the red ball",
                    views=layout["views"],
                    frames=rng.integers(
                        0, 256, (6, len(layout["views"]), *layout["image_size"], 3), np.uint8
                    ),
                    poses=poses,
                    actions=np.zeros(shape, np.float32),
                    success_at=np.arange(6) > 2 if number else np.zeros(6, bool),
                    success=number > 0,
                    extra={"start_id": f"e{number}", "seed": number, "split": "training"},
                )
            )
    return root


def rollout(*words: str | Path) -> list[str | Path]:
    return ["rollout", "--threads", "1", "--per-task", "1", *words]


def flip(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "wrong hash": (lambda f: flip(f / "weights-00000.safetensors"), "does not match its sha256"),
    "truncated": (lambda f: truncate(f / "weights-00000.safetensors"), "it is truncated"),
    "no shard": (lambda f: (f / "weights-00000.safetensors").unlink(), "is missing; fetch"),
    "no config": (lambda f: (f / "config.json").unlink(), "there is no config.json"),
    "half a config": (lambda f: truncate(f / "config.json"), "config.json cannot be read"),
    "no folder": (shutil.rmtree, ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["world-model", "autoencoder", "judge", "policies/able"])
def test_a_damaged_checkpoint(
    part: str, damage: str, world: Path, tmp_path: Path, refused: Refused
) -> None:
    spoil, expected = DAMAGES[damage]
    spoil(world / part)
    out = tmp_path / "out"
    if part == "judge":
        write_store(tmp_path / "rollouts")
        said = refused("judge", tmp_path / "rollouts", "--threads", "1")
        assert not (tmp_path / "rollouts" / "verdicts.parquet").exists()
    else:
        policy = world / part if "policies" in part else "zero"
        said = refused(*rollout("--policy", policy, "--out", out))
        assert not out.exists(), "it was refused before anything was begun"
    assert str(world / part) in said
    assert expected in said


def test_a_checkpoint_of_another_kind_or_version(
    world: Path, tmp_path: Path, refused: Refused
) -> None:
    words = rollout("--out", tmp_path / "out")
    said = refused(*words, "--policy", "zero", "--world-model", world / "judge")
    assert "holds a 'judge' checkpoint, expected 'world-model'" in said
    assert "expected 'policy-bc'" in refused(*words, "--policy", world / "judge")
    path = world / "world-model" / "config.json"
    header = json.loads(path.read_text())
    header["config"]["backbone"]["legs"] = 4
    path.write_text(json.dumps(header))
    said = refused(*words, "--policy", "zero")
    assert "world-model does not fit this version of worldeval" in said
    assert "legs" in said


def test_a_shipped_policy_that_lost_its_config_is_not_left_out(
    world: Path, tmp_path: Path, refused: Refused
) -> None:
    (world / "policies" / "poor" / "config.json").unlink()
    said = refused("demo", "--out", tmp_path / "out", "--threads", "1")
    assert f"{world / 'policies' / 'poor'} is no policy checkpoint" in said


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "views": (
        {"views": ("left", "right", "top")},
        "has views ('left', 'right', 'top'), robot 'metaworld-sawyer' has ('left', 'right', "
        "'wrist')",
    ),
    "rate": ({"fps": 5}, "has frames per second 5.0, robot 'metaworld-sawyer' has 10.0"),
    "pose size": (
        {"pose_names": ROBOT.pose_names[:3]},
        "has pose names ('hand_x_m', 'hand_y_m', 'hand_z_m'), robot",
    ),
    "units": (
        {"pose_names": ("hand_x_cm", "hand_y_cm", "hand_z_cm", "gripper")},
        "has pose names ('hand_x_cm', ",
    ),
    "image size": ({"image_size": (32, 32)}, "has image size (32, 32), robot"),
    "steps": ({"steps_per_frame": 2}, "has control steps per frame 2, robot"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_dataset_of_another_robot(
    change: str, world: Path, tmp_path: Path, refused: Refused
) -> None:
    changes, expected = CHANGES[change]
    store, good = write_store(tmp_path / "store", **changes), write_store(tmp_path / "good")
    out, model = tmp_path / "out", world / "autoencoder"
    learn = ["train", "world-model", "--autoencoder", model, "--loop.threads", "1"]
    lines: list[list[str | Path]] = [
        [*learn, "--store", store, "--out", out / "1"],
        [*learn, "--store", good, "--validation", store, "--out", out / "2"],
        ["train", "policy", "--store", store, "--out", out / "3", *POLICY],
        ["train", "judge", "--store", good, "--validation", store, "--out", out / "4"],
        ["replay", "--store", store, "--out", out / "5", "--threads", "1"],
        rollout("--policy", "zero", "--starts", store, "--out", out / "6"),
        rollout("--policy", f"replay:{store}", "--out", out / "7"),
    ]
    for words in lines:
        said = refused(*words)
        assert said.startswith(f"{store} {expected}"), words
        assert said.endswith("choose a store of this robot, or record one")


def test_a_store_for_the_autoencoder_of_another_size(tmp_path: Path, refused: Refused) -> None:
    store = write_store(tmp_path / "store", image_size=(32, 32))
    words = ["train", "autoencoder", "--store", store, "--out", tmp_path / "out", *AUTOENCODER]
    assert "frames are (32, 32), the autoencoder expects (64, 64); record" in refused(*words)


def test_a_damaged_store(world: Path, tmp_path: Path, refused: Refused) -> None:
    store = write_store(tmp_path / "store")
    broken = sorted(store.glob("data/*/*.parquet"))[1]
    truncate(broken)
    out = tmp_path / "out"
    said = refused("train", "policy", "--store", store, "--out", out, *POLICY)
    assert str(broken) in said
    assert f"`worldeval store verify {store}`" in said
    said = refused("replay", "--store", tmp_path / "nowhere", "--out", out, "--threads", "1")
    assert "there is no episode store at" in said
    said = refused("replay", "--store", write_store(tmp_path / "empty", 0), "--out", f"{out}2")
    assert "the store has no episodes; give another" in said


FAULTS = {
    "shape": ("actions = actions[:, :5]", "shape (1, 5, 4), expected (1, 12, 4)"),
    "nan": ("actions[0, 3, 1] = np.nan", "answered nan for 'dy' (row 0, step 3), expected finite"),
    "range": ("actions[:] = 1.7", "answered 1.7 for 'dx' (row 0, step 0), expected a number in"),
    "nothing": ("actions = None", "answered with shape (), expected"),
    "raises": ("raise RuntimeError('boom')", "raised RuntimeError: boom"),
    "exits": ("raise SystemExit(3)", "raised SystemExit: 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_policy_that_answers_with_something_unusable(
    fault: str, world: Path, tmp_path: Path, refused: Refused
) -> None:
    code, expected = FAULTS[fault]
    file, out = tmp_path / "mine.py", tmp_path / "out"
    file.write_text(POLICY_FILE.format(fault="pass"))
    words = rollout("--policy", f"python:{file}:Mine", "--out", out)
    assert cli.main([str(word) for word in words[:-1]] + [str(tmp_path / "good")]) == 0
    file.write_text(POLICY_FILE.format(fault=code))
    said = refused(*words)
    assert said.startswith("policy 'mine' ")
    assert expected in said
    assert len(EpisodeStore.open(out)) == 0, "a mended policy would skip what was kept"
    assert len(EpisodeStore.open(tmp_path / "good")) == 2


def test_a_policy_file_that_cannot_be_used(world: Path, tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine\n")
    words = rollout("--out", tmp_path / "out", "--policy")
    assert "cannot be imported (SyntaxError" in refused(*words, f"python:{file}:Mine")
    assert "there is no file" in refused(*words, f"python:{tmp_path}/his.py:Mine")
    file.write_text(POLICY_FILE.format(fault="pass").replace("robot.control_hz", "10.0"))
    said = refused(*words, f"python:{file}:Mine")
    assert "has rate_hz 10.0" in said and "robot 'metaworld-sawyer' takes rate_hz 30" in said


def test_a_start_state_that_does_not_exist(world: Path, tmp_path: Path, refused: Refused) -> None:
    path, out = world / shipped.SUITE, tmp_path / "out"
    suite = json.loads(path.read_text())
    # The last but one: what was rolled out before it stays.
    suite["starts"][4]["start_id"] = "drawer-close/evaluation/9999"
    path.write_text(json.dumps(suite))
    words = ["rollout", "--policy", "zero", "--out", out, "--threads", "1", "--batch", "2"]
    said = refused(*words)
    assert said.startswith("start state 'drawer-close/evaluation/9999' is not in ")
    assert str(world / shipped.STARTS) in said
    assert said.endswith("record it or choose one of these")
    assert len(EpisodeStore.open(out)) == 4
    assert EpisodeStore.open(out).verify() == []
    suite["starts"][4]["task"] = "fly"
    path.write_text(json.dumps(suite))
    said = refused(*words[:3], "--world", "toy", "--out", tmp_path / "other")
    assert "suite 'tiny' is for robot 'metaworld-sawyer', world 'toy' has 'toy'" in said
    assert "did you mean 'drawer-close'" in refused(*words, "--task", "drawer-clos")


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/worldeval"])
def test_an_unwritable_output_folder(
    place: str, world: Path, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "file").write_text("precious")
    store, out = write_store(tmp_path / "store"), tmp_path / place
    learn = ["train", "world-model", "--autoencoder", world / "autoencoder", "--store", store]
    lines: list[list[str | Path]] = [
        rollout("--policy", "zero"),
        ["record", "--tasks", "reach", "--workers", "1"],
        ["train", "autoencoder", "--store", store, *AUTOENCODER],
        learn,
        ["train", "policy", "--store", store, *POLICY],
        ["train", "judge", "--store", store, "--validation", store],
        ["replay", "--store", store, "--threads", "1"],
        ["demo", "--threads", "1"],
    ]
    for words in lines:
        said = refused(*words, "--out", out)
        assert f"output folder '{out}' cannot be made" in said, words
        assert said.endswith("choose a folder that you may write to")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.fixture
def filling_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``filling_disk(n)``: n parquet files more can be written, then the disk is full."""
    real, left = pq.ParquetWriter.write_table, [0]

    def write(writer: pq.ParquetWriter, table: Any, *args: Any, **kwargs: Any) -> None:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        real(writer, table, *args, **kwargs)

    def fill(files: int) -> None:
        left[0] = files
        monkeypatch.setattr(pq.ParquetWriter, "write_table", write)

    return fill


def test_a_disk_that_fills_during_rollouts(
    tmp_path: Path,
    filling_disk: Callable[[int], None],
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts = toy.toy_starts(count=2)
    Suite(name="toy", robot="toy", chunks=2, starts=starts).save(tmp_path / "suite.json")
    out = tmp_path / "out"
    words = ["rollout", "--world", "toy", "--suite", tmp_path / "suite.json", "--threads", "1"]
    words += ["--policy", "random", "--out", out, "--disk-wait", "0"]
    filling_disk(7)  # the list of tasks twice; two a rollout
    said = refused(*words)
    assert said.startswith(f"{out} cannot be written: No space left on device; ")
    assert "what was stored before is intact, free some space" in said
    kept = EpisodeStore.open(out)
    assert len(kept) == 2
    assert kept.verify() == []
    monkeypatch.undo()
    assert cli.main([str(word) for word in words]) == 0
    assert len(EpisodeStore.open(out)) == 4


TRAININGS = {
    "autoencoder": (AUTOENCODER, "state.safetensors"),
    "world-model": (WORLD_MODEL, "the checkpoint"),  # of the first validation
    "policy": (POLICY, "state.safetensors"),
    "judge": (JUDGE, ".out.frames"),
}


@pytest.mark.parametrize("what", TRAININGS)
def test_a_disk_that_fills_during_training(
    what: str, world: Path, tmp_path: Path, refused: Refused
) -> None:
    """Files cannot grow beyond 20 kB: the system refuses in earnest, as a full disk does."""
    options, file = TRAININGS[what]
    out, store = tmp_path / "out", write_store(tmp_path / "store")
    words = ["train", what, "--store", str(store), "--out", str(out), *options]
    if what == "world-model":
        words += ["--autoencoder", str(world / "autoencoder")]
    if what == "judge":
        words += ["--validation", str(store)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        said = refused(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said.startswith("cannot write ")
    assert file in said
    assert "File too large" in said
    assert "free some space" in said
    assert not list(out.rglob("*.tmp"))
    assert cli.main(words) == 0
    assert (out / "config.json").is_file()


def test_a_device_that_is_not_there(world: Path, tmp_path: Path, refused: Refused) -> None:
    said = refused(*rollout("--policy", "zero", "--out", tmp_path, "--device", "quantum"))
    assert said.startswith("device is 'quantum', which torch does not have here; use cpu")


@pytest.mark.parametrize("verb", ["rollout", "replay", "demo"])
def test_a_setting_of_another_robot_s_arm(
    world: Path, tmp_path: Path, refused: Refused, verb: str
) -> None:
    """Every verb that imagines heeds the options of the arm, also those that it cannot use."""
    words: list[str | Path] = [verb]
    if verb == "rollout":
        words = [*rollout("--policy", "zero")]
    elif verb == "replay":
        words += ["--store", world / "suite" / "starts"]
    said = refused(*words, "--out", tmp_path / "out", "--gripper-most", "0.8")
    assert "gripper_most is 0.8" in said and "leave it out" in said
