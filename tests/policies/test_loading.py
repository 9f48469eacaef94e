from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worldeval.data.episodes import EpisodeStore
from worldeval.errors import CheckpointError, ConfigError, MismatchError, PolicyError
from worldeval.policies import loading
from worldeval.policies.loading import load_policy
from worldeval.robots import RobotSpec

MINE = """
from dataclasses import dataclass, replace
from worldeval.policies.scripted import ZeroPolicy

class Mine(ZeroPolicy):
    def __init__(self, robot, speed=1.0, title="mine"):
        super().__init__(robot, name=title)
        self.speed = speed

class Slow(Mine):
    def __init__(self, robot):
        super().__init__(robot)
        self.spec = replace(self.spec, rate_hz=5.0)

class Broken:
    def __init__(self):
        raise RuntimeError("no weights here")

class Bare:
    pass
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_schemes_without_a_place(toy_robot: RobotSpec) -> None:
    assert load_policy("random", toy_robot).spec.name == "random"
    assert load_policy("random?speed=0.3&name=slow", toy_robot).spec.name == "slow"
    assert load_policy("zero", toy_robot).spec.name == "zero"
    assert load_policy("keyboard", toy_robot).spec.name == "keyboard"


def test_replay_by_uri(toy_store: EpisodeStore, toy_robot: RobotSpec) -> None:
    assert load_policy(f"replay:{toy_store.root}", toy_robot).spec.name == "replay"
    shuffled = load_policy(f"replay-shuffled:{toy_store.root}?name=other", toy_robot)
    assert shuffled.spec.name == "other"


def test_a_class_in_a_file(mine: Path, toy_robot: RobotSpec) -> None:
    policy = load_policy(f"python:{mine}:Mine?speed=2.5&title=a%20b", toy_robot)
    assert policy.spec.name == "a b"
    assert policy.speed == 2.5  # type: ignore[attr-defined]


def test_a_factory_in_a_module(toy_robot: RobotSpec) -> None:
    policy = load_policy("python:worldeval.policies.scripted:ZeroPolicy?name=z", toy_robot)
    assert policy.spec.name == "z"


@pytest.mark.parametrize(
    ("uri", "error", "says"),
    [
        ("randm", ConfigError, "did you mean 'random'"),
        ("replai:somewhere", ConfigError, "did you mean 'replay'"),
        ("random:fast", ConfigError, "takes nothing after it"),
        ("random?sped=1", ConfigError, "did you mean 'speed'"),
        ("random?speed", ConfigError, "cannot read 'speed'"),
        ("replay:", ConfigError, "names no place"),
        ("openpi:", ConfigError, "write openpi://HOST:PORT"),
        ("openpi://", ConfigError, "names no server"),
        ("roboarena:host:8000", ConfigError, "names no server"),
        ("openpi://host:eight", ConfigError, "write openpi://HOST:PORT"),
        ("openpi://host?timeout=3", ConfigError, "did you mean 'timeout_s'"),
        ("python:mine", ConfigError, "expected python:FILE.py:ClassName"),
        ("python:{file}:Mnie", PolicyError, "did you mean 'Mine'"),
        ("python:{file}:Mine?sped=1", ConfigError, "did you mean 'speed'"),
        ("python:{file}:Broken", PolicyError, "RuntimeError: no weights here"),
        ("python:{file}:Bare", PolicyError, "Bare has no usable `spec`"),
        ("python:{file}:Slow", MismatchError, "rate_hz 5.0"),
        ("python:{file}:MINE", PolicyError, "no 'MINE'"),
        ("python:{file}.py:Mine", PolicyError, "there is no file"),
        ("python:no.such.module:Mine", PolicyError, "ModuleNotFoundError"),
        ("{file}:Mine", ConfigError, "write python:"),
        ("{folder}", PolicyError, "no config.json"),
        ("bc:{folder}", CheckpointError, "no checkpoint at"),
        ("runs/none/such", PolicyError, "neither a checkpoint folder"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    mine: Path, toy_robot: RobotSpec, uri: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        load_policy(uri.format(file=mine, folder=mine.parent), toy_robot)


def test_a_file_with_a_syntax_error_is_named(tmp_path: Path, toy_robot: RobotSpec) -> None:
    path = tmp_path / "bad.py"
    path.write_text("class Mine(:\n")
    with pytest.raises(PolicyError, match="bad.py cannot be imported .SyntaxError"):
        load_policy(f"python:{path}:Mine", toy_robot)


def test_third_parties_add_schemes(monkeypatch: pytest.MonkeyPatch, toy_robot: RobotSpec) -> None:
    class Entry:
        name, value = "groot", "their_package:load"

        @staticmethod
        def load():
            from worldeval.policies.scripted import ZeroPolicy

            return lambda rest, robot, name="p": ZeroPolicy(robot, name=f"{name}@{rest}")

    monkeypatch.setattr(loading, "_entries", lambda: [Entry])
    assert load_policy("groot://host:8000?name=pi", toy_robot).spec.name == "pi@//host:8000"
    with pytest.raises(ConfigError, match="did you mean 'groot'"):
        load_policy("gr00t", toy_robot)


@pytest.mark.parametrize("target", [*loading.ALONE.values(), *loading.WITH_PLACE.values()])
def test_every_registered_target_exists(target: str) -> None:
    assert callable(loading._resolve(target))


def test_nothing_but_learned_policies_imports_torch() -> None:
    code = (
        "import sys; from worldeval.policies import loading, checking, scripted, replay, "
        "keyboard, candidates, bc_config, openpi, roboarena; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
