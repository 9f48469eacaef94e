"""How a chunk of actions becomes the poses that condition a world model: one adapter per motion.

Enters: the newest pose (B, P), joints (B, J) of robots that have them, and actions (B, K, A) in the
robot's action space. Leaves: poses (B, T, P) and joints (B, T, J) at the T = K / S frames, that is
after control steps S, 2S, ... K, float32::

    delta_position   x += a * scale, stopped at the robot's bounds   (Meta-World's mocap hand)
    absolute_pose    the action is the pose
    delta_pose       x += a * scale, R = R(a * scale) R: turns about the base's axes
    joint_position   pose = FK(a)
    joint_velocity   q += a * VELOCITY_STEP_RAD, pose = FK(q); or a learned adapter gives q
    joint_target     the action is the pose: targets of any number of joints, grippers among them
    joint_delta      pose += a, but grippers go where they are told; stopped at the robot's bounds

Two arms are two poses one behind the other. Of joint_target and joint_delta grippers stand where
the robot says, elsewhere a gripper is the last action of its arm. Where the pose is commanded and
joints are known, these are those nearest to the last ones that reach it
(``panda.joints_for_pose``), so that a policy that reads joints can be run there too.
Nothing is lost by executing fewer steps than a policy answered: each
adapter depends on earlier steps only, but for the learned one, which takes blocks of 15 steps and
repeats the last velocity where a chunk has fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worldeval.errors import ConfigError, MismatchError
from worldeval.motion import panda
from worldeval.motion.rotations import (
    euler_from_matrix,
    matrix_from_euler,
    matrix_from_rotation_vector,
    wrap_angle,
)
from worldeval.robots import PLAIN_JOINTS, RobotSpec
from worldeval.types import ActionChunk

VELOCITY_HZ = 15.0
"""Of the recordings to which the constant below was fitted, and learned adapters are."""
VELOCITY_STEP_RAD = 0.0545
"""How far a joint of DROID's Panda moves in a control step (1/15 s) for a velocity of 1. Fitted to
six recorded episodes over 15 steps (per joint 0.044 to 0.068): the command is a share of 0.2 rad
beyond where the arm is, of which its compliant controller makes up about a quarter before the next
command arrives. Read as rad/s it would be 1/15 = 0.067."""


class JointModel(Protocol):
    """Where the joints go under velocity commands, such as ``policies/joint_adapter.py`` learns."""

    def along(self, joints: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """joints (B, 7), velocity (B, K, 7) -> joints after each control step, (B, K, 7)."""
        ...


class Adapter(Protocol):
    """Turns chunks of actions into poses. See the module's docstring."""

    @property
    def robot(self) -> RobotSpec: ...

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """pose (B, P), joints (B, J), actions (B, K, A) -> poses (B, T, P), joints (B, T, J)."""
        ...


