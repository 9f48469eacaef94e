from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worldeval.data.store.episodes import EpisodeStore
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
        name, value = "marvin", "their_package:load"

        @staticmethod
        def load():
            from worldeval.policies.scripted import ZeroPolicy

            return lambda rest, robot, name="p": ZeroPolicy(robot, name=f"{name}@{rest}")

    monkeypatch.setattr(loading, "_entries", lambda: [Entry])
    assert load_policy("marvin://host:8000?name=pi", toy_robot).spec.name == "pi@//host:8000"
    with pytest.raises(ConfigError, match="did you mean 'marvin'"):
        load_policy("marvinn", toy_robot)


@pytest.mark.parametrize("target", [*loading.ALONE.values(), *loading.WITH_PLACE.values()])
def test_every_registered_target_exists(target: str) -> None:
    assert callable(loading._resolve(target))


def test_nothing_but_learned_policies_imports_torch() -> None:
    code = (
        "import sys; from worldeval.policies import loading, checking, scripted, replay, "
        "keyboard; from worldeval.policies.cloning import candidates, config; "
        "from worldeval.policies.servers import openpi, roboarena; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("random?speed=fast", "speed is 'fast', expected a number"),
        ("random?speed=0,5", "speed is '0,5', expected a number"),
        ("random?speed=true", "speed is True, expected a number"),
        ("random?speed=NaN", "speed is nan, expected a number"),
        ("random?speed=[1]", r"speed is \[1\], expected a number"),
        ("bc:x?execute=six", "execute is 'six', expected a whole number or null"),
        ("bc:x?execute=1.5", "execute is 1.5, expected a whole number"),
        ("bc:x?device=gpu", "device is 'gpu', which torch does not have here"),
        ("bc:x?device=cuda:77", "device is 'cuda:77', which torch does not have here"),
        ("bc:x?device=meta", "device is 'meta', which torch does not have here"),
        ("bc:x?device=0", "device is '0', which torch does not have here"),
        ("openpi://h?timeout_s=soon", "timeout_s is 'soon', expected a number"),
        ("python:{file}:Typed?count=2.5", "count is 2.5, expected a whole number"),
        ("python:{file}:Typed?limit=no", "limit is 'no', expected a number or null"),
    ],
)
def test_an_argument_of_another_kind_is_named(
    tmp_path: Path, toy_robot: RobotSpec, uri: str, says: str
) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    with pytest.raises(ConfigError, match=says):
        load_policy(uri.format(file=tmp_path / "typed.py"), toy_robot)


TYPED = """
from __future__ import annotations
from worldeval.policies.scripted import ZeroPolicy

class Typed(ZeroPolicy):
    def __init__(self, robot, count: int = 1, limit: float | None = None, word: str = "a", any=1):
        super().__init__(robot, name=f"{count} {limit} {word} {any}")
"""


def test_arguments_of_the_right_kind_are_taken(tmp_path: Path, toy_robot: RobotSpec) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    uri = f"python:{tmp_path / 'typed.py'}:Typed?count=3&limit=2&word=7&any=x"
    assert load_policy(uri, toy_robot).spec.name == "3 2 7 x"
    assert load_policy(f"{uri}&limit=null&word=true", toy_robot).spec.name == "3 None true x"
    assert load_policy("random?name=12", toy_robot).spec.name == "12"


@pytest.mark.parametrize(
    "line", ["raise type('Odd', (BaseException,), {})('x')", "import sys; sys.exit(3)"]
)
@pytest.mark.parametrize("where", ["{line}\nclass Mine: pass", "def Mine():\n    {line}"])
def test_making_a_policy_never_ends_the_program(
    tmp_path: Path, toy_robot: RobotSpec, line: str, where: str
) -> None:
    (tmp_path / "mine.py").write_text(where.format(line=line))
    with pytest.raises(PolicyError, match="cannot be imported .Odd|could not be made .Odd|SystemE"):
        load_policy(f"python:{tmp_path / 'mine.py'}:Mine", toy_robot)


def test_making_a_policy_may_not_last_for_ever(tmp_path: Path, toy_robot: RobotSpec) -> None:
    (tmp_path / "mine.py").write_text("import time\ndef Mine():\n    time.sleep(60)\n")
    with pytest.raises(PolicyError, match=r"did not answer within 0.5 s \(making it\)"):
        load_policy(f"python:{tmp_path / 'mine.py'}:Mine", toy_robot, limit_s=0.05)
