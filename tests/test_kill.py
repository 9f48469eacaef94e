"""``kill -9`` and Ctrl-C at any moment, then the same command again: nobody can tell afterwards.

The killed command is a process of its own, ``python -m worldeval ...``; the uninterrupted one and,
for speed, most of the second ones run in this process through the same ``cli.main``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.test_evaluate_until_sure import POLICIES
from worldeval import cli
from worldeval.data import checkpoint
from worldeval.data.store.episodes import EpisodeStore
from worldeval.rollout.suite import Suite
from worldeval.types import Episode
from worldeval.worlds import toy
from worldeval.worlds.sawyer import ROBOT

PATIENCE_S = 300.0
"""For a process to begin its work on a machine that is busy with other things."""
SAID = "worldeval: interrupted; run the same command again to continue"


def begin(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "worldeval", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that starts a test run in the background has it ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def strike(
    words: list[str] | subprocess.Popen[str], number: signal.Signals, ready: Callable[[], bool]
) -> str:
    """Run a command and send it a signal as soon as ``ready``; what it wrote to stderr."""
    process = begin(words) if isinstance(words, list) else words
    until = time.monotonic() + PATIENCE_S
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"it was not ready before it ended:\n{process.communicate()[1]}")
        time.sleep(0.002)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: its children get it too
    else:
        process.send_signal(number)
    # The end of the pipe: processes that it had begun are gone too.
    _, said = process.communicate(timeout=PATIENCE_S)
    expected = -number if number == signal.SIGKILL else 130
    assert process.returncode == expected, said
    return said


def again(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0, capsys.readouterr().err


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def rows_of(path: Path, name: str) -> dict[int, float]:
    """Step -> number; every step once."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [(row["step"], row[name]) for row in rows if name in row]
    assert len(dict(found)) == len(found), f"steps of {path} are reported twice"
    return dict(found)


def assert_same_training(one: Path, other: Path, metrics: str, names: tuple[str, ...]) -> None:
    for name in names:
        ours, theirs = (rows_of(folder / metrics, name) for folder in (one, other))
        assert list(ours) == list(theirs), name
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4)
    kind = checkpoint.read_header(one)["kind"]
    ours, theirs = (checkpoint.load(folder, kind=kind)[1] for folder in (one, other))
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], atol=1e-5, rtol=1e-3, err_msg=name)


