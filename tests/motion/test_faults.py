"""Faults of a stream of actions: each does what it says, whatever the length of the chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.motion.faults import Fault, FaultyStream
from worldeval.worlds.sawyer import ROBOT

STEPS = 24


def chosen() -> np.ndarray:
    actions = np.random.default_rng(3).uniform(-0.9, 0.9, (STEPS, 4))
    actions[:, 3] = np.where(np.arange(STEPS) < 6, -1.0, 1.0)  # closes at step 6
    return actions


def executed(fault: Fault, robot=ROBOT, seed: int = 0) -> np.ndarray:
    return FaultyStream(fault, robot, np.random.default_rng(seed)).carry_out(chosen())


def test_without_a_fault_nothing_changes() -> None:
    np.testing.assert_allclose(executed(Fault()), chosen(), atol=1e-6)
    assert Fault().works and not Fault(gain=0.5).works
    assert str(Fault(gain=0.5, grip=0.3)) == "gain=0.5, grip=0.3"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(gain=0.5, noise=0.3, delay_steps=5),
        Fault(bias=(0.1, 0.0, -0.2), mirrored_axis=1, stop_after_steps=13),
        Fault(gripper_delay_steps=7, slip_after_steps=5),
        Fault(gripper="inverted", grip=0.4),
    ],
)
def test_one_chunk_equals_chunks_of_one(fault: Fault) -> None:
    stream = FaultyStream(fault, ROBOT, np.random.default_rng(0))
    apart = np.concatenate([stream.carry_out(action[None]) for action in chosen()])
    np.testing.assert_array_equal(apart, executed(fault))


def test_motion() -> None:
    actions = chosen()
    np.testing.assert_allclose(executed(Fault(gain=0.5))[:, :3], actions[:, :3] * 0.5, atol=1e-6)
    np.testing.assert_allclose(
        executed(Fault(bias=(0.05, 0.0, -0.1)))[:, :3],
        actions[:, :3] + [0.05, 0.0, -0.1],
        atol=1e-6,
    )
    mirrored = executed(Fault(mirrored_axis=1))
    np.testing.assert_allclose(mirrored[:, :3], actions[:, :3] * [1, -1, 1], atol=1e-6)
    late = executed(Fault(delay_steps=4))
    assert not late[:4, :3].any()
    np.testing.assert_allclose(late[4:, :3], actions[:-4, :3], atol=1e-6)
    np.testing.assert_allclose(late[:, 3], actions[:, 3], atol=1e-6)  # the gripper is in time
    stopped = executed(Fault(stop_after_steps=10, bias=(0.1, 0.1, 0.1)))
    assert stopped[:10, :3].any() and not stopped[10:, :3].any()
    noise = executed(Fault(noise=0.05))[:, :3] - actions[:, :3]
    assert 0.03 < noise.std() < 0.07


def test_gripper() -> None:
    assert (executed(Fault(gripper="open"))[:, 3] == -1).all()
    assert (executed(Fault(gripper="closed"))[:, 3] == 1).all()
    np.testing.assert_allclose(executed(Fault(gripper="inverted"))[:, 3], -chosen()[:, 3])
    weak = executed(Fault(grip=0.25))[:, 3]
    np.testing.assert_allclose(weak, np.where(np.arange(STEPS) < 6, -1.0, -0.5))
    late = executed(Fault(gripper_delay_steps=5))[:, 3]
    np.testing.assert_allclose(late, np.where(np.arange(STEPS) < 11, -1.0, 1.0))
    slipped = executed(Fault(slip_after_steps=3))[:, 3]
    held = (np.arange(STEPS) >= 6) & (np.arange(STEPS) < 9)
    np.testing.assert_allclose(slipped, np.where(held, 1.0, -1.0))


def test_a_gripper_of_the_other_sense_and_range() -> None:
    """0 is closed and 1 open: frozen open is 1, and a weak grip stays near 1."""
    low = (*ROBOT.action_low[:3], 0.0)
    robot = replace(ROBOT, action_low=low, gripper_sense="close_negative")
    stream = FaultyStream(Fault(grip=0.25), robot, np.random.default_rng(0))
    done = stream.carry_out(np.array([[0, 0, 0, 1.0], [0, 0, 0, 0.0]]))
    np.testing.assert_allclose(done[:, 3], [1.0, 0.75])
    opened = FaultyStream(Fault(gripper="open"), robot, np.random.default_rng(0))
    np.testing.assert_allclose(opened.carry_out(np.zeros((1, 4)))[:, 3], [1.0])


def test_bounds_hold() -> None:
    done = executed(Fault(gain=5.0, noise=2.0))
    assert np.abs(done).max() <= 1.0 and done.dtype == np.float32


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"gripper": "shut"}, "'shut'"),
        ({"grip": 1.5}, "grip is 1.5"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"delay_steps": -1}, "delay_steps is -1"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said) -> None:
    with pytest.raises(ConfigError, match=said):
        Fault(**wrong)


def test_what_does_not_fit_the_robot_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="bias has 2 numbers"):
        FaultyStream(Fault(bias=(0.1, 0.1)), ROBOT, rng)
    with pytest.raises(ConfigError, match="mirrored_axis is 3"):
        FaultyStream(Fault(mirrored_axis=3), ROBOT, rng)
