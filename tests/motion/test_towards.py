"""Poses become actions that lead there, for every kind of robot."""

import numpy as np
import pytest

from worldeval.errors import MismatchError
from worldeval.motion import panda
from worldeval.motion.adapters import adapter_for
from worldeval.motion.towards import actions_towards
from worldeval.robots import RobotSpec
from worldeval.worlds.sawyer import ROBOT as SAWYER

READY = np.array([0.0, -0.3, 0.1, -2.0, 0.05, 1.9, 0.7], np.float32)


@pytest.mark.parametrize("space", ["absolute_pose", "delta_pose", "joint_position"])
def test_a_panda_comes_where_it_is_sent(space: str) -> None:
    robot = panda.panda(space)
    pose = np.concatenate([panda.forward_pose(READY), [0.2]]).astype(np.float32)
    targets = np.repeat(pose[None], 4, 0)
    targets[:, 0] += np.linspace(0.005, 0.02, 4)
    targets[:, 5] += np.linspace(0.01, 0.04, 4)
    targets[:, 6] = 0.7
    actions = actions_towards(robot, pose, READY, targets)
    assert actions.shape == (12, robot.action_dim)
    reached, _ = adapter_for(robot).advance(pose[None], READY[None], actions[None])
    assert reached[0] == pytest.approx(targets, abs=2e-3)


def test_a_panda_moved_by_velocities_comes_near() -> None:
    robot = panda.panda("joint_velocity")
    pose = np.concatenate([panda.forward_pose(READY), [0.2]]).astype(np.float32)
    targets = np.repeat(pose[None], 4, 0)
    targets[:, 1] += np.linspace(0.005, 0.02, 4)
    actions = actions_towards(robot, pose, READY, targets)
    reached, _ = adapter_for(robot).advance(pose[None], READY[None], actions[None])
    assert reached[0, :, :3] == pytest.approx(targets[:, :3], abs=2e-3)
    with pytest.raises(MismatchError, match="joints .*not known"):
        actions_towards(robot, pose, None, targets)


@pytest.mark.parametrize("motion", ["joint_target", "joint_delta"])
def test_plain_joints_come_where_they_are_sent(motion: str) -> None:
    names = ("shoulder.pos", "elbow.pos", "gripper.pos")
    robot = RobotSpec(
        name="arm",
        action_space=motion,
        action_names=names,
        action_low=(-3.0,) * 3,
        action_high=(3.0,) * 3,
        pose_names=names,
        pose_low=(-3.0,) * 3,
        pose_high=(3.0,) * 3,
        action_scale_m=1.0,
        control_hz=10,
        steps_per_frame=2,
        frames_per_chunk=3,
        image_size=(16, 16),
        cameras=(),
        control_mode=motion,
    )
    targets = np.array([[0.1, 0.2, 1.0], [0.2, 0.1, 1.0], [0.2, 0.0, -1.0]])
    actions = actions_towards(robot, np.zeros(3), None, targets)
    reached, _ = adapter_for(robot).advance(np.zeros((1, 3)), None, actions[None])
    assert reached[0] == pytest.approx(targets, abs=1e-6)


def test_meta_world_stops_at_its_bounds_and_moves_as_fast_as_it_can() -> None:
    pose = np.array([0.49, 0.6, 0.2, -1.0])
    targets = np.repeat([[0.6, 0.9, 0.2, 1.0]], 4, 0)
    actions = actions_towards(SAWYER, pose, None, targets)
    reached = SAWYER.integrate(pose, actions)
    assert reached[-1] == pytest.approx([0.5, 0.72, 0.2, 1.0], abs=1e-5)