def assert_same_store(one: EpisodeStore, other: EpisodeStore) -> None:
    assert one.verify() == other.verify() == []
    assert [e.key for e in one] == [e.key for e in other]
    for ours, theirs in zip(one, other, strict=True):
        assert ours.success == theirs.success
        assert ours.extra.get("outcome") == theirs.extra.get("outcome")
        for name in ("poses", "actions", "success_at"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
        # x264 itself codes about one clip in ten thousand a little differently on a busy machine.
        most = 1.0 if one.layout.images == "video" else 0.0
        assert np.abs(ours.frames.astype(int) - theirs.frames).mean() <= most


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short episodes of the robot that the command line trains for."""
    store = EpisodeStore.create(
        tmp_path_factory.mktemp("recorded") / "store",
        views=ROBOT.views,
        image_size=ROBOT.image_size,
        pose_names=ROBOT.pose_names,
        action_names=ROBOT.action_names,
        steps_per_frame=ROBOT.steps_per_frame,
        fps=ROBOT.frame_hz,
        robot_type=ROBOT.name,
        images="lossless",
        expert_actions=True,
    )
    for number in range(3):
        rng = np.random.default_rng(number)
        actions = rng.uniform(-1, 1, (8, ROBOT.steps_per_frame, ROBOT.action_dim))
        start = np.array([0, 0.6, 0.2, -1], np.float32)
        poses = ROBOT.integrate(start, actions.reshape(-1, ROBOT.action_dim))
        blocks = rng.integers(0, 256, (9, len(ROBOT.views), 8, 8, 3), np.uint8)
        store.append(
            Episode(
                key=f"reach/training/{number:04d}",
                task="reach",
                instruction="touch the red ball",
                views=ROBOT.views,
                frames=blocks.repeat(8, axis=2).repeat(8, axis=3),
                poses=np.concatenate([start[None], poses]).astype(np.float32),
                actions=actions.astype(np.float32),
                expert_actions=actions.astype(np.float32),
                success_at=np.zeros(9, bool),
                success=False,
                extra={"start_id": f"reach/training/{number:04d}", "kind": "random"},
            )
        )
    store.close()
    return store.root


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "autoencoder"
    Autoencoder(AutoencoderConfig(widths=(8, 8, 8), latent_channels=2)).save(folder)
    return folder


LOOP = "--loop.steps 60 --loop.batch 2 --loop.threads 1 --loop.warmup 5 --loop.report-every 3"


@pytest.fixture(scope="module")
def world_model_words(recorded: Path, autoencoder: Path) -> list[str]:
    sizes = (
        "--backbone.widths 8 16 --backbone.blocks 1 --backbone.token-width 16 --backbone.heads 2"
    )
    return [
        *f"train world-model --store {recorded} --autoencoder {autoencoder}".split(),
        *f"--validation {recorded} --loop.validate-every 25 {sizes} {LOOP}".split(),
    ]


@pytest.fixture(scope="module")
def whole_world_model(
    world_model_words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("whole") / "world-model"
    assert cli.main([*world_model_words, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_training_of_the_world_model(
    number: signal.Signals,
    world_model_words: list[str],
    whole_world_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "world-model"
    metrics, state = out / "training" / "metrics.jsonl", out / "training" / "state.safetensors"
    killed = number == signal.SIGKILL
    # Killed some steps after a state was written; Ctrl-C long before the first would be.
    save_every_s = 0.1 if killed else 600
    words = [*world_model_words, "--out", str(out), "--loop.save-every-s", str(save_every_s)]
    said = strike(words, number, lambda: lines_of(metrics) >= 6 and (state.is_file() or not killed))
    assert state.is_file()
    if not killed:
        assert said.splitlines()[-1] == SAID
        assert "Traceback" not in said
    again(words, capsys)
    names = ("loss", "loss_left", "learning_rate", "psnr_left")
    assert_same_training(out, whole_world_model, "training/metrics.jsonl", names)
    steps = list(rows_of(metrics, "psnr_left"))
    assert steps == [25, 50, 60], "every validation was made once"


@pytest.mark.heavy
def test_training_of_the_autoencoder(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"train autoencoder --store {recorded} --model.widths 8 8 8 {LOOP}".split()
    words += ["--loop.save-every-s", "0.05"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    again([*words, "--out", str(whole)], capsys)
    metrics, state = cut / "training" / "metrics.jsonl", cut / "training" / "state.safetensors"
    words += ["--out", str(cut)]
    strike(words, signal.SIGKILL, lambda: state.is_file() and lines_of(metrics) >= 4)
    again(words, capsys)
    assert_same_training(cut, whole, "training/metrics.jsonl", ("loss", "psnr"))


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.heavy)]
)
def test_training_of_a_policy(
    number: signal.Signals, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = "--channels 8 8 8 --hidden 8"
    killed = number == signal.SIGKILL
    words = f"train policy --store {recorded} {sizes} {LOOP}".split()
    words += ["--loop.save-every-s", "0" if killed else "600"]
    whole, cut = tmp_path / "whole" / "clone", tmp_path / "cut" / "clone"
    again([*words, "--out", str(whole)], capsys)
    words += ["--out", str(cut)]
    metrics = "training/metrics.jsonl"
    said = strike(words, number, lambda: lines_of(cut / metrics) >= 4)
    assert (cut / "training" / "state.safetensors").is_file()
    if not killed:
        assert said.splitlines()[-1] == SAID
        assert "Traceback" not in said
    again(words, capsys)
    assert_same_training(cut, whole, metrics, ("loss", "learning_rate"))


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.heavy)]
)
def test_rollouts_in_the_toy_world(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = Suite(name="toy", robot="toy", chunks=4, starts=toy.toy_starts(count=5))
    suite.save(tmp_path / "suite.json")
    words = f"rollout --world toy --suite {tmp_path / 'suite.json'} --threads 1 --batch 3".split()
    words += ["--policy", "python:worldeval.worlds.toy:ToyPolicy?clumsiness=0.5"]
    words += ["--policy", "random"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    again([*words, "--out", str(whole)], capsys)
    words += ["--out", str(cut)]
    said = strike(words, number, lambda: len(list(cut.glob("data/*/*.parquet"))) >= 4)
    assert 3 <= len(EpisodeStore.open(cut)) < 20
    if number == signal.SIGINT:
        assert "rollouts of" in said.splitlines()[-1] and "are kept" in said.splitlines()[-1]
        assert "Traceback" not in said
    again(words, capsys)
    assert_same_store(EpisodeStore.open(cut), EpisodeStore.open(whole))
    tables = [pd.read_parquet(folder / "truth.parquet") for folder in (cut, whole)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_rollouts_until_the_order_is_sure(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was decided, when, and from which rollouts is the same with and without the kill."""
    Suite(name="s", robot="toy", chunks=4, starts=toy.toy_starts(count=12)).save(
        tmp_path / "s.json"
    )
    (tmp_path / "toys.py").write_text(POLICIES)
    words = f"--until-sure order --world toy --suite {tmp_path / 's.json'} --threads 1".split()
    for name, mistakes in (("good", 0.0), ("fair", 0.5), ("bad", 1.0)):
        words += ["--policy", f"python:{tmp_path}/toys.py:Toy?name={name}&mistakes={mistakes}"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    again(["evaluate", "--out", str(whole), *words], capsys)
    words = ["evaluate", "--out", str(cut), *words]
    strike(words, number, lambda: len(list(cut.glob("data/*/*.parquet"))) >= 10)
    assert len(EpisodeStore.open(cut)) < len(EpisodeStore.open(whole))
    again(words, capsys)
    keys = [set(EpisodeStore.open(folder).metadata()["key"]) for folder in (cut, whole)]
    assert keys[0] == keys[1]
    records = [json.loads((folder / "until-sure.json").read_text()) for folder in (cut, whole)]
    assert records[0] == records[1]


@pytest.mark.heavy
def test_rollouts_in_imagination(
    whole_world_model: Path,
    autoencoder: Path,
    recorded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shutil

    from worldeval.worlds.sawyer import start_states

    model = tmp_path / "models" / "world-model"
    shutil.copytree(whole_world_model, model)
    shutil.copytree(autoencoder, model.parent / "autoencoder")
    starts = tuple(start_states("training", "reach", 3))
    Suite(name="tiny", robot=ROBOT.name, chunks=3, starts=starts).save(tmp_path / "suite.json")
    words = f"rollout --suite {tmp_path / 'suite.json'} --starts {recorded} --threads 1".split()
    words += f"--world-model {model} --policy random --policy zero --batch 2".split()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    again([*words, "--out", str(whole)], capsys)
    words += ["--out", str(cut)]
    strike(words, signal.SIGKILL, lambda: len(list(cut.glob("data/*/*.parquet"))) >= 2)
    assert len(EpisodeStore.open(cut)) < 6
    again(words, capsys)
    assert_same_store(EpisodeStore.open(cut), EpisodeStore.open(whole))


@pytest.mark.sim
@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_recording(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "record",
        "--tasks",
        "reach",
        "drawer-open",
        "--episodes-per-task",
        "4",
        "--chunks",
        "2",
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    again([*words, "--workers", "1", "--out", str(whole)], capsys)
    words += ["--workers", "2", "--out", str(cut)]
    said = strike(words, number, lambda: len(list(cut.glob("data/*/*.parquet"))) >= 2)
    assert 1 <= len(EpisodeStore.open(cut)) < 8
    if number == signal.SIGINT:
        assert said.splitlines()[-1] == SAID
        assert "Traceback" not in said
    second = begin(words)
    _, said = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, said
    assert_same_store(EpisodeStore.open(cut), EpisodeStore.open(whole))


@pytest.mark.sim
@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux who is whose child")
def test_recording_is_interrupted_while_its_workers_begin(tmp_path: Path) -> None:
    """They are born deaf to Ctrl-C: none of them prints a traceback of its own."""
    process = begin(["record", "--tasks", "reach", "--workers", "2", "--out", str(tmp_path / "s")])
    said = strike(process, signal.SIGINT, lambda: workers_of(process.pid) == 2)
    assert said.splitlines()[-1] == SAID
    assert "Traceback" not in said


def workers_of(parent: int) -> int:
    """How many processes a process has spawned by ``multiprocessing``."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # pid (name) state ppid ...; a name may hold blanks
            ppid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found += ppid == parent and b"spawn_main" in (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
    return found
