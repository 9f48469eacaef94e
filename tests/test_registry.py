"""Things of other packages are found by name, and a wrong name ends in a sentence."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from worldeval import registry
from worldeval.errors import ConfigError
from worldeval.evaluation.opening import open_world
from worldeval.judging.loading import load_judge
from worldeval.robots import RobotSpec, read_robot


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another package that adds a robot, a world, a judge, and one that is broken."""
    (tmp_path / "added_things.py").write_text(
        "from worldeval.robots import read_robot\n"
        "from worldeval.worlds.toy import ToyWorld\n"
        "ROBOT = read_robot('so101')\n"
        "def judge(rest): return ('judge', rest)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {
        "robots": [("mine", "ROBOT"), ("broken", "NOTHING")],
        "worlds": [("my-world", "ToyWorld")],
        "judges": [("mine", "judge")],
    }

    def entry_points(group: str) -> list[EntryPoint]:
        added = names.get(group.removeprefix("worldeval."), [])
        return [EntryPoint(name, f"added_things:{what}", group) for name, what in added]

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.usefixtures("package")
def test_another_packages_things_are_found_by_their_names() -> None:
    assert isinstance(read_robot("mine"), RobotSpec)
    assert open_world("my-world").name == "toy"
    assert load_judge("mine:threshold=1") == ("judge", "threshold=1")


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
