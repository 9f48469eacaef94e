"""Franka's Panda as DROID uses it: values, forward kinematics, and joints for a wanted pose.

Enters: joint positions (..., 7) in rad. Leaves: the pose of the flange (panda_link8) in the base
frame, as a matrix (..., 4, 4) or as x y z roll pitch yaw (..., 6): this is what DROID records as
``cartesian_position`` (no hand or finger offset, no turn by 45 degrees; measured on its episodes in
``benchmarks/README.md``). Kinematics are modified Denavit-Hartenberg (Craig), frame i seen from
frame i-1, with the numbers of Franka's documentation ("Robot and interface specifications")::

    T_i = Rx(alpha_i) Tx(a_i) Rz(q_i) Tz(d_i)

and the flange 0.107 m beyond the seventh joint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from worldeval.errors import ConfigError, MismatchError
from worldeval.motion.rotations import euler_from_matrix, matrix_from_euler, rotation_vector
from worldeval.robots import RobotSpec, read_robot

KINEMATICS = "panda"
"""Name of these kinematics in ``RobotSpec.kinematics``."""
DROID = read_robot("droid-panda")
"""DROID's Panda, seen by three cameras of unknown geometry. Its pose bounds are the 1st and 99th
percentiles of the poses of DROID as published with Ctrl-World."""
NAME, VIEWS, JOINTS, POSE_NAMES = DROID.name, DROID.views, DROID.joint_names, DROID.pose_names
POSE_LOW, POSE_HIGH = DROID.pose_low, DROID.pose_high

A_M = (0.0, 0.0, 0.0, 0.0825, -0.0825, 0.0, 0.088)
D_M = (0.333, 0.0, 0.316, 0.0, 0.384, 0.0, 0.0)
ALPHA_RAD = tuple(turn * np.pi / 2 for turn in (0, -1, 1, 1, -1, 1, 1))
FLANGE_M = 0.107

JOINT_LOW_RAD = (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973)
JOINT_HIGH_RAD = (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973)

_REACH_M = 1.5  # nothing that a Panda reaches is further away along any axis
_GRIPPER = ("gripper", 0.0, 1.0)
_TURNS = tuple((name, -np.pi, np.pi) for name in POSE_NAMES[3:6])
ACTION_SPACES: dict[str, tuple[tuple[str, float, float], ...]] = {
    "absolute_pose": (*((n, -_REACH_M, _REACH_M) for n in POSE_NAMES[:3]), *_TURNS, _GRIPPER),
    "delta_pose": (
        *((f"delta_{n}", -0.1, 0.1) for n in POSE_NAMES[:3]),
        *((f"delta_{n}", -0.5, 0.5) for n in POSE_NAMES[3:6]),
        _GRIPPER,
    ),
    "joint_position": (
        *(
            (f"{n}_rad", low, high)
            for n, low, high in zip(JOINTS, JOINT_LOW_RAD, JOINT_HIGH_RAD, strict=True)
        ),
        _GRIPPER,
    ),
    # DROID's and openpi's unit: a share of the largest command, not rad/s (see adapters.py)
    "joint_velocity": (*((f"{n}_velocity", -1.0, 1.0) for n in JOINTS), _GRIPPER),
}
"""Action space -> (name, lowest, highest) of each action."""


def panda(
    action_space: str = "joint_velocity",
    *,
    steps_per_frame: int = 3,
    frames_per_chunk: int = 4,
    image_size: tuple[int, int] = (192, 320),
    pose_low: Sequence[float] = POSE_LOW,
    pose_high: Sequence[float] = POSE_HIGH,
) -> RobotSpec:
    """DROID's Panda, controlled at 15 Hz.

    action_space: one of ``ACTION_SPACES``. steps_per_frame: 3 shows 5 frames per second, as DROID
    is prepared for Ctrl-World; its policies were run at 2 and, for fast tasks, 3. pose_low,
    pose_high: what a world model takes as -1 and 1: the percentiles with which it was trained.
    """
    return replace(
        commanded(DROID, action_space),
        steps_per_frame=steps_per_frame,
        frames_per_chunk=frames_per_chunk,
        image_size=image_size,
        pose_low=tuple(float(x) for x in pose_low),
        pose_high=tuple(float(x) for x in pose_high),
    )


def commanded(robot: RobotSpec, action_space: str) -> RobotSpec:
    """``robot``, an arm of these kinematics, commanded in another of ``ACTION_SPACES``.

    Its gripper, if any, keeps its name and bounds; its joints and its pose keep their names.
    """
    if action_space not in ACTION_SPACES:
        raise ConfigError(
            f"action space is {action_space!r}, expected one of {tuple(ACTION_SPACES)}"
        )
    if action_space == robot.action_space:
        return robot
    hand = (robot.pose_names[i] for i in robot.hands[0])
    own = dict(zip((*JOINTS, *POSE_NAMES[:6]), (*robot.joint_names, *hand), strict=True))
    actions = [
        (next(name.replace(usual, own[usual]) for usual in own if usual in name), low, high)
        for name, low, high in ACTION_SPACES[action_space][:-1]
    ]
    index: tuple[int, ...] | None = None if robot.gripper_index is None else ()
    if robot.gripper_axes:
        at = robot.gripper_axes[0]
        by_pose = action_space in ("absolute_pose", "delta_pose")
        place = robot.pose_grippers[0] if by_pose else len(actions)
        gripper = (robot.action_names[at], robot.action_low[at], robot.action_high[at])
        actions.insert(place, gripper)
        index = None if robot.gripper_index is None else (place,)
    names, low, high = zip(*actions, strict=True)
    return replace(
        robot,
        action_space=action_space,
        control_mode=action_space,
        action_names=names,
        action_low=low,
        action_high=high,
        gripper_index=index,
        action_scale_m=1.0,
        action_scale_rad=1.0,
        rotation="euler",
    )


def joint_frames(joints_rad: np.ndarray) -> np.ndarray:
    """Joints (..., 7) -> frames 1 to 7 and the flange in the base frame, (..., 8, 4, 4)."""
    q = np.asarray(joints_rad, np.float64)
    if q.shape[-1:] != (len(JOINTS),):
        raise MismatchError(f"joints have shape {q.shape}, expected (..., 7) for a Panda")
    cos, sin = np.cos(q), np.sin(q)
    at = np.broadcast_to(np.eye(4), (*q.shape[:-1], 4, 4))
    frames = []
    for i, (a, d, alpha) in enumerate(zip(A_M, D_M, ALPHA_RAD, strict=True)):
        ca, sa = np.cos(alpha), np.sin(alpha)
        step = np.zeros((*q.shape[:-1], 4, 4))
        c, s = cos[..., i], sin[..., i]
        step[..., 0, 0], step[..., 0, 1], step[..., 0, 3] = c, -s, a
        step[..., 1, 0], step[..., 1, 1] = s * ca, c * ca
        step[..., 1, 2], step[..., 1, 3] = -sa, -sa * d
        step[..., 2, 0], step[..., 2, 1] = s * sa, c * sa
        step[..., 2, 2], step[..., 2, 3] = ca, ca * d
        step[..., 3, 3] = 1
        at = at @ step
        frames.append(at)
    flange = np.eye(4)
    flange[2, 3] = FLANGE_M
    return np.stack([*frames, at @ flange], axis=-3)


def forward(joints_rad: np.ndarray) -> np.ndarray:
    """Joints (..., 7) -> pose of the flange as a matrix (..., 4, 4)."""
    return joint_frames(joints_rad)[..., -1, :, :]


def pose_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """(..., 4, 4) -> x y z (m) roll pitch yaw (rad), (..., 6)."""
    matrix = np.asarray(matrix, np.float64)
    return np.concatenate([matrix[..., :3, 3], euler_from_matrix(matrix[..., :3, :3])], -1)


def matrix_from_pose(pose: np.ndarray) -> np.ndarray:
    """x y z roll pitch yaw (..., 6) -> (..., 4, 4)."""
    pose = np.asarray(pose, np.float64)
    matrix = np.zeros((*pose.shape[:-1], 4, 4))
    matrix[..., :3, :3] = matrix_from_euler(pose[..., 3:6])
    matrix[..., :3, 3] = pose[..., :3]
    matrix[..., 3, 3] = 1
    return matrix


def forward_pose(joints_rad: np.ndarray) -> np.ndarray:
    """Joints (..., 7) -> x y z roll pitch yaw (..., 6), as DROID's ``cartesian_position``."""
    return pose_from_matrix(forward(joints_rad))


