"""Robots and cameras as values: names, units, rates, frames, senses. numpy only.

Everything in which two sides of an evaluation can silently disagree is a field here, compared
before the first step (``policies/checking.py``). How a chunk of actions becomes the poses that
condition a world model is named by ``RobotSpec.control_mode`` and carried out by
``worldeval/motion``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldeval.errors import ConfigError

MOUNTS = ("fixed", "hand", "uncalibrated")
GRIPPER_SENSES = ("close_positive", "close_negative")
CONTROL_MODES = (
    "delta_position",
    "delta_pose",
    "absolute_pose",
    "joint_position",
    "joint_velocity",
    "joint_target",
    "joint_delta",
)
ABSOLUTE_MOTIONS = ("absolute_pose", "joint_position", "joint_target")
"""Those of which an action says where to be."""
PLAIN_JOINTS = ("joint_target", "joint_delta")
"""Those of which the pose is the joints' targets themselves: no kinematics are needed."""
ROTATIONS = ("euler", "rotation_vector")


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """A pinhole camera with square pixels, or only the name of one.

    Camera axes are MuJoCo's and OpenGL's: x right, y up, looking along -z.
    mount: "fixed" (position and rotation in the base frame), "hand" (position relative to the
        commanded hand position in base axes; the hand does not turn) or "uncalibrated" (where it
        stands is unknown, as with real data; nothing can be projected into it).
    rotation: (9,) row-major camera-to-base rotation matrix.
    """

    name: str
    mount: str
    fovy_rad: float = 0.0
    position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.mount not in MOUNTS:
            raise ConfigError(
                f"camera {self.name!r}: mount is {self.mount!r}, expected one of {MOUNTS}"
            )
        if self.mount == "uncalibrated":
            return
        if len(self.rotation) != 9:
            raise ConfigError(
                f"camera {self.name!r}: rotation has {len(self.rotation)} numbers, expected 9"
            )
        if not 0 < self.fovy_rad < np.pi:
            raise ConfigError(
                f"camera {self.name!r}: fovy_rad is {self.fovy_rad!r}, expected more than 0 and "
                "below pi; a camera of unknown geometry has mount='uncalibrated'"
            )

    def _need_calibration(self) -> None:
        if self.mount == "uncalibrated":
            raise ConfigError(
                f"camera {self.name!r} is uncalibrated, so nothing can be projected into it; use a "
                "model without geometry maps and warping, or give the camera's geometry"
            )

    def centre_m(self, hand_in_base_m: np.ndarray) -> np.ndarray:
        """Camera centre in the base frame for hand positions (..., 3); (..., 3)."""
        self._need_calibration()
        offset = np.asarray(self.position_m, np.float32)
        if self.mount == "hand":
            return np.asarray(hand_in_base_m, np.float32) + offset
        return np.broadcast_to(offset, np.shape(hand_in_base_m))

    def project(self, points_in_base_m: np.ndarray, hand_in_base_m: np.ndarray) -> np.ndarray:
        """Image coordinates of points (..., 3) while the hand is at (..., 3).

        Returns (..., 3): u right and v down in [0, 1] over the (square) image, and the depth
        along the optical axis in metres (negative behind the camera).
        """
        self._need_calibration()
        rotation = np.asarray(self.rotation, np.float32).reshape(3, 3)
        seen = (points_in_base_m - self.centre_m(hand_in_base_m)) @ rotation
        depth = -seen[..., 2]
        scale = 0.5 / np.tan(self.fovy_rad / 2)
        safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        u = 0.5 + scale * seen[..., 0] / safe
        v = 0.5 - scale * seen[..., 1] / safe
        return np.stack([u, v, depth], axis=-1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class RobotSpec:
    """A robot as data.

    The pose is what conditions a world model, one row per frame: the commanded joints, or of each
    hand its position (for some robots also its roll, pitch and yaw). Grippers may stand anywhere
    among them; a pose with as many numbers as the actions has their order.

    pose_low, pose_high: what a world model takes as -1 and 1. In "delta_position" they are
        also the bounds at which the controller stops; elsewhere poses may leave them.
    control_mode: how a chunk of actions becomes poses, see ``worldeval/motion/adapters.py``.
    joint_names: of a robot whose joints are known at every frame; () for others.
    gripper_index: places of the actions that move a gripper, two for two arms, () for none; None
        for those with "grip" in their name.
    gripper_sense: "close_positive": a gripper closes towards its higher bound; "close_negative":
        towards its lower one.
    action_scale_rad: radians of commanded rotation for an action of 1, in "delta_pose".
    rotation: what the three turning numbers of a "delta_pose" are: "euler" (roll, pitch, yaw about
        the base's axes) or "rotation_vector" (axis times angle).
    kinematics: name of the arm whose kinematics lead from joints to poses ("panda"); "" where none
        are needed, since joints are the pose or poses are commanded.
    """

    name: str
    action_space: str
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    pose_names: tuple[str, ...]
    pose_low: tuple[float, ...]
    pose_high: tuple[float, ...]
    action_scale_m: float
    """Metres of commanded motion for an action of 1."""
    control_hz: float
    steps_per_frame: int
    """S: control steps between two frames."""
    frames_per_chunk: int
    image_size: tuple[int, int]
    cameras: tuple[CameraSpec, ...]
    gripper_sense: str = "close_positive"
    joint_names: tuple[str, ...] = ()
    control_mode: str = "delta_position"
    gripper_index: tuple[int, ...] | None = None
    action_scale_rad: float = 1.0
    rotation: str = "euler"
    kinematics: str = ""
    workspace_m: tuple[float, float, float, float] | None = None
    """Part of the table that calibrated cameras see, for geometry maps: x and y of its centre, half
    its width, height of the table, in the base frame. None: not known."""

    def __post_init__(self) -> None:
        if not len(self.action_names) == len(self.action_low) == len(self.action_high):
            raise ConfigError(f"robot {self.name!r}: action names and bounds differ in length")
        if not len(self.pose_names) == len(self.pose_low) == len(self.pose_high):
            raise ConfigError(f"robot {self.name!r}: pose names and bounds differ in length")
        if self.control_mode not in CONTROL_MODES:
            raise ConfigError(
                f"robot {self.name!r}: control_mode is {self.control_mode!r}, expected one of "
                f"{CONTROL_MODES}"
            )
        if self.gripper_sense not in GRIPPER_SENSES:
            raise ConfigError(
                f"robot {self.name!r}: gripper_sense is {self.gripper_sense!r}, expected one of "
                f"{GRIPPER_SENSES}"
            )
        for name, low, high in zip(
            self.action_names, self.action_low, self.action_high, strict=True
        ):
            if not low < high:
                raise ConfigError(
                    f"robot {self.name!r}: action {name!r} goes from {low!r} to {high!r}, expected "
                    "a lower and then a higher number"
                )
        if self.control_mode in ("joint_position", "joint_velocity") and not self.joint_names:
            raise ConfigError(
                f"robot {self.name!r}: control_mode is {self.control_mode!r}, but it has no "
                "joint_names; where joints are the pose and no kinematics are needed, it is "
                "'joint_target'"
            )
        _check_shape(self)

    @property
    def frame_hz(self) -> float:
        return self.control_hz / self.steps_per_frame

    @property
    def chunk_steps(self) -> int:
        """K: control steps in one chunk."""
        return self.steps_per_frame * self.frames_per_chunk

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    @property
    def gripper_axes(self) -> tuple[int, ...]:
        """Places of the actions that move a gripper."""
        if self.gripper_index is not None:
            return self.gripper_index
        return tuple(i for i, name in enumerate(self.action_names) if "grip" in name.lower())

    @property
    def moving_axes(self) -> tuple[int, ...]:
        """Places of the actions that move no gripper."""
        return tuple(i for i in range(self.action_dim) if i not in self.gripper_axes)

    @property
    def held_axes(self) -> tuple[int, ...]:
        """Places of the actions whose last command is repeated to stay; the others are 0 then.

        All where an action says where to be, else the grippers.
        """
        everything = self.control_mode in ABSOLUTE_MOTIONS
        return tuple(range(self.action_dim)) if everything else self.gripper_axes

    @property
    def grippers_open(self) -> tuple[float, ...]:
        """The command for each open gripper; at its other bound it is closed."""
        bounds = self.action_low if self.gripper_sense == "close_positive" else self.action_high
        return tuple(bounds[i] for i in self.gripper_axes)

    @property
    def grippers_closed(self) -> tuple[float, ...]:
        """The command for each closed gripper."""
        bounds = self.action_high if self.gripper_sense == "close_positive" else self.action_low
        return tuple(bounds[i] for i in self.gripper_axes)

    @property
    def pose_grippers(self) -> tuple[int, ...]:
        """Places of the grippers in the pose, in the order of ``gripper_axes``."""
        if self.pose_dim == self.action_dim:  # then the pose has the order of the actions
            return self.gripper_axes
        named = tuple(i for i, name in enumerate(self.pose_names) if "grip" in name.lower())
        count = len(self.gripper_axes)
        return named if len(named) == count else tuple(range(self.pose_dim - count, self.pose_dim))

    @property
    def hands(self) -> tuple[tuple[int, ...], ...]:
        """Of each hand: places in the pose of its x, y, z (m) and, where it turns, of its roll,
        pitch and yaw (rad). () where the pose is joints."""
        if self.control_mode in PLAIN_JOINTS:
            return ()
        moving = [i for i in range(self.pose_dim) if i not in self.pose_grippers]
        each = 3 if self.control_mode == "delta_position" else 6
        return tuple(tuple(moving[k : k + each]) for k in range(0, len(moving) - each + 1, each))

    @property
    def angles(self) -> tuple[int, ...]:
        """Places of roll, pitch and yaw in the pose; () for a pose without an orientation."""
        if self.control_mode in PLAIN_JOINTS:  # a joint may be called wrist_roll_rad
            return ()
        found = tuple(
            i for i, name in enumerate(self.pose_names) if name.endswith(_TURNS) and i >= 3
        )
        return found if len(found) == 3 else ()

    @property
    def pose_dim(self) -> int:
        return len(self.pose_names)

    @property
    def motion(self) -> str:
        """``control_mode``, as it was called before; files that say ``motion`` are read too."""
        return self.control_mode

    @property
    def joint_dim(self) -> int:
        return len(self.joint_names)

    @property
    def poses_are_bounded(self) -> bool:
        """Whether the controller stops at ``pose_low`` and ``pose_high``."""
        return self.control_mode in ("delta_position", "joint_delta")

    def integrate(self, pose: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Commanded poses at frame rate after delta-position actions.

        pose: (..., P) at the start; actions: (..., K, A) with K a multiple of S.
        Returns (..., K / S, P). The hand is clipped to its bounds (one that begins outside of them,
        to where it is) at every control step, as the
        controller does; grippers are where the last command says, clipped.
        """
        grippers = list(self.gripper_axes)
        moving = list(self.moving_axes)
        current = np.asarray(pose, np.float64).copy()
        low, high = np.minimum(self.pose_low, current), np.maximum(self.pose_high, current)
        clipped = np.clip(actions, self.action_low, self.action_high)
        poses = []
        for k in range(actions.shape[-2]):
            current[..., moving] += clipped[..., k, moving] * self.action_scale_m
            current[..., grippers] = clipped[..., k, grippers]
            current = np.clip(current, low, high)
            if (k + 1) % self.steps_per_frame == 0:
                poses.append(current.copy())
        return np.stack(poses, axis=-2).astype(np.float32)


_TURNS = ("roll_rad", "pitch_rad", "yaw_rad")


def _check_shape(robot: RobotSpec) -> None:
    """Raise ConfigError where the parts of a robot do not belong together."""

    def refuse(what: str) -> None:
        raise ConfigError(f"robot {robot.name!r}: {what}")

    for what, names in (
        ("action_names", robot.action_names),
        ("pose_names", robot.pose_names),
        ("joint_names", robot.joint_names),
        ("cameras", robot.views),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            refuse(f"{what} have {twice[0]!r} twice, expected each name once")
    if not robot.control_hz > 0:
        refuse(f"control_hz is {robot.control_hz!r}, expected more than 0")
    for what, count in (
        ("steps_per_frame", robot.steps_per_frame),
        ("frames_per_chunk", robot.frames_per_chunk),
        *((("height", "width")[i], side) for i, side in enumerate(robot.image_size)),
    ):
        if count < 1:
            refuse(f"{what} is {count!r}, expected 1 or more")
    for place in robot.gripper_index or ():
        if not 0 <= place < robot.action_dim:
            refuse(
                f"gripper_index has {place}, expected 0 to {robot.action_dim - 1}, the places of "
                f"its {robot.action_dim} actions"
            )
    if len(set(robot.gripper_axes)) != len(robot.gripper_axes):
        refuse(f"gripper_index is {robot.gripper_index}, expected each place once")
    if robot.rotation not in ROTATIONS:
        refuse(f"rotation is {robot.rotation!r}, expected one of {ROTATIONS}")
    one_by_one = (*PLAIN_JOINTS, "delta_position")
    if robot.control_mode in one_by_one and robot.action_dim != robot.pose_dim:
        refuse(
            f"control_mode is {robot.control_mode!r}, of which each action moves one number of "
            f"the pose, but there are {robot.action_dim} actions and {robot.pose_dim} pose_names; "
            "give as many"
        )
    named = tuple(i for i, name in enumerate(robot.pose_names) if "grip" in name.lower())
    as_many = robot.pose_dim == robot.action_dim and len(named) == len(robot.gripper_axes)
    if as_many and not all(
        i in robot.gripper_axes or "grip" in robot.action_names[i].lower() for i in named
    ):
        refuse(
            f"its grippers are at {robot.gripper_axes} among the actions {robot.action_names} and "
            f"at {named} among pose_names {robot.pose_names}; give both the same order"
        )
    if robot.control_mode in PLAIN_JOINTS and robot.joint_dim not in (0, robot.pose_dim):
        refuse(
            f"control_mode is {robot.control_mode!r}, of which the pose is the joints' targets, "
            f"but there are {robot.joint_dim} joint_names and {robot.pose_dim} pose_names; leave "
            "joint_names out"
        )
