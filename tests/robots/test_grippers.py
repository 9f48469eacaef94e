"""Grippers are found by their place and sense, wherever they stand, however many there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.imagination.trust.inverse_dynamics import pose_difference
from worldeval.motion import panda
from worldeval.motion.adapters import adapter_for
from worldeval.policies.checking import states
from worldeval.policies.keyboard import KeyboardPolicy
from worldeval.policies.scripted import RandomPolicy, ZeroPolicy
from worldeval.robots import RobotSpec, read_robot
from worldeval.types import Observation
from worldeval.world_model.conditioning import PoseParts, WorkspaceFrame, geometry_maps
from worldeval.world_model.memory import PoseRetrieval, strategy

SAWYER = read_robot("metaworld-sawyer")
WIDOWX = read_robot("bridge-widowx")


def ordered(robot: RobotSpec, places: list[int], **changes: object) -> RobotSpec:
    """``robot`` with its actions and pose in another order; a number that is left out is gone."""

    def picked(values: tuple) -> tuple:
        return tuple(values[i] for i in places)

    same = robot.pose_dim == robot.action_dim
    poses = ("pose_names", "pose_low", "pose_high") if same else ()
    names = ("action_names", "action_low", "action_high", *poses)
    fields = {name: picked(getattr(robot, name)) for name in names}
    was = robot.gripper_axes
    fields["gripper_index"] = tuple(i for i, place in enumerate(places) if place in was)
    return replace(robot, **{**fields, **changes})


FIRST = [3, 0, 1, 2]


def actions(robot: RobotSpec, steps: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    low, high = np.array(robot.action_low), np.array(robot.action_high)
    return rng.uniform(low, high, (2, steps, robot.action_dim)).astype(np.float32)


@pytest.mark.parametrize("places", [FIRST, [0, 3, 1, 2], [0, 1, 2]])
def test_hands_go_the_same_way_wherever_the_gripper_stands(places: list[int]) -> None:
    other = ordered(SAWYER, places)
    given = actions(SAWYER)
    start = np.array([[0.1, 0.6, 0.2, -1.0]] * 2, np.float32)
    wanted, _ = adapter_for(SAWYER).advance(start, None, given)
    found, _ = adapter_for(other).advance(start[:, places], None, given[..., places])
    np.testing.assert_array_equal(found, wanted[..., places])


@pytest.mark.parametrize("space", ["absolute_pose", "delta_pose"])
@pytest.mark.parametrize("places", [[6, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]])
def test_hands_that_turn_too(space: str, places: list[int]) -> None:
    robot = replace(panda.panda(space), joint_names=())
    other = ordered(robot, places)
    given = actions(robot)
    start = np.array([[0.5, 0.1, 0.3, 0.2, -0.4, 1.0, 0.0]] * 2, np.float32)
    wanted, _ = adapter_for(robot).advance(start, None, given)
    found, _ = adapter_for(other).advance(start[:, places], None, given[..., places])
    np.testing.assert_array_equal(found, wanted[..., places])


def test_two_arms_with_their_grippers_at_the_end() -> None:
    one = replace(panda.panda("delta_pose"), joint_names=())
    both = {
        name: getattr(one, name) + getattr(one, name)
        for name in ("action_low", "action_high", "pose_low", "pose_high")
    }
    for name in ("action_names", "pose_names"):
        both[name] = tuple(f"{side}_{n}" for side in ("left", "right") for n in getattr(one, name))
    two = replace(one, **both)
    places = [*range(6), *range(7, 13), 6, 13]
    apart = ordered(two, places)
    given, start = actions(two), np.zeros((2, 14), np.float32)
    wanted, _ = adapter_for(two).advance(start, None, given)
    found, _ = adapter_for(apart).advance(start[:, places], None, given[..., places])
    np.testing.assert_array_equal(found, wanted[..., places])


@pytest.mark.parametrize("space", ["joint_position", "joint_velocity"])
@pytest.mark.parametrize("places", [[7, *range(7)], [*range(7)]])
def test_joints_of_an_arm_whose_gripper_comes_first_or_is_none(
    space: str, places: list[int]
) -> None:
    robot = panda.panda(space)
    other = ordered(robot, places)
    if len(places) == 7:
        parts = {n: getattr(robot, n)[:6] for n in ("pose_names", "pose_low", "pose_high")}
        other = replace(other, **parts)
    given = actions(robot)
    joints = np.array([[0, 0, 0, -1.5, 0, 1.5, 0]] * 2, np.float32)
    pose = np.zeros((2, 7), np.float32)
    wanted, turned = adapter_for(robot).advance(pose, joints, given)
    found, also = adapter_for(other).advance(pose, joints, given[..., places])
    np.testing.assert_array_equal(found, wanted[..., : other.pose_dim])
    np.testing.assert_array_equal(also, turned)
    shown = states(other, found[0, 0], joints[0])
    assert shown["gripper_position"].shape == (len(other.gripper_axes),)
    np.testing.assert_array_equal(shown["cartesian_position"], found[0, 0, :6])


def test_how_far_a_gripper_closes_has_its_sense() -> None:
    opens_upwards = replace(panda.panda("absolute_pose"), gripper_sense="close_negative")
    pose = np.zeros((1, 7), np.float32)
    given = np.zeros((1, 3, 7), np.float32)
    limited, _ = adapter_for(opens_upwards, gripper_most=0.25).advance(pose, None, given)
    assert limited[0, 0, -1] == 0.25
    with pytest.raises(ConfigError, match="other than 1, where it is open"):
        adapter_for(opens_upwards, gripper_most=1.0)
    none = ordered(panda.panda("absolute_pose"), [0, 1, 2, 3, 4, 5])
    with pytest.raises(ConfigError, match="has no gripper; leave it out"):
        adapter_for(none, gripper_most=0.5)


def test_numbers_that_are_neither_hand_nor_gripper_are_named() -> None:
    with pytest.raises(ConfigError, match="name grippers by gripper_index"):
        adapter_for(replace(WIDOWX, gripper_index=()))
    with pytest.raises(ConfigError, match="expected each place once"):
        replace(WIDOWX, gripper_index=(6, 6))


def test_memory_weighs_each_gripper_less() -> None:
    aloha = read_robot("aloha")
    found = strategy("pose", aloha)
    assert isinstance(found, PoseRetrieval) and found.grippers == (6, 13)
    past = np.zeros((20, 2))
    past[5, 0], past[10, 1] = 1.0, 1.0  # a gripper as it was, and a hand where it was
    future = np.ones((1, 2))
    near = PoseRetrieval(grippers=(0,))
    assert near(past, future, 3) == [0, 10, 15]
    assert PoseRetrieval(grippers=(1,))(past, future, 3) == [0, 5, 15]


def test_geometry_maps_show_the_hand_and_how_far_it_is_closed() -> None:
    poses = np.array([[0.1, 0.6, 0.2, 0.5]], np.float32)
    frame = WorkspaceFrame.of(SAWYER)
    wanted = geometry_maps(poses, SAWYER.cameras, (8, 8), frame)
    np.testing.assert_array_equal(
        geometry_maps(poses, SAWYER.cameras, (8, 8), frame, PoseParts.of(SAWYER)), wanted
    )
    first = ordered(SAWYER, FIRST)
    found = geometry_maps(poses[:, FIRST], SAWYER.cameras, (8, 8), frame, PoseParts.of(first))
    np.testing.assert_array_equal(found, wanted)
    bounds = {"action_low": (-1, -1, -1, 0), "action_high": (1, 1, 1, 100)}
    percent = replace(SAWYER, **bounds, gripper_sense="close_negative")
    turned = np.array([[0.1, 0.6, 0.2, 25.0]], np.float32)  # a quarter open: half closed, of -1..1
    parts = PoseParts.of(percent)
    np.testing.assert_array_equal(
        geometry_maps(turned, SAWYER.cameras, (8, 8), frame, parts), wanted
    )
    none = PoseParts.of(ordered(SAWYER, [0, 1, 2]))
    maps = geometry_maps(poses[:, :3], SAWYER.cameras, (8, 8), frame, none)
    np.testing.assert_array_equal(maps[:, :, 0], wanted[:, :, 0])
    assert not maps[:, :, 1].any()


def test_the_table_of_one_robot_is_never_shown_for_another() -> None:
    with pytest.raises(ConfigError, match="'bridge-widowx' names no workspace_m"):
        WorkspaceFrame.of(WIDOWX)


def seen(pose: np.ndarray) -> Observation:
    state = {"pose": pose.astype(np.float32)}
    return Observation(images={}, state=state, instruction="", rollout_id="a", step=0)


def test_keys_move_the_hand_and_the_gripper_wherever_they_stand() -> None:
    robot = ordered(SAWYER, FIRST)
    blind = Observation(images={}, state={}, instruction="", rollout_id="a", step=0)
    chunk = KeyboardPolicy(robot, keys="f").act([blind])[0]
    np.testing.assert_allclose(chunk[0], [-1, 0, 0.5, 0])
    closed = KeyboardPolicy(robot, keys="c").act([blind])[0]
    np.testing.assert_allclose(closed[0], [1, 0, 0, 0])
    none = ordered(SAWYER, [0, 1, 2])
    np.testing.assert_allclose(
        KeyboardPolicy(none, keys="f").act([seen(np.zeros(3))])[0][0], [0, 0.5, 0]
    )
    with pytest.raises(ConfigError, match="key 'c' is for a gripper, which robot"):
        KeyboardPolicy(none, keys="c")


def test_keys_move_a_hand_as_far_whatever_the_unit_of_its_actions() -> None:
    libero = read_robot("libero-panda")
    chunk = KeyboardPolicy(libero, keys="f").act([seen(np.zeros(7))])[0]
    moved = chunk[: libero.steps_per_frame, 0].sum() * libero.action_scale_m
    assert moved == pytest.approx(0.02)


def test_policies_without_eyes_open_every_gripper_and_no_other_axis() -> None:
    first, none = ordered(SAWYER, FIRST), ordered(SAWYER, [0, 1, 2])
    assert ZeroPolicy(first).act([seen(np.zeros(4))])[0, 0].tolist() == [-1, 0, 0, 0]
    assert ZeroPolicy(none).act([seen(np.zeros(3))])[0, 0].tolist() == [0, 0, 0]
    for robot in (first, none):
        policy = RandomPolicy(robot)
        policy.reset(["a"], [""], [0])
        chunk = policy.act([seen(np.zeros(robot.pose_dim))])[0]
        whole = (np.abs(chunk) == 1).all(0).tolist()
        assert whole == [i in robot.gripper_axes for i in range(robot.action_dim)]


def test_a_panda_holds_still_with_its_gripper_first() -> None:
    robot = ordered(panda.panda("joint_position"), [7, *range(7)])
    joints, grip = np.arange(7, dtype=np.float32), np.array([0.5], np.float32)
    state = {"joint_position": joints, "gripper_position": grip}
    given = Observation(images={}, state=state, instruction="", rollout_id="a", step=0)
    assert ZeroPolicy(robot).act([given])[0, 0].tolist() == [0.5, 0, 1, 2, 3, 4, 5, 6]


def test_what_joints_cannot_do_has_a_remedy_that_works_for_them() -> None:
    with pytest.raises(ConfigError, match="so it has no keys"):
        KeyboardPolicy(read_robot("so101"), keys="f")
    with pytest.raises(ConfigError, match="replay-shuffled:STORE"):
        RandomPolicy(read_robot("so101"))
    with pytest.raises(ConfigError, match="--action-space absolute_pose"):
        KeyboardPolicy(panda.panda("joint_position"), keys="f")


def test_a_joint_called_roll_is_no_angle_in_radians() -> None:
    robot = read_robot("so101")
    assert robot.angles == () and robot.hands == ()
    turned = pose_difference(np.full((1, 6), 90.0), np.zeros((1, 6)), robot.pose_names)
    assert (turned == 90).all()
    names = ("hand_x_m", "wrist_roll_rad", "arm_pitch_rad", "hand_yaw_rad", "b", "c")
    assert replace(robot, pose_names=names).angles == ()
