"""Any robot's LeRobot datasets: names, rates, views and sizes are the dataset's and the robot's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.readers.lerobot_made import SIZE, seen
from tests.data.readers.robot_made import (
    ALOHA,
    SO101,
    TASKS,
    Made,
    actions_of,
    make_robot_dataset,
    states_of,
)
from worldeval.cli import main
from worldeval.data.readers.lerobot_columns import Spelling, columns_of, names_of, read_spelling
from worldeval.data.readers.lerobot_proposal import propose_robot
from worldeval.data.readers.lerobot_robot import LeRobotRobot, clock_of
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError
from worldeval.robots import RobotSpec, read_robot, write_robot
from worldeval.rollout.recording import open_rollouts
from worldeval.worlds.named import robot_of_store

SMALL = replace(SO101, size=(48, 192))
WHERE = Path("meta/info.json")


@pytest.fixture(params=("v2.1", "v3.0"))
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_robot_dataset(tmp_path_factory.mktemp("so101") / "d", SMALL, "v3.0", (31, 38))


@pytest.mark.parametrize("kind", (SO101, ALOHA), ids=("so101", "aloha"))
def test_frames_actions_and_words_belong_together(tmp_path: Path, version: str, kind: Made) -> None:
    root = make_robot_dataset(tmp_path / "d", kind, version, (25, 31))
    robot = propose_robot(root).robot
    rows = robot.steps_per_frame
    assert robot.control_hz == kind.fps and robot.frame_hz == 5
    dataset = LeRobotRobot(root, robot)
    for n, length in ((0, 25), (1, 31)):
        episode = dataset.episode(str(n))
        count = (length - 1) // rows
        actions = actions_of(kind, n, length)
        assert episode.frames == count + 1 and episode.instructions == (TASKS[n],)
        assert np.array_equal(episode.steps(), actions[: count * rows].reshape(count, rows, -1))
        assert episode.success is True
        assert np.array_equal(episode.poses()[1:], episode.steps()[:, -1])
        assert np.array_equal(episode.poses()[0], states_of(kind, n, length)[0])
        frames = episode.images(SIZE)
        told = [[seen(picture) for picture in views] for views in frames]
        first = 25 * n
        assert told == [
            [(first + t * rows, v) for v in range(len(kind.views))] for t in range(count + 1)
        ]


def test_first_robot_has_names_rates_views_sizes_and_bounds(tmp_path: Path, version: str) -> None:
    for name, statistics in (("with", True), ("without", False)):
        root = make_robot_dataset(tmp_path / name, SMALL, version, (31, 38), statistics=statistics)
        proposal = propose_robot(root)
        robot = proposal.robot
        assert proposal.sure and proposal.to_check == ()
        assert robot.gripper_sense == "close_negative"  # as that of the shipped so101
        assert robot.name == "so101_follower" and robot.views == ("front", "wrist")
        assert robot.action_names == robot.pose_names == SO101.joints
        assert robot.image_size == (48, 192) and robot.control_mode == "joint_target"
        both = (actions_of, states_of)  # to hold still where one was measured is a command too
        values = np.concatenate(
            [of(SMALL, n, rows) for of in both for n, rows in ((0, 31), (1, 38))]
        )
        low, high = values.min(axis=0), values.max(axis=0)
        assert (np.asarray(robot.action_low) <= low + 1e-4).all()
        assert (np.asarray(robot.action_high) >= high - 1e-4).all()
        assert (np.asarray(robot.action_high) - robot.action_low <= 1.03 * (high - low)).all()


def test_what_had_to_be_guessed_is_told(tmp_path: Path) -> None:
    kind = replace(SMALL, joints=("a", "b", "grip"), robot_type="Own Arm!")
    proposal = propose_robot(make_robot_dataset(tmp_path / "d", kind, "v3.0", (31,)))
    assert proposal.sure and proposal.robot.name == "own-arm"
    assert "grip closes towards its higher bound is a guess" in proposal.to_check[0]
    kind = replace(kind, joints=("a", "b", "c"), names="none")
    proposal = propose_robot(make_robot_dataset(tmp_path / "e", kind, "v3.0", (31,)))
    assert proposal.robot.action_names == ("action_0", "action_1", "action_2")
    assert "no names" in proposal.to_check[0] and "gripper_index" in proposal.to_check[1]


def test_large_pictures_get_smaller_and_keep_their_shape(tmp_path: Path) -> None:
    root = make_robot_dataset(tmp_path / "d", SO101, "v3.0", (7,))
    assert propose_robot(root).robot.image_size == (240, 320)


def test_several_rows_are_one_step_of_a_slower_robot(small: Path) -> None:
    robot = replace(propose_robot(small).robot, control_hz=10.0, steps_per_frame=2)
    episode = LeRobotRobot(small, robot).episode("0")
    assert episode.frames == 6 and episode.clock.rows_per_step == 3
    # Of targets at rows 0, 1, 2 the last is where the step ends.
    assert np.array_equal(episode.steps()[0], actions_of(SMALL, 0, 31)[[2, 5]])


@pytest.mark.parametrize("control_hz", (7.0, 20.0, 60.0, 50.0))
def test_rates_that_do_not_fit_name_those_that_do(small: Path, control_hz: float) -> None:
    robot = replace(propose_robot(small).robot, control_hz=control_hz)
    with pytest.raises(DataError, match=r"30 rows per second.*control_hz may be 30, 15, 10"):
        LeRobotRobot(small, robot)


def test_relative_actions_are_not_gathered(small: Path) -> None:
    robot = replace(propose_robot(small).robot, control_mode="joint_delta")
    assert clock_of(30.0, robot, WHERE).rows_per_step == 1
    with pytest.raises(DataError, match="2 relative actions cannot become one"):
        clock_of(60.0, robot, WHERE)
    with pytest.raises(DataError, match="nothing of frames per second"):
        clock_of(None, robot, WHERE)


def test_names_may_stand_in_another_order_and_without_their_ending(small: Path) -> None:
    robot = propose_robot(small).robot
    turned = tuple(name.removesuffix(".pos") for name in reversed(robot.action_names))
    other = replace(robot, action_names=turned, pose_names=turned, gripper_index=(0,))
    episode = LeRobotRobot(small, other).episode("1")
    straight = LeRobotRobot(small, robot).episode("1")
    assert np.array_equal(episode.steps(), straight.steps()[..., ::-1])


def test_what_a_robot_wants_and_the_dataset_lacks_is_named(small: Path) -> None:
    robot = propose_robot(small).robot
    camera = replace(robot.cameras[0], name="top")
    with pytest.raises(DataError, match=r"view 'top'.*none of its views.*images\.front"):
        LeRobotRobot(small, replace(robot, cameras=(camera,)))
    names = ("a", *robot.action_names[1:])
    with pytest.raises(DataError, match=r"no column of actions.*shoulder_pan\.pos"):
        LeRobotRobot(small, replace(robot, action_names=names))
    with pytest.raises(DataError, match="do not say where it is"):
        LeRobotRobot(small, replace(robot, pose_names=names, control_mode="joint_delta"))


def test_key_map_says_odd_spellings(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(
        json.dumps(
            {
                "views": {"top": "observation.images.wrist"},
                "names": {"pan": "shoulder_pan.pos"},
                "fps": 30,
            }
        )
    )
    robot: RobotSpec = propose_robot(small).robot
    names = ("pan", *robot.action_names[1:])
    robot = replace(
        robot,
        action_names=names,
        pose_names=names,
        cameras=(replace(robot.cameras[0], name="top"),),
    )
    episode = LeRobotRobot(small, robot, key_map=path).episode("0")
    assert [seen(views[0])[1] for views in episode.images(SIZE)] == [1] * 6
    assert names == propose_robot(small, read_spelling(path)).robot.action_names
    for text, said in (
        ('{"gripper": 1}', "expected only"),
        ('{"fps": 0}', "rows per second"),
        ('{"views": ["a"]}', "views"),
        ("[", "JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_spelling(path)


def test_actions_that_are_no_targets_are_left_to_the_user(tmp_path: Path) -> None:
    root = make_robot_dataset(tmp_path / "d", SMALL, "v3.0", (31,))
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    for end in ("min", "max"):
        stats["action"][end] = [value / 100 for value in stats["action"][end]]
    path.write_text(json.dumps(stats))
    proposal = propose_robot(root)
    assert not proposal.sure and "may be relative" in proposal.to_check[0]


def test_recorded_values_outside_the_bounds_are_told_once_when_they_are_stored(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    robot = replace(propose_robot(small).robot, image_size=(16, 16))
    write_robot(replace(robot, action_high=(5.0, *robot.action_high[1:])), tmp_path / "tight.toml")
    write_robot(robot, tmp_path / "right.toml")
    for name, times in (("tight", 1), ("right", 0)):
        words = ["prepare", "--source", str(small), "--robot", str(tmp_path / f"{name}.toml")]
        assert main([*words, "--out", str(tmp_path / name), "--workers", "1"]) == 0
        assert capsys.readouterr().err.count("action 'shoulder_pan.pos' goes from") == times


def test_a_first_robot_has_the_size_that_was_asked_for(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    words = ["prepare", "--source", str(small), "--image-size", "16", "32", "--workers", "1"]
    assert main([*words, "--out", str(out)]) == 0
    assert read_robot(out / "robot.toml") == robot_of_store(EpisodeStore.open(out))


def test_a_view_of_an_odd_name_is_told_how_to_be_named(small: Path, tmp_path: Path) -> None:
    robot = propose_robot(small).robot
    camera = replace(robot.cameras[0], name="shoulder left")
    with pytest.raises(ConfigError, match="'shoulder left': use letters.*in the robot's file, and"):
        open_rollouts(tmp_path / "out", replace(robot, cameras=(camera,)))


@pytest.mark.parametrize(
    "names",
    (
        ["a", "b"],
        [["a", "b"]],
        {"motors": ["a", "b"]},
        {"axes": ["a"], "grip": ["b"]},
        {"b": 1, "a": 0},
    ),
)
def test_names_of_numbers_in_all_their_forms(names: object) -> None:
    assert names_of({"shape": [2], "names": names}) == ("a", "b")


@pytest.mark.parametrize("names", (None, ["a"], ["a", "a"], [1, 2], {"motors": None}, "ab", []))
def test_names_that_do_not_fit_are_none(names: object) -> None:
    assert names_of({"shape": [2], "names": names}) is None


def test_depth_maps_are_no_views(small: Path) -> None:
    features = json.loads((small / "meta/info.json").read_text())["features"]
    features["observation.images.front"]["info"] = {"video.is_depth_map": True}
    robot = propose_robot(small).robot
    with pytest.raises(DataError, match="view 'front'"):
        columns_of(features, robot, Spelling(), WHERE)
