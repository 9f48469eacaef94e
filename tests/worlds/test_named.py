import pytest

from worldeval.errors import ConfigError
from worldeval.motion import panda
from worldeval.worlds.named import robot_named
from worldeval.worlds.sawyer import ROBOT


def test_robots_are_found_by_name() -> None:
    assert robot_named(ROBOT.name) is ROBOT
    assert robot_named("droid-panda") == panda.panda()
    robot = robot_named(
        "droid-panda",
        action_space="absolute_pose",
        steps_per_frame=2,
        image_size=(64, 96),
        statistics=([-1] * 7, [1] * 7),
    )
    assert (robot.motion, robot.frame_hz, robot.image_size) == ("absolute_pose", 7.5, (64, 96))
    assert robot.pose_high == (1.0,) * 7


def test_what_a_robot_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'droid-panda'"):
        robot_named("droid_panda")
    with pytest.raises(ConfigError, match="'joint_velocity' was asked for"):
        robot_named(ROBOT.name, action_space="joint_velocity")
