"""A robot is a file: every profile is read, equals what it stands for, and comes back from disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldeval.errors import ConfigError
from worldeval.motion import panda
from worldeval.robots import (
    NAMES,
    CameraSpec,
    RobotSpec,
    read_robot,
    robot_as_json,
    robot_from_json,
    write_robot,
)
from worldeval.worlds.named import as_asked
from worldeval.worlds.sawyer import ROBOT

OWN = replace(ROBOT, name="own", frames_per_chunk=2)


def make() -> RobotSpec:
    return OWN


def test_the_profiles_of_robots_in_code_equal_them() -> None:
    assert read_robot("metaworld-sawyer") == ROBOT
    assert read_robot("droid-panda") == panda.panda()


def test_the_profiles_have_the_rates_views_and_grippers_of_their_data() -> None:
    found = {
        name: (
            r.action_dim,
            r.control_hz,
            len(r.views),
            r.image_size,
            r.gripper_axes,
            r.control_mode,
        )
        for name in NAMES
        if (r := read_robot(name))
    }
    assert found == {
        "aloha": (14, 50.0, 4, (480, 640), (6, 13), "joint_target"),
        "bridge-widowx": (7, 5.0, 2, (256, 256), (6,), "delta_pose"),
        "droid-panda": (8, 15.0, 3, (192, 320), (7,), "joint_velocity"),
        "fetch": (4, 25.0, 3, (64, 64), (3,), "delta_position"),
        "libero-panda": (7, 20.0, 2, (256, 256), (6,), "delta_pose"),
        "metaworld-sawyer": (4, 30.0, 3, (64, 64), (3,), "delta_position"),
        "so101": (6, 30.0, 2, (480, 640), (5,), "joint_target"),
    }


def test_a_file_that_calls_the_control_mode_motion_is_read_as_before(tmp_path: Path) -> None:
    path, arm = tmp_path / "arm.toml", read_robot("so101")
    write_robot(arm, path)
    path.write_text(path.read_text().replace("control_mode =", "motion ="))
    assert read_robot(path) == arm and arm.motion == "joint_target"
    kept = robot_as_json(arm)
    kept["motion"] = kept.pop("control_mode")
    assert robot_from_json(kept) == arm
    with pytest.raises(ConfigError, match="earlier name of control_mode"):
        robot_from_json({**kept, "control_mode": "joint_target"})


def test_open_and_closed_are_the_bounds_of_the_gripper_wherever_it_stands() -> None:
    aloha = read_robot("aloha")
    first = replace(aloha, gripper_index=(0,))
    assert (aloha.grippers_open, aloha.grippers_closed) == ((1.0, 1.0), (0.0, 0.0))
    assert first.grippers_open == (first.action_high[0],)
    assert first.grippers_closed == (first.action_low[0],)


@pytest.mark.parametrize("name", NAMES)
def test_a_robot_comes_back_from_its_file_and_from_json(name: str, tmp_path: Path) -> None:
    robot = read_robot(name)
    write_robot(robot, tmp_path / "mine.toml")
    assert read_robot(tmp_path / "mine.toml") == robot
    assert robot_from_json(json.loads(json.dumps(robot_as_json(robot)))) == robot


@given(name=st.text(st.characters(exclude_categories=["Cs"])), size=st.floats(1e-300, 1e300))
def test_odd_names_and_numbers_come_back(name: str, size: float, tmp_path_factory) -> None:
    file = tmp_path_factory.mktemp("robot") / "odd.toml"
    camera = CameraSpec(name=name, mount="uncalibrated")
    robot = replace(ROBOT, name=name, cameras=(camera,), action_scale_m=size)
    write_robot(robot, file)
    assert read_robot(file) == robot


def test_a_robot_is_a_value_or_a_function_of_a_module(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert read_robot("test_robot_files:OWN") == read_robot("test_robot_files:make") == OWN
    assert read_robot(OWN) is OWN


def test_what_is_no_robot_ends_in_a_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(ConfigError, match="no robot 'so110', did you mean 'so101'"):
        read_robot("so110")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_robot(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="has no 'OWM', did you mean 'OWN'"):
        read_robot("test_robot_files:OWM")
    with pytest.raises(ConfigError, match="'math:pi' is a float, expected"):
        read_robot("math:pi")
    with pytest.raises(ConfigError, match=r"'no_such_module' cannot be imported"):
        read_robot("no_such_module:ROBOT")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("control_hz = 30.0", "control_hz = 0.0", "control_hz is 0.0"),
        ("control_hz = 30.0", 'control_hz = "fast"', "control_hz is 'fast', expected a finite"),
        ("control_hz", "controll_hz", "did you mean 'control_hz'"),
        ("[5]", "[6]", "gripper_index has 6, expected 0 to 5"),
        ("image_size = [480, 640]", "image_size = [480]", "image_size is"),
        ('"up"', '"side"', "'side' twice"),
        ('control_mode = "joint_target"', 'control_mode = "joint_targets"', "expected one of"),
        (
            'control_mode = "joint_target"',
            'control_mode = "joint_position"',
            "it is 'joint_target'",
        ),
        ('name = "so101"', "name = ", "is no TOML"),
    ],
)
def test_a_wrong_field_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    write_robot(read_robot("so101"), file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_robot(file)


def test_bounds_of_the_profiles_are_ordered() -> None:
    for name in NAMES:
        robot = read_robot(name)
        assert (np.array(robot.pose_low) < robot.pose_high).all()


def test_a_panda_of_ones_own_is_commanded_in_every_space_of_pandas() -> None:
    joints = tuple(f"arm_{i}" for i in range(7))
    mine = replace(
        panda.DROID,
        name="mine",
        joint_names=joints,
        action_names=("claw", *(f"{joint}_velocity" for joint in joints)),
        action_low=(0.0, *(-1.0,) * 7),
        action_high=(80.0, *(1.0,) * 7),
        gripper_index=(0,),
        gripper_sense="close_negative",
    )
    placed = as_asked(mine, action_space="joint_position")
    assert placed.action_names == (*(f"{joint}_rad" for joint in joints), "claw")
    assert (placed.gripper_axes, placed.grippers_closed) == ((7,), (0.0,))
    moved = as_asked(placed, action_space="delta_pose", steps_per_frame=2)
    assert moved.action_names[0] == "delta_hand_x_m" and moved.gripper_axes == moved.pose_grippers
    assert (moved.name, moved.steps_per_frame, moved.joint_names) == ("mine", 2, joints)
    with pytest.raises(ConfigError, match="'so101' has action_space 'joint_target'"):
        as_asked(read_robot("so101"), action_space="delta_pose")
