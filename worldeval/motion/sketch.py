"""From a path drawn on a camera's picture to poses of the hand.

Enters: points (N, 2) that somebody drew on a view of a calibrated camera, u right and v down in
[0, 1]. Leaves: poses (T, P) along that path, at the hand's own speed. A pixel is a ray; where on it
the hand shall be is decided by a plane: that of the picture at the hand's own distance, or one at a
chosen height above the table. Paths sketched on pictures as a way to tell a robot what to do are
the idea of RT-Trajectory (Gu et al. 2023, arXiv 2311.01977).
"""

from __future__ import annotations

import numpy as np

from worldeval.errors import ConfigError
from worldeval.robots import PLAIN_JOINTS, CameraSpec, RobotSpec

FRAME_M = 0.02
"""Metres a frame along the path, where the robot has no fastest motion of its own."""
MOST_POINTS = 2000
MOST_FRAMES = 400


def exterior_views(robot: RobotSpec) -> tuple[str, ...]:
    """Views on which a path can be drawn: fixed cameras whose geometry is known."""
    return tuple(camera.name for camera in robot.cameras if camera.mount == "fixed")


def unproject(
    camera: CameraSpec, points: np.ndarray, hand_m: np.ndarray, height_m: float | None = None
) -> np.ndarray:
    """Where in the base frame (N, 3) the rays of ``points`` (N, 2) meet a plane.

    hand_m: (3,) position of the hand. The plane is the one through it that the camera sees head-on;
    with ``height_m``, the one at that height z. Raises ConfigError for a camera that is not fixed,
    and where a ray does not come to the plane.
    """
    if camera.mount != "fixed":
        raise ConfigError(
            f"camera {camera.name!r} is {camera.mount}, a path is drawn on one that is fixed and "
            "calibrated; draw on another view"
        )
    points = np.asarray(points, np.float64).reshape(-1, 2)
    rotation = np.asarray(camera.rotation, np.float64).reshape(3, 3)
    centre = np.asarray(camera.position_m, np.float64)
    reach = 2 * np.tan(camera.fovy_rad / 2)
    seen = np.stack(
        [(points[:, 0] - 0.5) * reach, (0.5 - points[:, 1]) * reach, np.full(len(points), -1.0)], -1
    )  # at a depth of 1 m, in the camera's axes
    rays = seen @ rotation.T
    if height_m is None:
        depth = -((np.asarray(hand_m, np.float64) - centre) @ rotation[:, 2])
        if depth <= 0:
            raise ConfigError(f"the hand is behind camera {camera.name!r}; draw on another view")
        return centre + depth * rays
    with np.errstate(divide="ignore", invalid="ignore"):
        depths = (height_m - centre[2]) / rays[:, 2]
    if not (np.isfinite(depths) & (depths > 0)).all():
        raise ConfigError(
            f"part of the path lies above the horizon of camera {camera.name!r} at a height of "
            f"{height_m:g} m; draw lower in the picture, or choose another height"
        )
    return centre + depths[:, None] * rays


def sketched_poses(
    robot: RobotSpec,
    view: str,
    points: np.ndarray,
    pose: np.ndarray,
    *,
    height_m: float | None = None,
    speed: float = 0.5,
    gripper: float | None = None,
) -> np.ndarray:
    """Poses (T, P) float32, one a frame, of a hand that follows a path drawn on ``view``.

    points: (N, 2) in [0, 1], in the order in which they were drawn; the hand first goes straight to
        the first. pose: (P,) where it is. speed: share of its fastest motion. gripper: command
        along the path; as it is, if None. Orientation stays. Where the robot stops at bounds, the
        path does too.
    """
    points = _checked(points, speed)
    camera = _camera(robot, view)
    pose = np.asarray(pose, np.float64)
    places = unproject(camera, points, pose[:3], height_m)
    if robot.poses_are_bounded:
        places = np.clip(places, robot.pose_low[:3], robot.pose_high[:3])
    fastest = FRAME_M
    if robot.control_mode == "delta_position":
        limits = [max(abs(robot.action_low[i]), abs(robot.action_high[i])) for i in range(3)]
        fastest = robot.action_scale_m * robot.steps_per_frame * min(limits)
    corners = np.concatenate([pose[None, :3], places])
    run = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    frames = max(1, int(np.ceil(run[-1] / (fastest * speed) - 1e-9)))
    if frames > MOST_FRAMES:
        raise ConfigError(
            f"the path is {run[-1]:.2f} m long, which takes {frames} frames at this speed, "
            f"expected {MOST_FRAMES} at most; draw a shorter one or move faster"
        )
    along = run[-1] * np.arange(1, frames + 1) / frames
    poses = np.repeat(pose[None], frames, 0)
    for axis in range(3):
        poses[:, axis] = np.interp(along, run, corners[:, axis])
    if gripper is not None:
        poses[:, -1] = gripper
    return poses.astype(np.float32)


def drawn(robot: RobotSpec, view: str, poses: np.ndarray) -> np.ndarray:
    """Where poses (N, P) appear on ``view``: points (N, 2), u right and v down in [0, 1]."""
    hands = np.asarray(poses, np.float32)[:, :3]
    return _camera(robot, view).project(hands, hands)[:, :2]


def _checked(points: np.ndarray, speed: float) -> np.ndarray:
    path = np.asarray(points, np.float64)
    if path.ndim != 2 or path.shape[1] != 2 or not 1 <= len(path) <= MOST_POINTS:
        raise ConfigError(
            f"the path has shape {path.shape}, expected (points, 2) with 1 to {MOST_POINTS} points"
        )
    if not (np.isfinite(path).all() and (path >= 0).all() and (path <= 1).all()):
        raise ConfigError("the path leaves the picture, expected u and v from 0 to 1")
    if not 0 < speed <= 1:
        raise ConfigError(f"speed is {speed!r}, expected a number in (0, 1]")
    return path


def _camera(robot: RobotSpec, view: str) -> CameraSpec:
    if robot.pose_dim not in (4, 7) or robot.control_mode in PLAIN_JOINTS:
        raise ConfigError(
            f"robot {robot.name!r} has poses {robot.pose_names}, a path is followed by one hand "
            "with x, y, z and a gripper; drive it by keys or a policy"
        )
    for camera in robot.cameras:
        if camera.name == view:
            return camera
    raise ConfigError(
        f"robot {robot.name!r} has no view {view!r}, a path can be drawn on "
        f"{list(exterior_views(robot)) or 'none of its views'}"
    )
