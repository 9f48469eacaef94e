"""Modules beside a policy's file are found, early and late; those of two policies do not mix."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worldeval.errors import PolicyError
from worldeval.policies.loading import load_policy
from worldeval.robots import RobotSpec

POLICY = """
import numpy as np
from worldeval.policies.scripted import ZeroPolicy
from my_settings import LEVEL

class Mine(ZeroPolicy):
    def act(self, observations):
        from my_late.inner import FACTOR
        return np.full((1, self.spec.chunk, self.spec.action_dim), LEVEL * FACTOR, np.float32)
"""


def write(folder: Path, level: float, factor: float) -> str:
    (folder / "my_late").mkdir(parents=True)
    (folder / "mine.py").write_text(POLICY)
    (folder / "my_settings.py").write_text(f"LEVEL = {level}\n")
    (folder / "my_late" / "__init__.py").write_text("")
    (folder / "my_late" / "inner.py").write_text(f"FACTOR = {factor}\n")
    return f"python:{folder / 'mine.py'}:Mine"


def test_two_policies_with_modules_of_the_same_names(tmp_path: Path, toy_robot: RobotSpec) -> None:
    names, paths = set(sys.modules), list(sys.path)
    a = load_policy(write(tmp_path / "a", 0.5, 0.5), toy_robot)
    b = load_policy(write(tmp_path / "b", 0.2, 0.1), toy_robot)
    for _ in range(2):
        assert a.act([])[0, 0, 0] == np_float(0.25) and b.act([])[0, 0, 0] == np_float(0.02)
    assert sys.path == paths
    assert not {n for n in set(sys.modules) - names if n.startswith(("my_", "worldeval_policy"))}


def np_float(value: float) -> float:
    import numpy as np

    return float(np.float32(value))


def test_what_was_loaded_from_elsewhere_does_not_stand_for_a_neighbour(
    tmp_path: Path, toy_robot: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "my_settings.py").write_text("LEVEL = 0.9\n")
    monkeypatch.syspath_prepend(elsewhere)
    import my_settings  # type: ignore[import-not-found]

    try:
        policy = load_policy(write(tmp_path / "a", 0.5, 1.0), toy_robot)
        assert policy.act([])[0, 0, 0] == 0.5
        assert sys.modules["my_settings"] is my_settings and my_settings.LEVEL == 0.9
    finally:
        del sys.modules["my_settings"]


def test_a_folder_that_the_policy_adds_itself_is_its_own(
    tmp_path: Path, toy_robot: RobotSpec
) -> None:
    found = []
    for name, level in (("a", 0.25), ("b", 0.75)):
        source = tmp_path / name / "src"
        source.mkdir(parents=True)
        (source / "my_library.py").write_text(f"LEVEL = {level}\n")
        text = (
            "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'src'))\n"
        )
        text += POLICY.replace("from my_settings", "from my_library").replace(
            "from my_late.inner import FACTOR", "FACTOR = 1"
        )
        (tmp_path / name / "mine.py").write_text(text)
        found.append(load_policy(f"python:{tmp_path / name / 'mine.py'}:Mine", toy_robot))
    assert [float(policy.act([])[0, 0, 0]) for policy in found] == [0.25, 0.75]


def test_a_module_of_the_working_folder(
    tmp_path: Path, toy_robot: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mypackage", 0.5, 1.0)
    (tmp_path / "mypackage" / "mine.py").write_text(
        POLICY.replace("from my_settings", "from .my_settings").replace(
            "from my_late", "from mypackage.my_late"
        )
    )
    monkeypatch.chdir(tmp_path)
    policy = load_policy("python:mypackage.mine:Mine", toy_robot)
    monkeypatch.chdir("/")
    assert policy.act([])[0, 0, 0] == 0.5 and "mypackage" not in sys.modules


def test_a_changed_neighbour_is_read_anew(tmp_path: Path, toy_robot: RobotSpec) -> None:
    uri = write(tmp_path / "a", 0.5, 1.0)
    assert load_policy(uri, toy_robot).act([])[0, 0, 0] == 0.5
    (tmp_path / "a" / "my_settings.py").write_text("LEVEL = 0.25  # mended\n")
    assert load_policy(uri, toy_robot).act([])[0, 0, 0] == 0.25


def test_a_neighbour_that_is_not_there(tmp_path: Path, toy_robot: RobotSpec) -> None:
    uri = write(tmp_path / "a", 0.5, 1.0)
    (tmp_path / "a" / "my_settings.py").unlink()
    with pytest.raises(PolicyError, match="mine.py cannot be imported .*No module named 'my_set"):
        load_policy(uri, toy_robot)
