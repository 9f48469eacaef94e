"""Does a number leave its bounds, and where may a robot be that stands outside of them?

Enters: actions or poses in a robot's units, and their bounds. Leaves: which of them lie beyond, by
the one tolerance that policies, recordings and start states share; and bounds that reach to where a
robot is: one that was recorded outside may stay there and come back, but go no further.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from worldeval.robots.spec import ABSOLUTE_MOTIONS, PLAIN_JOINTS, RobotSpec

TOLERANCE = 1e-3
"""How far a number may leave its bounds by rounding (of a squashed output, of what was recorded):
a part of half the way between them."""


def beyond(values: np.ndarray, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Which of ``values`` leave [low, high] by more than rounding; bool, as they broadcast."""
    first, last = np.asarray(low, np.float64), np.asarray(high, np.float64)
    slack = TOLERANCE * (last - first) / 2
    outside: np.ndarray = (values < first - slack) | (values > last + slack)
    return outside


def staying(
    robot: RobotSpec, pose: np.ndarray, joints: np.ndarray | None = None
) -> np.ndarray | None:
    """The actions (..., A) that hold ``robot`` at poses (..., P) or joints (..., J).

    None where actions are motions, or say where joints shall be that are not known.
    """
    if robot.control_mode not in ABSOLUTE_MOTIONS:
        return None
    if robot.control_mode != "joint_position":
        return np.asarray(pose) if robot.action_dim == robot.pose_dim else None
    if joints is None:
        return None
    held = np.empty((*np.shape(pose)[:-1], robot.action_dim), np.asarray(pose).dtype)
    held[..., list(robot.moving_axes)] = joints
    held[..., list(robot.gripper_axes)] = np.asarray(pose)[..., list(robot.pose_grippers)]
    return held


def reaching(
    low: ArrayLike, high: ArrayLike, where: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (..., D) that hold ``where`` a robot is too; None: as they are."""
    if where is None:
        return np.asarray(low), np.asarray(high)
    return np.minimum(low, where), np.maximum(high, where)


def starts_outside(
    robot: RobotSpec, poses: np.ndarray, joints: np.ndarray | None = None
) -> list[str]:
    """A sentence for each number in which start poses (N, P) lie outside of the robot's bounds.

    Told where the robot could not be commanded there: where an action says where to be, and where
    the robot stops at the bounds of its pose.
    """
    where = staying(robot, poses, joints)
    names, low, high = robot.action_names, robot.action_low, robot.action_high
    if where is None and (robot.poses_are_bounded or robot.control_mode in PLAIN_JOINTS):
        where, names, low, high = poses, robot.pose_names, robot.pose_low, robot.pose_high
    if where is None:
        return []
    outside = beyond(where, low, high)
    return [
        f"{int(outside[:, i].sum())} of {len(outside)} start states have {names[i]!r} at "
        f"{where[outside[:, i], i].min():.4g} to {where[outside[:, i], i].max():.4g}, outside of "
        f"the bounds {low[i]:g} to {high[i]:g} of robot {robot.name!r}; it may stay there and come "
        "back, but go no further: correct the bounds in the robot's file"
        for i in np.flatnonzero(outside.any(axis=0))
    ]
