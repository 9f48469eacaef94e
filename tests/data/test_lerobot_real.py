"""The real LeRobot on our exports, where an environment of it is named.

    WORLDEVAL_LEROBOT=.../bin/python       lerobot 0.4 or later, for v3.0
    WORLDEVAL_LEROBOT_V21=.../bin/python   lerobot 0.3.3, for v2.1
    WORLDEVAL_LEROBOT_LIBS=FOLDER          FFmpeg's libraries, where the system has none

``benchmarks/lerobot_env.sh`` makes both and runs this.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from worldeval import testing
from worldeval.data.fit import robot_extra, store_fields
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.writers.lerobot import export
from worldeval.motion.panda import panda
from worldeval.robots import read_robot
from worldeval.rollout.engine import run
from worldeval.rollout.suite import Suite

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "benchmarks/lerobot_check.py"
_spec = importlib.util.spec_from_file_location(
    "lerobot_export", Path(__file__).with_name("test_lerobot_export.py")
)
assert _spec is not None
assert _spec.loader is not None
coded = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(coded)

pytestmark = pytest.mark.heavy


def ask(variable: str, *words: object) -> dict[str, Any]:
    """The last line of what LeRobot's environment says."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no python with lerobot; see benchmarks/lerobot_env.sh")
    libraries = os.environ.get("WORLDEVAL_LEROBOT_LIBS", "")
    own = {"PYTHONPATH": str(ROOT), **({"LD_LIBRARY_PATH": libraries} if libraries else {})}
    done = subprocess.run(
        [python, str(CHECK), *map(str, words)],
        capture_output=True, text=True, env={**os.environ, **own},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(found, dict)
    print(json.dumps(found))
    return found


@pytest.mark.parametrize("name", ["sawyer", "so101", "aloha", "droid"])
@pytest.mark.parametrize("version", ["3.0", "2.1"])
def test_every_picture_stands_in_its_row(tmp_path: Path, name: str, version: str) -> None:
    robots = coded.robots() | {"droid": panda("absolute_pose", image_size=(32, 64))}
    robot = robots[name]
    store = coded.store_of(tmp_path / "store", robot, expert=True)
    done = export(store, tmp_path / "out", robot, version=version)
    variable = "WORLDEVAL_LEROBOT" if version == "3.0" else "WORLDEVAL_LEROBOT_V21"
    said = ask(variable, "read", tmp_path / "out", "--coded")
    assert said["version"] == f"v{version}"
    assert said["rows"] == done.rows
    assert said["pictures"] == done.rows * len(robot.views)
    assert said["misaligned"] == 0
    assert said["action_error"] == 0.0
    assert said["delta_action"] == [8, robot.action_dim]
    assert said["delta_picture"][0] == 2
    assert said["batch"] == [4, 8, robot.action_dim]
    assert said["success"]


@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_a_policy_that_lerobot_trains_on_an_export_runs_here(tmp_path: Path, kind: str) -> None:
    robot = testing.toy_robot(image_size=(64, 64))
    suite = Suite(name="toy", robot=robot.name, chunks=3, starts=testing.toy_starts(count=4))
    store = EpisodeStore.create(tmp_path / "store", **store_fields(robot), extra=robot_extra(robot))
    policy = testing.ToyPolicy(robot=robot)
    run(testing.ToyWorld(robot=robot), policy, suite, store, batch=4, progress=False)
    store.close()
    export(EpisodeStore.open(tmp_path / "store"), tmp_path / "out", robot)
    place = tmp_path / kind
    made = ask(
        "WORLDEVAL_LEROBOT", "train", tmp_path / "out", "--policy", kind, "--steps", 8,
        "--out", place,
    )  # fmt: skip
    assert made["actions"] == ["action"]
    assert made["steps"] == 8
    said = ask("WORLDEVAL_LEROBOT", "roll", place, "--out", tmp_path / f"{kind}-rollouts")
    assert said["rollouts"] == len(testing.toy_starts(count=1))
    assert said["apart"] < 1e-4  # from what LeRobot itself answers; not asked of noise


@pytest.mark.weights
def test_lerobots_own_evaluation_accepts_the_imagined_world(tmp_path: Path) -> None:
    """By its command line, a model for each rollout, and batched: the same actions and words."""
    robot = read_robot("metaworld-sawyer")
    store = coded.store_of(tmp_path / "store", robot)
    export(store, tmp_path / "out", robot)
    ask(
        "WORLDEVAL_LEROBOT", "train", tmp_path / "out", "--policy", "act", "--steps", 2,
        "--out", tmp_path / "act",
    )  # fmt: skip
    said = ask("WORLDEVAL_LEROBOT", "evaluate", tmp_path / "act", "--out", tmp_path / "eval")
    assert said["episodes"] == said["films"] == 2
    assert said["steps"] == 12  # one chunk, action by action
    assert said["kinds"] == ["SyncVectorEnv", "WorldVectorEnv"]
    assert said["success"] == said["batched_success"]
    assert said["tasks"][0] == said["tasks"][1] and all("red" in w for w in said["tasks"][0])
    assert said["apart"] < 1e-5
