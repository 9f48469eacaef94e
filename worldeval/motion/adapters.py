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

Two arms are two poses. Grippers stand where the robot says (``gripper_axes``, ``pose_grippers``),
and go where they are told. Where the pose is commanded and
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
from worldeval.robots.bounds import reaching
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
    """The adapter of ``robot.control_mode``.

    learned: how the arm follows joint velocities, in place of integration.
    gripper_most: no gripper is closed further: Ctrl-World's runs limit it to what its tasks'
        objects allow (0.75 to 0.97). None: no limit but the robot's own. Not for "delta_position".
    """
    if learned is not None and robot.control_mode != "joint_velocity":
        raise ConfigError(
            f"a learned adapter was given, but robot {robot.name!r} has motion "
            f"{robot.control_mode!r}; it is for 'joint_velocity'"
        )
    rate_is_known = math.isclose(robot.control_hz, VELOCITY_HZ, rel_tol=1e-3)
    if robot.control_mode == "joint_velocity" and not rate_is_known:
        raise ConfigError(
            f"robot {robot.name!r} is controlled at {robot.control_hz:g} Hz, but how far joint "
            f"velocities carry is known at {VELOCITY_HZ:g} Hz only; use another action space"
        )
    if robot.control_mode in PLAIN_JOINTS:
        _refuse_limit(robot, gripper_most)
        return JointTarget(robot) if robot.control_mode == "joint_target" else JointDelta(robot)
    _check_limit(robot, gripper_most)
    if robot.control_mode == "delta_position":
        at_bound = gripper_most in robot.grippers_closed
        _refuse_limit(robot, None if at_bound else gripper_most)
        return DeltaPosition(robot)
    known = robot.joint_names in ((), panda.JOINTS)
    if not known and not (robot.kinematics == "panda" and robot.joint_dim == len(panda.JOINTS)):
        raise ConfigError(
            f"robot {robot.name!r} has joints {robot.joint_names}, expected those of a Panda "
            f"{panda.JOINTS}, the one arm whose kinematics are known here; name 7 joints that move "
            "like it with kinematics = 'panda', or command joints as 'joint_target'"
        )
    _check_numbers(robot)
    if robot.control_mode in ("absolute_pose", "delta_pose"):
        kind = AbsolutePose if robot.control_mode == "absolute_pose" else DeltaPose
        return kind(robot, gripper_most)
    if robot.control_mode == "joint_position":
        return JointPosition(robot, gripper_most)
    return JointVelocity(robot, gripper_most, learned)


def _check_numbers(robot: RobotSpec) -> None:
    """Raise ConfigError unless the numbers of pose and action are those of hands and grippers."""
    hands, grippers = len(robot.hands), len(robot.gripper_axes)
    if not hands or grippers not in (0, hands) or robot.pose_dim != 6 * hands + grippers:
        raise ConfigError(
            f"robot {robot.name!r} has poses {robot.pose_names} and {grippers} grippers, expected "
            f"x y z roll pitch yaw for each hand for control mode {robot.control_mode!r}, and one "
            "gripper for each or none; name grippers by gripper_index"
        )
    by_pose = robot.control_mode in ("absolute_pose", "delta_pose")
    if by_pose and robot.action_dim != robot.pose_dim:
        raise ConfigError(
            f"robot {robot.name!r} has {robot.action_dim} actions and {robot.pose_dim} numbers in "
            f"its pose, expected as many for control mode {robot.control_mode!r}"
        )
    if not by_pose and (hands > 1 or len(robot.moving_axes) != len(panda.JOINTS)):
        raise ConfigError(
            f"robot {robot.name!r} has actions {robot.action_names}, expected {len(panda.JOINTS)} "
            f"joints of one arm and its gripper, if any, for control mode {robot.control_mode!r}"
        )
    if hands > 1 and robot.joint_names:
        raise ConfigError(
            f"robot {robot.name!r} has {hands} arms and joint_names, but joints of one arm only "
            "can be found from its pose; leave joint_names out"
        )


def _check_limit(robot: RobotSpec, gripper_most: float | None) -> None:
    if gripper_most is None:
        return
    if not robot.gripper_axes:
        raise ConfigError(
            f"gripper_most is {gripper_most!r}, but robot {robot.name!r} has no gripper; leave it "
            "out"
        )
    for i, opened in zip(robot.gripper_axes, robot.grippers_open, strict=True):
        low, high = robot.action_low[i], robot.action_high[i]
        if not low <= gripper_most <= high or gripper_most == opened:
            raise ConfigError(
                f"gripper_most is {gripper_most!r}, expected a number from {low:g} to {high:g}, "
                f"the bounds of {robot.action_names[i]!r} of robot {robot.name!r}, other than "
                f"{opened:g}, where it is open"
            )


