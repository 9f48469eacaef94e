"""The commands that README and docs print, run one after the other in one folder, as by a reader.

The world is untrained and of a few kilobytes; to what is printed only that is added which makes a
command small. What is not run here is named, with where it is tried instead.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.readers.robot_made import SO101, make_robot_dataset
from tests.evaluation.test_demo import TASKS, episode, make_shipped
from tests.test_docs import ROOT, printed
from worldeval import Evaluation, cli
from worldeval.data.store.episodes import EpisodeStore
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.progress import ProgressJudge
from worldeval.rollout.recording import open_rollouts
from worldeval.worlds.sawyer import ROBOT, start_states

OWN, BETTER = (ROOT / "README.md").read_text().split("## Policies that get better")
FIRST = ("data", "README", "synthesis", "index")
"""Pages whose results others use."""
SMALL_ARM = replace(SO101, size=(96, 128))
NOT_RUN = {
    r"ctrl-world|droid": "the published release: tests/world_model/ctrl_world",
    r"MY_|my_world:|MyPolicy": "tests/test_recipes.py, tests/evaluation/test_front_door.py",
    r"^(record|probe) ": "the simulator: tests/worlds, tests/imagination/test_probe.py",
    r"^(app|serve)": "serves until it is stopped: tests/apps",
    r"://": "somebody else's server: tests/policies/servers, tests/judging/vlm",
    r"gym:": "packages of others: tests/worlds/test_environment.py",
    r"lerobot:runs": "LeRobot's own environment: tests/policies/test_lerobot_policy.py",
    r"lerobot-reward:": "LeRobot's own environment: tests/judging/test_lerobot_reward.py",
    r"^export rerun": "Rerun's own environment: tests/data/test_rerun_export.py",
    r"--(loop.)?trackers": "libraries of others: tests/evaluation/test_tracked.py",
    r"runs/night": "several processes: tests/evaluation/test_execution.py",
    r"^doctor": "tests/test_doctor.py",
    r"train population": "minutes: tests/policies/cloning/test_families.py",
    r"my_robot.toml --out rec": "corrected by hand: tests/data/readers/test_lerobot_robot.py",
}
TRAIN = "--loop.steps 1 --loop.batch 2 --loop.threads 1"
SHORT = "--threads 1 --chunks 1"
SMALL = {
    "prepare": "--image-size 64 64 --workers 1",
    "train autoencoder": f"{TRAIN} --model.widths 8 8 8 --model.latent-channels 2",
    "train world-model": f"{TRAIN} --backbone.widths 8 16 --backbone.blocks 1",
    "train policy --start-from": TRAIN,
    "train policy": f"{TRAIN} --channels 8 8 8 --hidden 8",
    "train": TRAIN,
    "replay": f"{SHORT} --episodes 1 --sampler-steps 1",
    "rollout": f"{SHORT} --sampler-steps 1",
    "evaluate": f"{SHORT} --per-task 1",
    "diagnose": f"{SHORT} --per-task 1",
    "synthesize --policy": f"{SHORT} --per-task 2 --variations 1 --select all",
    "synthesize|judge|trust|demo": "--threads 1",
}
"""By the beginning of a command, the first that fits: what makes it small."""


def run_all(commands: Iterable[str], capsys: pytest.CaptureFixture[str]) -> None:
    for command in dict.fromkeys(shlex.join(shlex.split(c, comments=True)[1:]) for c in commands):
        if any(re.search(pattern, command) for pattern in NOT_RUN):
            continue
        make_inputs(command)
        words = shlex.split(command)
        if "KEY" in words:
            words[words.index("KEY")] = min(EpisodeStore.open("runs/synthetic/dataset").keys)
        more = next((SMALL[begin] for begin in SMALL if re.match(begin, command)), "")
        code = cli.main([*words, *more.split()])
        assert code == 0, f"{command}\n{capsys.readouterr().err[-3000:]}"


def make_inputs(command: str) -> None:
    """What the command reads that no other printed one writes: tables that a person writes, in
    which outcomes take turns, and an earlier evaluation."""
    if "runs/earlier" in command:
        shutil.copytree("runs/imagined", "runs/earlier")
    for name in re.findall(r"[\w/-]+\.csv", command):
        folder = Path(name).parent
        rows = Evaluation.open(folder if folder.name else "runs/imagined").verdicts
        rows = rows[["policy", "task", "start_id"]].drop_duplicates()
        rows["success"] = [number % 2 for number in range(len(rows))]
        if "labels" in name:
            rows["outcome"] = rows.pop("success").map({0: "failure", 1: "success"})
            rows["rater"] = "ann"
        rows.to_csv(name, index=False)


def record(root: Path, split: str) -> None:
    """Eight episodes of noise in which the hand wanders; every second one succeeds."""
    rng = np.random.default_rng(0)
    with open_rollouts(root, ROBOT) as store:
        for task in TASKS:
            for number, start in enumerate(start_states(split, task, 4)):
                still, success = episode(start.start_id, start, 9), number % 2 == 1
                moved = rng.normal(0, 0.01, still.poses.shape).cumsum(0)
                poses = (still.poses + moved).astype(np.float32)
                solved = (np.arange(9) > 4) & success
                store.append(replace(still, poses=poses, success=success, success_at=solved))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.delenv("WORLDEVAL_CHECKPOINTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_data_of_ones_own_to_a_rank(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("my_dataset", "held_out"):
        make_robot_dataset(here / name, SMALL_ARM, "v3.0", (61, 55, 61, 55))
    run_all(printed(OWN), capsys)


def test_all_else_on_the_embedded_world(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_shipped(here / "checkpoints", ("full", "poor"))
    network = JudgeNetwork(JudgeConfig(views=ROBOT.views, channels=(8, 8, 8), hidden=8, outputs=5))
    progress = ProgressJudge(network, Calibration(), bins=(0, 1, 2, 3, 5))
    progress.save(here / "checkpoints/progress")
    for name in ("training", "validation"):
        record(here / "recordings" / name, name)
    made = "train trust --store recordings/training --validation recordings/validation --out"
    assert cli.main([*made.split(), "checkpoints/trust", *TRAIN.split()]) == 0
    make_robot_dataset(here / "my_dataset", SMALL_ARM, "v3.0", (61, 55))
    docs = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
    pages = {**docs, "README": BETTER}
    order = (*FIRST, *sorted(pages.keys() - set(FIRST)))
    run_all((command for name in order for command in printed(pages[name])), capsys)
