from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import ConfigError, PolicyError
from worldeval.policies.checking import try_policy
from worldeval.policies.scripted import RandomPolicy, ZeroPolicy
from worldeval.robots import RobotSpec
from worldeval.types import Observation


def observed(rollout: str, step: int = 0) -> Observation:
    return Observation(images={}, state={}, instruction="", rollout_id=rollout, step=step)


def test_zero_stands_still_with_an_open_gripper(toy_robot: RobotSpec) -> None:
    actions = try_policy(ZeroPolicy(toy_robot), toy_robot)
    assert (actions[..., :3] == 0).all()
    assert (actions[..., 3] == toy_robot.action_low[3]).all()


def test_random_depends_on_seed_rollout_and_step_alone(toy_robot: RobotSpec) -> None:
    policy = RandomPolicy(toy_robot)
    policy.reset(["a", "b"], ["", ""], [1, 1])
    a, b = policy.act([observed("a", 6), observed("b", 6)])
    assert not np.allclose(a, b)
    policy.reset(["b"], [""], [1])
    policy.act([observed("b", 12)])
    np.testing.assert_array_equal(policy.act([observed("b", 6)])[0], b)
    policy.reset(["b"], [""], [2])
    assert not np.allclose(policy.act([observed("b", 6)])[0], b)


def test_random_motion_is_smooth_also_across_chunks(toy_robot: RobotSpec) -> None:
    policy = RandomPolicy(toy_robot, speed=0.6)
    policy.reset(["a"], [""], [0])
    path = np.concatenate([policy.act([observed("a", k)])[0] for k in range(0, 600, 6)])
    # |d sin(2 pi f t)| per step is at most 2 pi f / rate, with f below 0.4 Hz
    bound = 0.6 * 2 * np.pi * 0.4 / toy_robot.control_hz
    assert np.abs(np.diff(path[:, :3], axis=0)).max() <= bound + 1e-6
    assert np.abs(path[:, :3]).max() <= 0.6
    assert path[:, :3].std(0).min() > 0.1
    assert set(np.unique(path[:, 3])) == {-1.0, 1.0}


def test_random_refuses_strangers_and_speeds(toy_robot: RobotSpec) -> None:
    with pytest.raises(PolicyError, match="does not know rollout 'x'"):
        RandomPolicy(toy_robot).act([observed("x")])
    with pytest.raises(ConfigError, match="speed is 2"):
        RandomPolicy(toy_robot, speed=2)