def _refuse_limit(robot: RobotSpec, gripper_most: float | None) -> None:
    if gripper_most is not None:
        raise ConfigError(
            f"gripper_most is {gripper_most!r}, but robot {robot.name!r} has motion "
            f"{robot.control_mode!r}, whose gripper has no limit; leave it out"
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
        robot = self.robot
        poses = np.array(at_frames(robot, actions), np.float32)
        turns = [i for hand in robot.hands for i in hand[3:]]
        poses[..., turns] = wrap_angle(poses[..., turns])
        grippers = list(robot.pose_grippers)
        poses[..., grippers] = _limited(robot, poses[..., grippers], self.gripper_most)
        return poses, _joints_along(robot, poses, joints)


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
        hands, grippers = np.array(robot.hands), list(robot.pose_grippers)
        steps = np.asarray(actions)[..., hands]  # (B, K, arms, 6)
        start = np.asarray(pose, np.float64)[..., hands]
        place, turn = start[..., :3], matrix_from_euler(start[..., 3:])
        matrix = matrix_from_euler if robot.rotation == "euler" else matrix_from_rotation_vector
        poses = []
        for k in range(steps.shape[1]):
            place = place + steps[:, k, :, :3] * robot.action_scale_m
            turn = matrix(steps[:, k, :, 3:] * robot.action_scale_rad) @ turn
            if (k + 1) % robot.steps_per_frame == 0:
                ahead = np.empty((len(place), robot.pose_dim))
                ahead[:, hands] = np.concatenate([place, euler_from_matrix(turn)], -1)
                ahead[:, grippers] = _limited(
                    robot, np.asarray(actions)[:, k, grippers], self.gripper_most
                )
                poses.append(ahead)
        stacked = np.stack(poses, 1).astype(np.float32)
        return stacked, _joints_along(robot, stacked, joints)


@dataclass(frozen=True)
class JointPosition:
    """Joint positions through forward kinematics."""

    robot: RobotSpec
    gripper_most: float | None = None

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return _arm(self.robot, at_frames(self.robot, actions), self.gripper_most)


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
        moving = list(self.robot.moving_axes)
        commanded = np.array(actions, np.float64)
        velocity = commanded[..., moving]
        if self.learned is None:
            start = np.asarray(joints, np.float64)[:, None]
            angles = start + VELOCITY_STEP_RAD * np.cumsum(velocity, axis=1)
        else:
            angles = self.learned.along(joints, velocity)
        # Within the limits all along: joints at a stop leave it as soon as they are turned back.
        commanded[..., moving] = np.clip(angles, panda.JOINT_LOW_RAD, panda.JOINT_HIGH_RAD)
        return _arm(self.robot, at_frames(self.robot, commanded), self.gripper_most)


@dataclass(frozen=True)
class JointTarget:
    """Targets of joints are the pose; no kinematics. Beyond its bounds the robot stops at them, and
    where it is if that lies outside."""

    robot: RobotSpec

    def advance(
        self, pose: np.ndarray, joints: np.ndarray | None, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        where = np.asarray(pose)[:, None]
        low, high = reaching(self.robot.action_low, self.robot.action_high, where)
        targets = np.clip(actions, low, high)
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
        low, high = reaching(robot.pose_low, robot.pose_high, current)
        for k in range(steps.shape[1]):
            ahead = current + steps[:, k]
            ahead[:, grippers] = steps[:, k][:, grippers]
            current = np.clip(ahead, low, high)  # it stops at every step
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


def _arm(
    robot: RobotSpec, commanded: np.ndarray, gripper_most: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Joints and gripper in the order of the actions (B, T, A) -> poses (B, T, P), joints
    (B, T, J)."""
    joints = np.asarray(commanded[..., list(robot.moving_axes)], np.float32)
    poses = np.empty((*commanded.shape[:-1], robot.pose_dim))
    poses[..., list(robot.hands[0])] = panda.forward_pose(joints)
    grip = _limited(robot, commanded[..., list(robot.gripper_axes)], gripper_most)
    poses[..., list(robot.pose_grippers)] = grip
    return poses.astype(np.float32), joints


def _limited(robot: RobotSpec, grip: np.ndarray, most: float | None) -> np.ndarray:
    """Grippers (..., G) closed as far as ``most`` at most."""
    if most is None:
        return grip
    closes_upwards = robot.gripper_sense == "close_positive"
    return np.minimum(grip, most) if closes_upwards else np.maximum(grip, most)


def _joints_along(
    robot: RobotSpec, poses: np.ndarray, joints: np.ndarray | None
) -> np.ndarray | None:
    if joints is None:
        return None
    found, hand = [np.asarray(joints, np.float64)], list(robot.hands[0])
    for t in range(poses.shape[1]):
        found.append(panda.joints_for_pose(poses[:, t, hand], found[-1]))
    return np.stack(found[1:], axis=1).astype(np.float32)
