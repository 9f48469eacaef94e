"""A reader of somebody else: named by module:attr, checked, and taken by ``prepare``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval import cli
from worldeval.data.readers.own import OwnDataset, is_own
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError
from worldeval.robots import read_robot, write_robot
from worldeval.types import Episode
from worldeval.worlds.toy import toy_robot

ROBOT = toy_robot(image_size=(16, 16))
READER = '''
import numpy as np

from worldeval.types import Episode


class Mine:
    """Two episodes of noise, as a dataset of one's own would be read."""

    notes = ["the camera was bent"]

    def __init__(self, source, split, robot):
        self.ids = tuple(sorted(path.stem for path in source.glob("*.txt")))
        self.source, self.robot = source, robot

    def episode(self, identity):
        if identity == "torn":
            raise OSError("the file is torn")
        robot, frames = self.robot, 7
        rng = np.random.default_rng(len(identity))
        low, high = np.asarray(robot.action_low), np.asarray(robot.action_high)
        shape = (frames - 1, robot.steps_per_frame, robot.action_dim)
        return Episode(
            key=identity,
            task="stack",
            instruction="stack the cups",
            views=robot.views,
            frames=rng.integers(0, 255, (frames, len(robot.views), 32, 24, 3), dtype=np.uint8),
            poses=np.zeros((frames, robot.pose_dim), np.float32),
            actions=rng.uniform(low, high, shape).astype(np.float32),
            success=identity == "good",
        )
'''


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cups_reader.py").write_text(READER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name in ("good", "bad"):
        (folder / f"{name}.txt").write_text("")
    write_robot(ROBOT, tmp_path / "mine.toml")
    return folder


def command(source: Path, *more: str) -> list[str]:
    start = ["prepare", "--source", str(source), "--layout", "cups_reader:Mine", "--workers", "1"]
    return [*start, "--out", str(source.parent / "out"), *more]


def test_prepare_reads_with_a_reader_of_the_working_folder(source, capsys):
    assert cli.main(command(source, "--robot", "mine.toml")) == 0
    assert "the camera was bent" in capsys.readouterr().err
    store = EpisodeStore.open(source.parent / "out")
    episodes = {episode.extra["source_id"]: episode for episode in store}
    assert {name: e.success for name, e in episodes.items()} == {"good": True, "bad": False}
    assert episodes["good"].task == "stack" and episodes["good"].frames.shape[2:4] == (16, 16)


def test_an_episode_that_cannot_be_read_is_left_out_by_name(source, capsys):
    (source / "torn.txt").write_text("")
    assert cli.main(command(source, "--robot", "mine.toml")) == 1
    assert "skipped torn" in (said := capsys.readouterr().err) and "the file is torn" in said


def test_a_reader_needs_to_be_told_the_robot(source, capsys):
    assert cli.main(command(source)) == 2
    assert "give --robot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("lerobott", "did you mean 'lerobot'"),
        ("cups_reader:Nobody", "has no 'Nobody'"),
        ("no_such_module:Mine", "cannot be imported"),
    ],
)
def test_a_layout_that_there_is_none_of_is_one_sentence(source, capsys, layout, words):
    arguments = command(source, "--robot", "mine.toml")
    arguments[arguments.index("cups_reader:Mine")] = layout
    assert cli.main(arguments) == 2
    assert words in capsys.readouterr().err


def given(**changes: Any) -> Episode:
    """An episode as a reader should give it, but for ``changes``."""
    frames = 3
    right: dict[str, Any] = {
        "key": "a",
        "task": "t",
        "instruction": "",
        "views": ROBOT.views,
        "frames": np.zeros((frames, len(ROBOT.views), 16, 16, 3), np.uint8),
        "poses": np.zeros((frames, ROBOT.pose_dim), np.float32),
        "actions": np.zeros((frames - 1, ROBOT.steps_per_frame, ROBOT.action_dim), np.float32),
    }
    return Episode(**(right | changes))


class Fixed:
    """A reader of one episode."""

    def __init__(self, episode: Any) -> None:
        self.ids, self.one = ("a",), episode

    def __call__(self, source: Path, split: str, robot: Any) -> Fixed:
        return self

    def episode(self, identity: str) -> Any:
        return self.one


@pytest.mark.parametrize(
    ("episode", "words"),
    [
        (None, "is a NoneType, expected a worldeval.types.Episode"),
        (given(views=("x",)), "lacks the view"),
        (given(poses=np.zeros((2, ROBOT.pose_dim))), r"poses are \(2, "),
        (given(poses=np.full((3, ROBOT.pose_dim), np.nan)), "poses have NaN"),
        (given(actions=np.zeros((2, 1))), r"actions are \(2, 1\)"),
        (
            given(frames=np.zeros((3, len(ROBOT.views), 16, 16, 3))),
            "frames are float64, expected uint8",
        ),
    ],
)
def test_what_is_no_episode_of_the_robot_is_said(monkeypatch, episode, words):
    import sys
    from types import ModuleType

    module = ModuleType("fixed_reader")
    module.reader = Fixed(episode)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fixed_reader", module)
    dataset = OwnDataset("fixed_reader:reader", Path("there"), "train", ROBOT)
    with pytest.raises(DataError, match=words):
        dataset.episode("a")


def test_a_reader_that_breaks_says_how_it_is_called(monkeypatch):
    import sys
    from types import ModuleType

    module = ModuleType("broken_reader")
    module.reader = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken_reader", module)
    with pytest.raises(ConfigError, match=r"called with \(source, split, robot\)"):
        OwnDataset("broken_reader:reader", Path("there"), "train", ROBOT)
    assert is_own("broken_reader:reader") and not is_own("lerobot")


def test_the_robot_is_kept_in_the_store(source):
    mine = replace(read_robot("mine.toml"), name="mine")
    write_robot(mine, "mine.toml")
    assert cli.main(command(source, "--robot", "mine.toml", "--limit", "1")) == 0
    assert EpisodeStore.open(source.parent / "out").layout.robot_type == "mine"
