"""What each adapter makes of a chunk, checked by hand-made motions."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldeval.errors import ConfigError, MismatchError
from worldeval.motion import panda
from worldeval.motion.adapters import VELOCITY_STEP_RAD, adapter_for, command
from worldeval.worlds.sawyer import ROBOT as SAWYER

READY = np.array([[0.0, -0.3, 0.1, -2.0, 0.05, 1.9, 0.7], [0.4, 0.1, -0.2, -2.4, 0.1, 2.2, -0.5]])
POSE = np.concatenate([panda.forward_pose(READY), [[0.0], [0.5]]], -1).astype(np.float32)


def chunk(dim: int, steps: int = 6, seed: int = 0) -> np.ndarray:
    actions = np.random.default_rng(seed).uniform(-0.5, 0.5, (2, steps, dim))
    actions[..., -1] = np.linspace(0, 1, steps)
    return actions.astype(np.float32)


def test_meta_world_moves_as_before() -> None:
    start = np.tile((np.array(SAWYER.pose_low) + SAWYER.pose_high) / 2, (2, 1)).astype(np.float32)
    actions = chunk(4, SAWYER.chunk_steps)
    poses, joints = adapter_for(SAWYER).advance(start, None, actions)
    assert joints is None
    np.testing.assert_array_equal(poses, SAWYER.integrate(start, actions))


def test_absolute_poses_are_taken_as_they_are() -> None:
    robot = panda.panda("absolute_pose", steps_per_frame=3)
    actions = np.tile(POSE[:, None], (1, 6, 1))
    actions[:, 5, 3] = 3.1373725  # roll close to half a turn: not to be touched
    poses, joints = adapter_for(robot).advance(POSE, READY.astype(np.float32), actions)
    np.testing.assert_array_equal(poses, actions[:, 2::3])
    assert joints.shape == (2, 2, 7) and joints.dtype == np.float32
    reached = panda.forward_pose(joints)
    np.testing.assert_allclose(reached[:, 0], POSE[:, :6], atol=1e-5)
    np.testing.assert_allclose(joints[:, 0], READY, atol=1e-4)  # standing still turns no joint


def test_absolute_angles_beyond_half_a_turn_are_wrapped() -> None:
    robot = panda.panda("absolute_pose", steps_per_frame=1)
    actions = np.array([[[0.5, 0, 0.3, np.pi + 0.1, 0, 0, 0.2]]], np.float32)
    poses, joints = adapter_for(robot).advance(POSE[:1], None, actions)
    assert joints is None
    assert poses[0, 0, 3] == pytest.approx(-np.pi + 0.1, abs=1e-6)


def test_delta_poses_add_up_about_the_axes_of_the_base() -> None:
    robot = panda.panda("delta_pose", steps_per_frame=3)
    actions = np.zeros((1, 6, 7), np.float32)
    actions[0, :, 1] = 0.01
    actions[0, :, 5] = 0.02  # yaw about the base's z axis
    actions[0, :, 6] = 1.0
    poses, _ = adapter_for(robot).advance(POSE[:1], None, actions)
    np.testing.assert_allclose(
        poses[0, :, :3], POSE[0, :3] + [[0, 0.03, 0], [0, 0.06, 0]], atol=1e-6
    )
    before = Rotation.from_euler("xyz", POSE[0, 3:6])
    after = Rotation.from_euler("xyz", poses[0, :, 3:6])
    np.testing.assert_allclose((after * before.inv()).as_rotvec()[:, 2], [0.06, 0.12], atol=1e-6)
    assert (poses[0, :, 6] == 1).all()


def test_joint_positions_go_through_kinematics() -> None:
    robot = panda.panda("joint_position", steps_per_frame=2)
    actions = np.concatenate([READY[:, None] + chunk(7) * 0.1, chunk(8)[..., 7:]], -1)
    poses, joints = adapter_for(robot, gripper_most=0.75).advance(POSE, None, actions)
    np.testing.assert_allclose(joints, actions[:, 1::2, :7], atol=1e-6)
    np.testing.assert_allclose(poses[..., :6], panda.forward_pose(joints), atol=1e-6)
    np.testing.assert_allclose(poses[0, :, 6], [0.2, 0.6, 0.75], atol=1e-6)


def test_joint_velocities_are_integrated_and_stop_at_the_limits() -> None:
    robot = panda.panda("joint_velocity", steps_per_frame=3)
    actions = np.zeros((2, 15, 8), np.float32)
    actions[0, :, 0] = 0.5
    actions[1, :, 3] = -1.0  # 15 steps go beyond the limit of joint 4
    _, joints = adapter_for(robot).advance(POSE, READY.astype(np.float32), actions)
    steps = np.arange(3, 16, 3)
    np.testing.assert_allclose(joints[0, :, 0], 0.5 * VELOCITY_STEP_RAD * steps, atol=1e-6)
    np.testing.assert_allclose(
        joints[1, :, 3],
        np.maximum(READY[1, 3] - VELOCITY_STEP_RAD * steps, panda.JOINT_LOW_RAD[3]),
        atol=1e-6,
    )
    assert joints[1, -1, 3] == np.float32(panda.JOINT_LOW_RAD[3])


@pytest.mark.parametrize("space", panda.ACTION_SPACES)
def test_a_chunk_in_two_halves_comes_to_the_same_end(space: str) -> None:
    robot = panda.panda(space, steps_per_frame=3)
    if space == "absolute_pose":
        actions = np.tile(POSE[:, None], (1, 12, 1)) + chunk(7, 12) * 0.02
    elif space == "joint_position":
        actions = np.concatenate([READY[:, None] + chunk(7, 12) * 0.1, chunk(8, 12)[..., 7:]], -1)
    else:
        actions = chunk(robot.action_dim, 12) * (0.02 if space == "delta_pose" else 1)
    adapter = adapter_for(robot)
    start = (POSE[:, None], READY[:, None].astype(np.float32))
    whole = command(adapter, *start, actions.astype(np.float32))
    first = command(adapter, *start, actions[:, :6].astype(np.float32))
    second = command(adapter, first.poses, first.joints, actions[:, 6:].astype(np.float32))
    assert whole.poses.shape == (2, 4, 7) and whole.joints.shape == (2, 4, 7)
    np.testing.assert_allclose(second.poses, whole.poses[:, 2:], atol=2e-5)
    np.testing.assert_allclose(second.joints, whole.joints[:, 2:], atol=2e-5)


def test_a_batch_is_its_rows() -> None:
    robot = panda.panda("delta_pose", steps_per_frame=3)
    actions = chunk(7) * 0.02
    poses, joints = adapter_for(robot).advance(POSE, READY, actions)
    for i in range(2):
        alone, turned = adapter_for(robot).advance(
            POSE[i : i + 1], READY[i : i + 1], actions[i : i + 1]
        )
        np.testing.assert_allclose(alone[0], poses[i], atol=1e-6)
        np.testing.assert_allclose(turned[0], joints[i], atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    velocity, pose = panda.panda("joint_velocity"), panda.panda("absolute_pose")
    with pytest.raises(ConfigError, match="it is for 'joint_velocity'"):
        adapter_for(pose, "adapter.pth")
    with pytest.raises(ConfigError, match="gripper_most is 0"):
        adapter_for(pose, gripper_most=0)
    with pytest.raises(ConfigError, match="whose gripper has no limit"):
        adapter_for(SAWYER, gripper_most=0.8)
    with pytest.raises(ConfigError, match="the one arm whose kinematics are known"):
        adapter_for(dataclasses.replace(velocity, joint_names=("a", "b")))
    with pytest.raises(ConfigError, match="it has no joint_names"):
        dataclasses.replace(velocity, joint_names=())
    with pytest.raises(MismatchError, match="the world gave no joint positions"):
        adapter_for(velocity).advance(POSE, None, chunk(8))
    with pytest.raises(MismatchError, match="a chunk has 10 control steps"):
        adapter_for(velocity).advance(POSE, READY, chunk(8, 10))
