from __future__ import annotations

import builtins
from dataclasses import replace

import numpy as np
import pytest

from worldeval.errors import ConfigError, PolicyError
from worldeval.motion.panda import panda
from worldeval.policies.keyboard import KeyboardPolicy, read_line
from worldeval.policies.loading import load_policy
from worldeval.robots import RobotSpec
from worldeval.types import Observation

LOOK = Observation(images={}, state={}, instruction="open", rollout_id="a", step=0)


def typing(robot: RobotSpec, *lines: str) -> list[np.ndarray]:
    keys = iter(lines)
    policy = KeyboardPolicy(robot, keys=lambda observation: next(keys), speed=0.5)
    policy.reset(["a"], ["open"], [0])
    return [policy.act([LOOK])[0] for _ in lines]


@pytest.mark.parametrize(
    ("typed", "motion"),
    [
        ("l", (-0.5, 0, 0)),
        ("r", (0.5, 0, 0)),
        ("f", (0, 0.5, 0)),
        ("b", (0, -0.5, 0)),
        ("u", (0, 0, 0.5)),
        ("d", (0, 0, -0.5)),
        ("Ru", (0.5, 0, 0.5)),
        ("lll", (-1, 0, 0)),
        ("l r", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_keys_move(toy_robot: RobotSpec, typed: str, motion: tuple[float, ...]) -> None:
    (chunk,) = typing(toy_robot, typed)
    assert chunk.shape == (6, 4)
    np.testing.assert_allclose(chunk, np.tile([*motion, -1.0], (6, 1)))


def test_the_gripper_stays_as_told(toy_robot: RobotSpec) -> None:
    chunks = typing(toy_robot, "u", "c", "u", "o", "")
    assert [chunk[0, 3] for chunk in chunks] == [-1, 1, 1, -1, -1]


def test_unknown_keys_and_quitting(toy_robot: RobotSpec) -> None:
    with pytest.raises(PolicyError, match="'z' has no meaning"):
        typing(toy_robot, "lz")
    with pytest.raises(KeyboardInterrupt):
        typing(toy_robot, "q")
    with pytest.raises(ConfigError, match="speed is 0"):
        KeyboardPolicy(toy_robot, speed=0)


def test_the_end_of_the_input_quits(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(builtins, "input", ended)
    assert read_line(LOOK) == "q"


AT = np.array([0.5, 0.1, 0.3, 3.1, 0.0, -1.5, 0.25], np.float32)


def arm_chunk(action_space: str, typed: str, *, steps_per_frame: int = 3) -> np.ndarray:
    robot = panda(action_space, steps_per_frame=steps_per_frame)
    policy = KeyboardPolicy(robot, keys=lambda observation: typed)
    assert policy.spec.state_keys == ("pose",)
    policy.reset(["a"], [""], [0])
    return policy.act([replace(LOOK, state={"pose": AT})])[0]


@pytest.mark.parametrize(
    ("typed", "motion_m"),
    [
        ("f", (0.08, 0, 0)),
        ("b", (-0.08, 0, 0)),
        ("l", (0, 0.08, 0)),
        ("r", (0, -0.08, 0)),
        ("u", (0, 0, 0.08)),
        ("d", (0, 0, -0.08)),
        ("ffr", (0.16, -0.08, 0)),
        (".", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("steps_per_frame", [2, 3])
def test_a_key_moves_an_arm_8_cm_in_4_frames(
    typed: str, motion_m: tuple[float, ...], steps_per_frame: int
) -> None:
    poses = arm_chunk("absolute_pose", typed, steps_per_frame=steps_per_frame)
    assert poses.shape == (4 * steps_per_frame, 7)
    at_frames = poses[steps_per_frame - 1 :: steps_per_frame]
    expected = AT[:3] + np.outer([0.25, 0.5, 0.75, 1.0], motion_m)
    np.testing.assert_allclose(at_frames[:, :3], expected, atol=1e-6)
    np.testing.assert_array_equal(poses[:, 3:], np.tile(AT[3:], (len(poses), 1)))
    deltas = arm_chunk("delta_pose", typed, steps_per_frame=steps_per_frame)
    np.testing.assert_allclose(deltas[:, :3].sum(0), motion_m, atol=1e-6)
    assert not deltas[:, 3:6].any() and (deltas[:, 6] == AT[6]).all()


def test_a_script_is_played_one_key_a_chunk_in_every_rollout() -> None:
    policy = load_policy("keyboard?keys=lc.o", panda("absolute_pose"))
    policy.reset(["a", "b"], ["", ""], [0, 1])
    looks = [replace(LOOK, rollout_id=i, state={"pose": AT}) for i in "ab"]
    ends = []
    for number in range(6):
        chunks = policy.act([replace(look, step=12 * number) for look in looks])
        np.testing.assert_array_equal(chunks[0], chunks[1])
        ends.append(chunks[0, -1])
    moved = np.array(ends)[:, 1] - AT[1]
    np.testing.assert_allclose(moved, [0.08, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(np.array(ends)[:, 6], [0.25, 1, 1, 0, 0, 0])


def test_what_the_keyboard_cannot_do_is_said_at_once(toy_robot: RobotSpec) -> None:
    with pytest.raises(ConfigError, match="--action-space absolute_pose"):
        load_policy("keyboard", panda("joint_velocity"))
    with pytest.raises(ConfigError, match="'z' has no meaning"):
        load_policy("keyboard?keys=lz", toy_robot)
    with pytest.raises(ConfigError, match="keys is 12"):
        load_policy("keyboard?keys=12", toy_robot)
    with pytest.raises(ConfigError, match="6 actions, of which 0 are grippers, expected 3"):
        KeyboardPolicy(
            replace(
                toy_robot,
                action_names=tuple("abcdef"),
                pose_names=tuple("abcdef"),
                pose_low=(-1.0,) * 6,
                pose_high=(1.0,) * 6,
                action_low=(-1.0,) * 6,
                action_high=(1.0,) * 6,
            )
        )
