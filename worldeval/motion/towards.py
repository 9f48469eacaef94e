"""The way back from poses to actions: what to command so that the hand follows given poses.

Enters: a robot, where it is, and the poses (T, P) to be at after each frame. Leaves: actions
(T * S, A) within the robot's bounds, whose poses (``adapters``) are the given ones as far as the
robot can: a hand that is told to move faster than it moves stays behind, and catches up when told
less.
"""

from __future__ import annotations

import numpy as np

from worldeval.errors import MismatchError
from worldeval.motion import panda
from worldeval.motion.adapters import VELOCITY_STEP_RAD
from worldeval.motion.rotations import (
    angle_difference,
    euler_from_matrix,
    matrix_from_euler,
    matrix_from_rotation_vector,
    rotation_vector,
)
from worldeval.robots import RobotSpec


def actions_towards(
    robot: RobotSpec, pose: np.ndarray, joints: np.ndarray | None, targets: np.ndarray
) -> np.ndarray:
    """Actions (T * S, A) float32 that lead from ``pose`` (P,) along ``targets`` (T, P).

    joints: (J,) where the robot is at; needed where its actions are a Panda's joints.
    """
    targets = np.asarray(targets, np.float64)
    if targets.ndim != 2 or targets.shape[1] != robot.pose_dim or not len(targets):
        raise MismatchError(
            f"poses have shape {targets.shape}, expected (frames, {robot.pose_dim}) for robot "
            f"{robot.name!r}: {', '.join(robot.pose_names)}"
        )
    if not np.isfinite(targets).all():
        raise MismatchError("poses are not finite, expected numbers in metres and radians")
    steps = robot.steps_per_frame
    low, high = np.asarray(robot.action_low), np.asarray(robot.action_high)
    current = np.asarray(pose, np.float64)
    angles = None if joints is None else np.asarray(joints, np.float64)
    made = []
    for target in targets:
        block, reached, angles = _frame(robot, current, angles, target, steps)
        made.append(np.clip(block, low, high))
        if robot.control_mode == "delta_position":  # where it really is, if that was too far
            reached = robot.integrate(current, made[-1])[-1].astype(np.float64)
        current = reached
    return np.concatenate(made).astype(np.float32)


def _frame(
    robot: RobotSpec,
    pose: np.ndarray,
    joints: np.ndarray | None,
    target: np.ndarray,
    steps: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Actions (S, A) of one frame, and the pose and joints after it."""
    share = np.arange(1, steps + 1)[:, None] / steps
    if robot.control_mode == "delta_position":
        block = np.repeat(target[None], steps, 0)
        block[:, :-1] = (target - pose)[:-1] / (steps * robot.action_scale_m)
        return block, target, None
    if robot.control_mode in ("joint_target", "joint_delta"):
        change = target - pose
        block = pose + share * change
        if robot.control_mode == "joint_delta":
            block = np.repeat(change[None] / steps, steps, 0)
        grippers = list(robot.gripper_axes)
        block[:, grippers] = target[grippers]
        return block, target, joints
    if robot.control_mode in ("absolute_pose", "delta_pose"):
        parts = [
            _arm(robot, a, b, share)
            for a, b in zip(pose.reshape(-1, 7), target.reshape(-1, 7), strict=True)
        ]
        return np.concatenate(parts, 1), target, joints
    if joints is None:
        raise MismatchError(
            f"robot {robot.name!r} is moved by its joints ({robot.control_mode}), which are not "
            "known here; use a store that has them, or another action space"
        )
    reached = panda.joints_for_pose(target[:6], joints)
    if robot.control_mode == "joint_position":
        block = joints + share * (reached - joints)
    else:
        block = np.repeat((reached - joints)[None] / (steps * VELOCITY_STEP_RAD), steps, 0)
    return np.concatenate([block, np.full((steps, 1), target[-1])], 1), target, reached


def _arm(robot: RobotSpec, pose: np.ndarray, target: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Of one arm: x y z roll pitch yaw gripper, where to be or by how much."""
    steps = len(share)
    grip = np.full((steps, 1), target[-1])
    if robot.control_mode == "absolute_pose":
        place = pose[:3] + share * (target - pose)[:3]
        turn = pose[3:6] + share * angle_difference(target[3:6], pose[3:6])
        turn[-1] = target[3:6]
        return np.concatenate([place, turn, grip], 1)
    between = matrix_from_euler(target[3:6]) @ matrix_from_euler(pose[3:6]).T
    vector = rotation_vector(between) / steps
    if robot.rotation == "euler":
        vector = euler_from_matrix(matrix_from_rotation_vector(vector))
    move = np.concatenate(
        [(target - pose)[:3] / (steps * robot.action_scale_m), vector / robot.action_scale_rad]
    )
    return np.concatenate([np.repeat(move[None], steps, 0), grip], 1)
