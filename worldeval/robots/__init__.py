"""Robots as data: ``RobotSpec``, shipped profiles, and robots of files and packages."""

from worldeval.robots.files import (
    NAMES,
    read_robot,
    robot_as_json,
    robot_from_json,
    write_robot,
)
from worldeval.robots.spec import (
    ABSOLUTE_MOTIONS,
    CONTROL_MODES,
    GRIPPER_SENSES,
    MOUNTS,
    PLAIN_JOINTS,
    CameraSpec,
    RobotSpec,
)

__all__ = [
    "ABSOLUTE_MOTIONS",
    "GRIPPER_SENSES",
    "CONTROL_MODES",
    "MOUNTS",
    "NAMES",
    "PLAIN_JOINTS",
    "CameraSpec",
    "RobotSpec",
    "read_robot",
    "robot_as_json",
    "robot_from_json",
    "write_robot",
]