def adapter_for(
    robot: RobotSpec, learned: JointModel | None = None, *, gripper_most: float | None = None
) -> Adapter:
    """The adapter of ``robot.motion``.

    learned: how the arm follows joint velocities, in place of integration.
    gripper_most: gripper commands above it become it: Ctrl-World's runs limit how far the gripper
        closes to what its tasks' objects allow (0.75 to 0.97). None: no limit but the robot's own.
        Not for "delta_position".
    """
    if learned is not None and robot.motion != "joint_velocity":
        raise ConfigError(
            f"a learned adapter was given, but robot {robot.name!r} has motion "
            f"{robot.motion!r}; it is for 'joint_velocity'"
        )
    rate_is_known = math.isclose(robot.control_hz, VELOCITY_HZ, rel_tol=1e-3)
    if robot.motion == "joint_velocity" and not rate_is_known:
        raise ConfigError(
            f"robot {robot.name!r} is controlled at {robot.control_hz:g} Hz, but how far joint "
            f"velocities carry is known at {VELOCITY_HZ:g} Hz only; use another action space"
        )
    if robot.motion in PLAIN_JOINTS:
        _refuse_limit(robot, gripper_most)
        return JointTarget(robot) if robot.motion == "joint_target" else JointDelta(robot)
    by_pose = robot.motion in ("absolute_pose", "delta_pose")
    arms = robot.pose_dim // 7 if by_pose and robot.pose_dim else 1
    each = robot.action_dim // arms if arms else robot.action_dim
    last = tuple(each * (arm + 1) - 1 for arm in range(arms))
    if robot.gripper_axes not in ((), last):
        raise ConfigError(
            f"robot {robot.name!r} has actions {robot.action_names}, expected one gripper, as the "
            f"last of them{'' if arms == 1 else ' for each arm'}; put it there"
        )
    low, high = robot.action_low[-1], robot.action_high[-1]
    if gripper_most is not None and not low < gripper_most <= high:
        raise ConfigError(
            f"gripper_most is {gripper_most!r}, expected more than {low:g} and at most {high:g}, "
            f"the bounds of the gripper of robot {robot.name!r}"
        )
    if robot.motion == "delta_position":
        _refuse_limit(robot, None if gripper_most == high else gripper_most)
        return DeltaPosition(robot)
    known = robot.joint_names in ((), panda.JOINTS)
    if not known and not (robot.kinematics == "panda" and robot.joint_dim == len(panda.JOINTS)):
        raise ConfigError(
            f"robot {robot.name!r} has joints {robot.joint_names}, expected those of a Panda "
            f"{panda.JOINTS}, the one arm whose kinematics are known here; name 7 joints that move "
            "like it with kinematics = 'panda', or command joints as 'joint_target'"
        )
    if robot.pose_dim == 0 or robot.pose_dim % 7 or (robot.pose_dim > 7 and not by_pose):
        raise ConfigError(
            f"robot {robot.name!r} has poses {robot.pose_names}, expected x y z roll pitch yaw and "
            f"gripper for motion {robot.motion!r}"
        )
    if by_pose and robot.action_dim != robot.pose_dim:
        raise ConfigError(
            f"robot {robot.name!r} has {robot.action_dim} actions and {robot.pose_dim} numbers in "
            f"its pose, expected as many for motion {robot.motion!r}"
        )
    if arms > 1 and robot.joint_names:
        raise ConfigError(
            f"robot {robot.name!r} has {arms} arms and joint_names, but joints of one arm only can "
            "be found from its pose; leave joint_names out"
        )
    if robot.motion in ("absolute_pose", "delta_pose"):
        kind = AbsolutePose if robot.motion == "absolute_pose" else DeltaPose
        return kind(robot, gripper_most)
    if robot.motion == "joint_position":
        return JointPosition(robot, gripper_most)
    return JointVelocity(robot, gripper_most, learned)


def _refuse_limit(robot: RobotSpec, gripper_most: float | None) -> None:
    if gripper_most is not None:
        raise ConfigError(
            f"gripper_most is {gripper_most!r}, but robot {robot.name!r} has motion "
            f"{robot.motion!r}, whose gripper has no limit; leave it out"
        )


def command(
    adapter: Adapter, poses: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
) -> ActionChunk:
    """What ``actions`` (B, K, A) command after frames with poses (B, T, P), joints (B, T, J)."""
    last = None if joints is None else joints[:, -1]
    ahead, turned = adapter.advance(poses[:, -1], last, actions)
    return ActionChunk(actions=actions, poses=ahead, joints=turned)


@dataclass(frozen=True)
class DeltaPosition:
    """Meta-World's: see ``RobotSpec.integrate``."""

    robot: RobotSpec

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return self.robot.integrate(pose, actions), None


@dataclass(frozen=True)
class AbsolutePose:
    """The action is the pose; angles beyond half a turn are taken as the same ones within it."""

    robot: RobotSpec
    gripper_most: float | None = None

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        poses = np.array(at_frames(self.robot, actions), np.float32)
        arms = poses.reshape(*poses.shape[:-1], -1, 7)  # a view: what changes there changes here
        arms[..., 3:6] = wrap_angle(arms[..., 3:6])
        arms[..., -1] = _limited(arms[..., -1], self.gripper_most)
        return poses, _joints_along(poses, joints)


@dataclass(frozen=True)
class DeltaPose:
    """Moves and turns about the base's axes, at every control step."""

    robot: RobotSpec
    gripper_most: float | None = None

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        at_frames(self.robot, actions)
        robot = self.robot
        steps = np.reshape(actions, (*np.shape(actions)[:2], -1, 7))  # (B, K, arms, 7)
        start = np.reshape(np.asarray(pose, np.float64), (len(pose), -1, 7))
        place, turn = start[..., :3], matrix_from_euler(start[..., 3:6])
        matrix = matrix_from_euler if robot.rotation == "euler" else matrix_from_rotation_vector
        poses = []
        for k in range(steps.shape[1]):
            place = place + steps[:, k, :, :3] * robot.action_scale_m
            turn = matrix(steps[:, k, :, 3:6] * robot.action_scale_rad) @ turn
            if (k + 1) % robot.steps_per_frame == 0:
                grip = _limited(steps[:, k, :, -1:], self.gripper_most)
                arms = np.concatenate([place, euler_from_matrix(turn), grip], -1)
                poses.append(arms.reshape(len(arms), -1))
        stacked = np.stack(poses, 1).astype(np.float32)
        return stacked, _joints_along(stacked, joints)


