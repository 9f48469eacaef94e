from __future__ import annotations

import builtins

import numpy as np
import pytest

from worldeval.errors import ConfigError, PolicyError
from worldeval.policies.keyboard import KeyboardPolicy, read_line
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
