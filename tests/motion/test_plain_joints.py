"""Joint targets need no kinematics: any number of joints, grippers anywhere, two arms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.motion.adapters import adapter_for
from worldeval.motion.rotations import euler_from_matrix, matrix_from_rotation_vector
from worldeval.robots import read_robot


@pytest.mark.parametrize("name", ["so101", "aloha"])
def test_a_target_is_the_pose_at_each_frame(name: str) -> None:
    robot = read_robot(name)
    rng = np.random.default_rng(0)
    shape = (2, robot.chunk_steps, robot.action_dim)
    actions = rng.uniform(robot.action_low, robot.action_high, shape)
    poses, joints = adapter_for(robot).advance(np.zeros((2, robot.pose_dim)), None, actions)
    steps = robot.steps_per_frame
    np.testing.assert_allclose(poses, actions[:, steps - 1 :: steps], rtol=1e-6)
    assert joints is None


def test_relative_targets_add_up_and_grippers_are_told() -> None:
    robot = replace(read_robot("so101"), control_mode="joint_delta", steps_per_frame=2)
    start = np.array([[10.0, 0, 0, 0, 95.0, 50.0]])
    actions = np.tile([[[1.0, -2.0, 0, 0, 4.0, 20.0]]], (1, 4, 1))
    poses, _ = adapter_for(robot).advance(start, None, actions)
    # The wrist stops at 100; the gripper goes where it is told.
    np.testing.assert_allclose(poses[0], [[12, -4, 0, 0, 100, 20], [14, -8, 0, 0, 100, 20]])


def test_a_relative_turn_of_libero_is_axis_times_angle_in_its_scale() -> None:
    robot = replace(read_robot("libero-panda"), steps_per_frame=1)
    action = np.array([[[1.0, 0, -1, 0.6, -0.4, 0.2, 1.0]]])
    poses, _ = adapter_for(robot).advance(np.zeros((1, 7)), None, action)
    turn = euler_from_matrix(matrix_from_rotation_vector(0.5 * action[0, 0, 3:6]))
    np.testing.assert_allclose(poses[0, 0], [0.05, 0, -0.05, *turn, 1.0], atol=1e-6)


def test_two_arms_move_as_each_does_alone() -> None:
    one = read_robot("bridge-widowx")
    names = {
        what: tuple(f"{side}_{n}" for side in ("left", "right") for n in getattr(one, what))
        for what in ("action_names", "pose_names")
    }
    bounds = {
        what: getattr(one, what) * 2
        for what in ("action_low", "action_high", "pose_low", "pose_high")
    }
    two = replace(one, **names, **bounds, gripper_index=(6, 13))
    rng = np.random.default_rng(1)
    pose, actions = rng.uniform(-0.3, 0.3, (2, 14)), rng.uniform(-0.1, 0.1, (2, 4, 14))
    both, _ = adapter_for(two).advance(pose, None, actions)
    for arm in (slice(0, 7), slice(7, 14)):
        alone, _ = adapter_for(one).advance(pose[:, arm], None, actions[..., arm])
        np.testing.assert_array_equal(both[..., arm], alone)


def test_a_limit_of_the_gripper_is_for_hands_only() -> None:
    with pytest.raises(ConfigError, match="gripper has no limit"):
        adapter_for(read_robot("aloha"), gripper_most=0.8)
