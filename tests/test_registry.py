"""Things of other packages are found by name, and a wrong name ends in a sentence."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from worldeval import cli, registry
from worldeval.errors import ConfigError
from worldeval.evaluation.opening import open_world
from worldeval.judging.loading import load_judge
from worldeval.robots import RobotSpec, read_robot
from worldeval.rollout.suite import Suite
from worldeval.worlds.toy import toy_starts


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another package that adds a robot, a world, a judge, and one that is broken."""
    (tmp_path / "added_things.py").write_text(
        "from worldeval.robots import read_robot\n"
        "from worldeval.worlds.toy import ToyWorld\n"
        "ROBOT = read_robot('so101')\n"
        "import dataclasses\n"
        "@dataclasses.dataclass\n"
        "class Judge:\n"
        "    name: str\n"
        "    def judge(self, episodes): return []\n"
        "def number(rest): return 3\n"
        "def failing(rest): raise ValueError('no ' + rest)\n"
        "def world(): raise OSError('no simulator')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {
        "robots": [("mine", "ROBOT"), ("broken", "NOTHING")],
        "worlds": [("my-world", "ToyWorld"), ("number", "number"), ("raises", "world")],
        "judges": [("mine", "Judge"), ("number", "number"), ("fails", "failing")],
    }

    def entry_points(group: str) -> list[EntryPoint]:
        added = names.get(group.removeprefix("worldeval."), [])
        return [EntryPoint(name, f"added_things:{what}", group) for name, what in added]

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.usefixtures("package")
def test_another_packages_things_are_found_by_their_names() -> None:
    assert isinstance(read_robot("mine"), RobotSpec)
    assert open_world("my-world").name == "toy"
    assert load_judge("mine:threshold=1").name == "threshold=1"


@pytest.mark.usefixtures("package")
def test_a_world_may_be_a_value_of_python() -> None:
    assert open_world("added_things:ToyWorld").name == "toy"
    with pytest.raises(ConfigError, match="'added_things' has no 'ToyWrld', did you mean"):
        open_world("added_things:ToyWrld")
    with pytest.raises(ConfigError, match="module 'nothing_there' cannot be imported"):
        open_world("nothing_there:World")


def test_a_file_of_the_working_folder_is_a_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "worlds_of_mine.py").write_text(
        "from worldeval.worlds.toy import ToyWorld\nWORLD = ToyWorld(name='mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert open_world("worlds_of_mine:WORLD").name == "mine"
    assert sys.path == before


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("number", "cannot be made: TypeError"),
        ("raises", "cannot be made: OSError: no simulator"),
        ("added_things:ROBOT", "is a RobotSpec with no robot"),
        ("added_things:Judge", "cannot be made"),
    ],
)
def test_what_is_no_world_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_world(name)


@pytest.mark.usefixtures("package")
def test_what_is_no_judge_is_refused() -> None:
    with pytest.raises(ConfigError, match="'number:x' is a int, expected a name and a method"):
        load_judge("number:x")
    with pytest.raises(ConfigError, match="cannot be made: ValueError: no x"):
        load_judge("fails:x")


@pytest.mark.usefixtures("package")
def test_the_command_line_takes_a_registered_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = Suite(name="toys", robot="toy", chunks=1, starts=toy_starts(count=1))
    suite.save(tmp_path / "suite.json")
    words = ["--policy", "zero", "--suite", str(tmp_path / "suite.json"), "--world"]
    for world, out in (("my-world", "one"), ("added_things:ToyWorld", "two")):
        assert cli.main(["rollout", *words, world, "--out", str(tmp_path / out)]) == 0
        manifest = json.loads((tmp_path / out / "run.json").read_text())
        assert manifest["config"]["world"] == world
        assert "added_things.py" in str(manifest["content"])
    assert cli.main(["rollout", *words, "my-wrld", "--out", str(tmp_path / "three")]) == 2
    assert "did you mean 'my-world'" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()


@pytest.mark.usefixtures("package")
def test_a_wrong_name_is_answered_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'my-world'"):
        open_world("my-wrld")
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        load_judge("mien:x")
    with pytest.raises(ConfigError, match="did you mean 'robots'"):
        registry.entries("robot")


@pytest.mark.usefixtures("package")
def test_what_cannot_be_imported_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'added_things:NOTHING'.*cannot be imported"):
        read_robot("broken")


@pytest.mark.parametrize("text", ["http://host:80", "C:/robots/mine", "a.b", "a:b-c", ":x", "x:"])
def test_only_names_of_python_are_taken_for_values(text: str) -> None:
    assert not registry.is_attribute(text)
    with pytest.raises(ConfigError, match=r"expected package\.module:name"):
        registry.attribute(text)
