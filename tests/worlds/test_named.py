import pytest

from worldeval.errors import ConfigError, MismatchError
from worldeval.motion import panda
from worldeval.rollout.recording import open_rollouts
from worldeval.worlds.named import robot_named, robot_of_store, space_of
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
    assert (robot.control_mode, robot.frame_hz, robot.image_size) == (
        "absolute_pose",
        7.5,
        (64, 96),
    )
    assert robot.pose_high == (1.0,) * 7


def test_what_a_robot_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'droid-panda'"):
        robot_named("droid_panda")
    with pytest.raises(ConfigError, match="'joint_velocity' was asked for"):
        robot_named(ROBOT.name, action_space="joint_velocity")


def test_a_store_tells_whose_it_is(tmp_path) -> None:
    for robot in (ROBOT, panda.panda("absolute_pose", image_size=(64, 96))):
        with open_rollouts(tmp_path / robot.name, robot) as store:
            assert robot_of_store(store) == robot
    with pytest.raises(MismatchError, match="no action space of 'droid-panda'"):
        space_of(panda.NAME, ("dx", "dy"))
