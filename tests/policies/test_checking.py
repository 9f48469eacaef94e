from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from worldeval.errors import MismatchError, PolicyError
from worldeval.policies.checking import check_actions, check_policy, try_policy
from worldeval.policies.scripted import ZeroPolicy
from worldeval.robots import RobotSpec
from worldeval.robots.bounds import TOLERANCE


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("cameras", ("front",), "'front'"),
        ("image_size", (0, 24), r"\(0, 24\)"),
        ("state_keys", ("torque",), "'torque'"),
        ("action_space", "joint-velocity", "'toy-delta-position'"),
        ("action_dim", 7, "dx, dy, dz, gripper"),
        ("rate_hz", 15.0, "resample its actions to 10 Hz"),
        ("rate_hz", float("nan"), "rate_hz 10 "),
        ("rate_hz", "fast", "rate_hz 10 "),
        ("execute", 8, "execute 1 to 6; correct its spec"),
        ("execute", 0, "execute 1 to 6; correct its spec"),
        ("execute", 2.0, "execute 1 to 6; correct its spec"),
        ("execute", True, "execute 1 to 6; correct its spec"),
        ("chunk", 0, "chunk 1 or more and execute 1 to chunk"),
        ("chunk", None, "chunk 1 or more and execute 1 to chunk"),
    ],
)
def test_a_spec_that_disagrees_with_the_robot_raises(
    toy_robot: RobotSpec, field: str, value: object, says: str
) -> None:
    policy = ZeroPolicy(toy_robot)
    check_policy(policy, toy_robot)
    policy.spec = replace(policy.spec, **{field: value})
    with pytest.raises(MismatchError, match=says):
        check_policy(policy, toy_robot)


def test_other_image_sizes_and_fewer_executed_steps_are_fine(toy_robot: RobotSpec) -> None:
    policy = ZeroPolicy(toy_robot)
    policy.spec = replace(policy.spec, image_size=(224, 224), execute=2, cameras=("wrist",))
    check_policy(policy, toy_robot)


def test_what_is_no_policy_is_named(toy_robot: RobotSpec) -> None:
    with pytest.raises(PolicyError, match="no usable `spec`"):
        check_policy(object(), toy_robot)
    half = SimpleNamespace(spec=ZeroPolicy(toy_robot).spec, reset=print, close=print)
    with pytest.raises(PolicyError, match="no method 'act'"):
        check_policy(half, toy_robot)


def test_actions_are_clipped_within_the_tolerance_only(toy_robot: RobotSpec) -> None:
    spec = ZeroPolicy(toy_robot).spec
    actions = np.zeros((2, 6, 4))
    actions[1, 3, 2] = 1 + TOLERANCE / 2
    checked = check_actions(actions, spec, toy_robot, 2)
    assert checked.dtype == np.float32
    assert checked[1, 3, 2] == 1.0
    actions[1, 3, 2] = -1 - 2 * TOLERANCE
    with pytest.raises(PolicyError, match=r"-1\.002 for 'dz' \(row 1, step 3\).*\[-1, 1\]"):
        check_actions(actions, spec, toy_robot, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_raise(toy_robot: RobotSpec, bad: float) -> None:
    actions = np.zeros((1, 6, 4), np.float32)
    actions[0, 5, 3] = bad
    with pytest.raises(PolicyError, match=r"'gripper' \(row 0, step 5\)"):
        check_actions(actions, ZeroPolicy(toy_robot).spec, toy_robot, 1)


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((1, 6, 4)),
        np.zeros((2, 5, 4)),
        np.zeros((2, 6, 3)),
        np.zeros((6, 4)),
        None,
        "left",
        [[0.0], [0.0, 1.0]],
    ],
)
def test_answers_of_another_shape_raise(toy_robot: RobotSpec, answer: object) -> None:
    with pytest.raises(PolicyError, match="expected"):
        check_actions(answer, ZeroPolicy(toy_robot).spec, toy_robot, 2)


def test_try_policy_shows_what_the_spec_asks_for(toy_robot: RobotSpec) -> None:
    seen = []

    class Curious(ZeroPolicy):
        def act(self, observations):
            seen.extend(observations)
            return super().act(observations)

    policy = Curious(toy_robot)
    policy.spec = replace(policy.spec, cameras=("wrist",), image_size=(8, 12), state_keys=("pose",))
    assert try_policy(policy, toy_robot, batch=3).shape == (3, 6, 4)
    assert len(seen) == 3
    assert set(seen[0].images) == {"wrist"}
    assert seen[0].images["wrist"].shape == (8, 12, 3)
    np.testing.assert_allclose(seen[0].state["pose"], [0, 0, 0.25, 0])