@dataclass(frozen=True)
class JointPosition:
    """Joint positions through forward kinematics."""

    robot: RobotSpec
    gripper_most: float | None = None

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return _arm(at_frames(self.robot, actions), self.gripper_most)


@dataclass(frozen=True)
class JointVelocity:
    """Joint velocities, integrated or through a learned adapter, then forward kinematics."""

    robot: RobotSpec
    gripper_most: float | None = None
    learned: JointModel | None = None

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if joints is None:
            raise MismatchError(
                f"robot {self.robot.name!r} is moved by joint velocities, but the world gave no "
                "joint positions; use a store that has them, or another action space"
            )
        velocity = np.asarray(actions, np.float64)[..., :-1]
        if self.learned is None:
            start = np.asarray(joints, np.float64)[:, None]
            angles = start + VELOCITY_STEP_RAD * np.cumsum(velocity, axis=1)
        else:
            angles = self.learned.along(joints, velocity)
        # Within the limits all along: joints at a stop leave it as soon as they are turned back.
        angles = np.clip(angles, panda.JOINT_LOW_RAD, panda.JOINT_HIGH_RAD)
        return _arm(
            at_frames(self.robot, np.concatenate([angles, actions[..., -1:]], -1)),
            self.gripper_most,
        )


@dataclass(frozen=True)
class JointTarget:
    """Targets of joints are the pose; no kinematics. Beyond its bounds the robot stops at them."""

    robot: RobotSpec

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        targets = np.clip(actions, self.robot.action_low, self.robot.action_high)
        poses = np.asarray(at_frames(self.robot, targets), np.float32)
        return poses, None if joints is None else poses.copy()


@dataclass(frozen=True)
class JointDelta:
    """Each action moves its joint on from its last target; a gripper goes where it is told."""

    robot: RobotSpec

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        robot = self.robot
        steps = np.clip(np.asarray(actions, np.float64), robot.action_low, robot.action_high)
        grippers = list(robot.gripper_axes)
        current, targets = np.asarray(pose, np.float64), []
        for k in range(steps.shape[1]):
            ahead = current + steps[:, k]
            ahead[:, grippers] = steps[:, k][:, grippers]
            current = np.clip(ahead, robot.pose_low, robot.pose_high)  # it stops at every step
            targets.append(current)
        stacked = np.stack(targets, 1) if targets else np.zeros_like(steps)
        poses = at_frames(robot, stacked).astype(np.float32)
        return poses, None if joints is None else poses.copy()


def at_frames(robot: RobotSpec, values: np.ndarray) -> np.ndarray:
    """Of values at control steps (B, K, ...), those at frames (B, K / S, ...)."""
    steps = robot.steps_per_frame
    if values.shape[1] < 1 or values.shape[1] % steps:
        raise MismatchError(
            f"a chunk has {values.shape[1]} control steps, expected a multiple of the {steps} of a "
            f"frame of robot {robot.name!r}; execute fewer of them"
        )
    return values[:, steps - 1 :: steps]


def _arm(angles: np.ndarray, gripper_most: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Joints and gripper (B, T, 8) -> poses (B, T, 7), joints (B, T, 7)."""
    joints = np.asarray(angles[..., :-1], np.float32)
    grip = _limited(angles[..., -1:], gripper_most)
    poses = np.concatenate([panda.forward_pose(joints), grip], -1)
    return poses.astype(np.float32), joints


def _limited(grip: np.ndarray, most: float | None) -> np.ndarray:
    return grip if most is None else np.minimum(grip, most)


def _joints_along(poses: np.ndarray, joints: np.ndarray | None) -> np.ndarray | None:
    if joints is None:
        return None
    found = [np.asarray(joints, np.float64)]
    for t in range(poses.shape[1]):
        found.append(panda.joints_for_pose(poses[:, t, :6], found[-1]))
    return np.stack(found[1:], axis=1).astype(np.float32)