def joints_for_pose(
    pose: np.ndarray, joints_rad: np.ndarray, *, steps: int = 30, damping: float = 0.02
) -> np.ndarray:
    """Joints (..., 7) near ``joints_rad`` (..., 7) whose flange is at ``pose`` (..., 6).

    Damped least squares (Wampler, 1986): dq = J^T (J J^T + damping^2 |e| I)^-1 e, so that a pose
    out of reach, or beyond the joints' limits, gives the joints that come near it. The damping
    fades with the error e, which makes the last steps Newton's.
    """
    wanted = matrix_from_pose(pose)
    low, high = np.asarray(JOINT_LOW_RAD), np.asarray(JOINT_HIGH_RAD)
    q = np.clip(np.asarray(joints_rad, np.float64), low, high)
    for _ in range(steps):
        frames = joint_frames(q)
        end = frames[..., -1, :, :]
        turn = rotation_vector(wanted[..., :3, :3] @ np.swapaxes(end[..., :3, :3], -1, -2))
        error = np.concatenate([wanted[..., :3, 3] - end[..., :3, 3], turn], -1)  # (..., 6)
        size = np.linalg.norm(error, axis=-1)
        if size.max(initial=0.0) < 1e-7:
            break
        axes = frames[..., :7, :3, 2]  # (..., 7, 3)
        arms = end[..., None, :3, 3] - frames[..., :7, :3, 3]
        jacobian = np.swapaxes(np.concatenate([np.cross(axes, arms), axes], -1), -1, -2)
        square = jacobian @ np.swapaxes(jacobian, -1, -2)  # (..., 6, 6)
        square = square + (damping**2 * np.minimum(size, 1.0))[..., None, None] * np.eye(6)
        pull = np.linalg.solve(square, error[..., None])
        move = (np.swapaxes(jacobian, -1, -2) @ pull)[..., 0]
        largest = np.abs(move).max(-1, keepdims=True)
        q = np.clip(q + move * np.minimum(1.0, 0.3 / np.maximum(largest, 1e-12)), low, high)
    return q
