"""A server's commands for one's own robot: cut, counted and told by that robot's conventions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies.servers import stub_server as stub
from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.motion.adapters import adapter_for
from worldeval.motion.panda import panda
from worldeval.policies.checking import check_actions
from worldeval.policies.commands_sent import gripper_cuts
from worldeval.policies.loading import load_policy
from worldeval.policies.scripted import ZeroPolicy
from worldeval.policies.servers.request_keys import RequestKeys
from worldeval.robots import RobotSpec
from worldeval.types import Observation

KEYS = """
action_space = "toy-delta-position"
action_dim = 4
rate_hz = 10.0
image_size = []
[images]
"observation/image" = "top"
[state]
"observation/state" = ["pose"]
"""


@pytest.fixture
def served(toy_robot: RobotSpec, tmp_path: Path) -> Callable[..., Any]:
    """What is carried out where a server always sends one command (4,), and what is told."""
    (tmp_path / "keys.toml").write_text(KEYS)

    def ask(command: Any, robot: RobotSpec = toy_robot, arguments: str = "", times: int = 1) -> Any:
        def answer(_: dict[str, Any]) -> dict[str, Any]:
            return {"actions": np.tile(np.asarray(command, np.float32), (6, 1))}

        look = Observation(
            images={"top": np.zeros((*robot.image_size, 3), np.uint8)},
            state={"pose": np.zeros(4, np.float32)},
            instruction="close", rollout_id="r", step=0,
        )  # fmt: skip
        with stub.StubServer(answer) as server:
            uri = f"openpi://127.0.0.1:{server.port}?keys={tmp_path / 'keys.toml'}&name=own"
            policy = load_policy(uri + arguments, robot)
            for _ in range(times):
                actions = policy.act([look])[0]
            notes = policy.run_notes()
            policy.close()
        return actions[0], notes

    return ask


def with_gripper(robot: RobotSpec, low: float, high: float, **changes: Any) -> RobotSpec:
    return dataclasses.replace(
        robot,
        action_low=(*robot.action_low[:-1], low),
        action_high=(*robot.action_high[:-1], high),
        **changes,
    )


@pytest.mark.parametrize(
    ("low", "high", "command", "carried_out"),
    [
        (-1, 1, 0.3, 1), (-1, 1, -0.3, -1), (0, 1, 0.3, 0), (0, 1, 0.6, 1),
        (0, 100, 40, 0), (0, 100, 60, 100), (0, 0.08, 0.05, 0.08), (-2, 0, -0.5, 0),
    ],
)  # fmt: skip
def test_a_gripper_is_cut_at_the_middle_of_its_own_bounds(
    served: Callable, toy_robot: RobotSpec, low, high, command, carried_out
) -> None:
    actions, _ = served([0, 0, 0, command], with_gripper(toy_robot, low, high))
    assert actions[3] == pytest.approx(carried_out)


def test_how_a_gripper_is_carried_out_is_said_and_can_be_changed(served: Callable, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert served([0, 0, 0, 0.3])[0][3] == 1
    assert "'gripper' is cut at 0 of [-1, 1], up to it -1 and above it 1" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert served([0, 0, 0, 0.3], arguments="&gripper=continuous")[0][3] == np.float32(0.3)
    assert "carried out as the server says" in caplog.text
    assert served([0, 0, 0, 0.3], arguments="&gripper_at=0.5")[0][3] == -1


def test_numbers_that_are_clipped_are_counted_and_told(served: Callable) -> None:
    actions, notes = served([3.0, -2.0, 0.5, 1.0], times=2)
    assert actions.tolist() == [1, -1, 0.5, 1]
    (note,) = notes
    for words in ("'own': 24 of 48 numbers", "dx 12 of 12, 3 to 3 where [-1, 1]", "clip=false"):
        assert words in note
    assert served([1.0, -1.0, 0.5, 1.0])[1] == []


def test_clipping_that_is_refused_is_an_error(served: Callable, toy_robot: RobotSpec) -> None:
    actions, notes = served([3.0, 0, 0, 1.0], arguments="&clip=false")
    assert actions[0] == 3 and notes == []
    spec = ZeroPolicy(toy_robot).spec
    with pytest.raises(PolicyError, match=r"answered 3 for 'dx'.*\[-1, 1\]"):
        check_actions(np.tile(actions, (1, spec.chunk, 1)), spec, toy_robot, 1)


def test_a_gripper_that_means_another_range_is_told(served: Callable, monkeypatch) -> None:
    monkeypatch.setattr("worldeval.policies.commands_sent.ENOUGH", 6)
    sent = iter(np.linspace(0.02, 0.97, 100))

    class Rising:
        def __array__(self, dtype=None, copy=None) -> np.ndarray:
            return np.array([0, 0, 0, next(sent)], np.float32)

    _, notes = served(Rising(), times=5)
    (note,) = notes
    assert "of 'gripper'" in note and "one side of 0" in note and "gripper_at=NUMBER" in note


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("&gripper_at=x", "gripper_at is 'x', expected a number"),
        ("&gripper_at=true", "gripper_at is True, expected a number"),
        ("&gripper_at=0.5&gripper=continuous", "leave one out"),
        ("&gripper=half", "gripper is 'half'"),
    ],
)
def test_options_that_make_no_sense(served: Callable, arguments, says) -> None:
    with pytest.raises(ConfigError, match=says):
        served([0, 0, 0, 0], arguments=arguments)


def test_an_action_that_is_no_gripper_is_never_cut(served: Callable, toy_robot: RobotSpec) -> None:
    arm = dataclasses.replace(toy_robot, action_names=("a", "b", "c", "elbow"))
    assert served([0, 0, 0, 0.3], arm)[0][3] == np.float32(0.3)
    with pytest.raises(ConfigError, match="no action with 'grip' in its name"):
        served([0, 0, 0, 0.3], arm, "&gripper_at=0")
    endless = with_gripper(toy_robot, -np.inf, np.inf)
    with pytest.raises(ConfigError, match="no bounds for 'gripper'"):
        gripper_cuts(endless, "binary", None)


@pytest.mark.parametrize("line", ['rate_hz = "x"', "rate_hz = true", "rate_hz = nan"])
def test_a_rate_that_is_no_number(served: Callable, tmp_path: Path, line, toy_robot) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(KEYS.replace("rate_hz = 10.0", line))
    with pytest.raises(ConfigError, match="wrong kind .rate_hz is"):
        load_policy(f"openpi://127.0.0.1:1?keys={path}", toy_robot)


def test_standing_still_opens_the_gripper_in_the_robots_own_sense(toy_robot: RobotSpec) -> None:
    other = with_gripper(toy_robot, 0, 5, gripper_sense="close_negative")
    assert ZeroPolicy(other)._still[-1] == 5 and ZeroPolicy(toy_robot)._still[-1] == -1
    with pytest.raises(ConfigError, match="gripper_sense is 'up'"):
        dataclasses.replace(toy_robot, gripper_sense="up")


def test_a_gripper_of_a_hundred_is_not_limited_to_one() -> None:
    robot = with_gripper(panda("absolute_pose"), 0, 100)
    pose = np.array([[0.4, 0, 0.3, 3, 0, 0, 50]])
    actions = np.tile(np.array([0.4, 0, 0.3, 3, 0, 0, 80], np.float32), (1, 3, 1))
    assert adapter_for(robot).advance(pose, None, actions)[0][0, -1, -1] == 80
    limited = adapter_for(robot, gripper_most=60)
    assert limited.advance(pose, None, actions)[0][0, -1, -1] == 60
    with pytest.raises(ConfigError, match="expected a number from 0 to 100"):
        adapter_for(robot, gripper_most=101)


def test_what_is_known_at_15_hz_or_of_another_order_is_not_taken_for_others(toy_robot) -> None:
    with pytest.raises(ConfigError, match="known at 15 Hz only"):
        adapter_for(dataclasses.replace(panda("joint_velocity"), control_hz=20.0))
    with pytest.raises(ConfigError, match="give both the same order"):
        dataclasses.replace(toy_robot, action_names=("gripper", "dx", "dy", "dz"))


def test_rounding_is_forgiven_in_the_robots_own_units(toy_robot: RobotSpec) -> None:
    spec = ZeroPolicy(toy_robot).spec
    actions = np.full((1, spec.chunk, 4), 1.0005, np.float32)
    assert check_actions(actions, spec, toy_robot, 1).max() == 1
    small = dataclasses.replace(toy_robot, action_low=(-0.002,) * 4, action_high=(0.002,) * 4)
    with pytest.raises(PolicyError, match="0.0025"):  # a quarter too far is no rounding
        check_actions(np.full((1, spec.chunk, 4), 0.0025, np.float32), spec, small, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": {"a": ("pose",)}}, "'a' is the key of more than one thing"),
        ({"prompt": "a"}, "'a' is the key of more than one thing"),
        ({"prompt": "b"}, "'b' is the key of more than one thing"),
        ({"prompt": ""}, "or empty"),
        ({"state": {"b": ()}}, "'b' lists nothing"),
        ({"image_size": (100_000, 100_000)}, "at most 4096"),
    ],
)
def test_nothing_is_sent_in_place_of_something_else(changes: dict[str, Any], says: str) -> None:
    keys = RequestKeys(
        images={"a": "top"}, state={"b": ("pose",)}, action_space="x", action_dim=4, rate_hz=20.0
    )
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(keys, **changes)


@pytest.mark.parametrize(
    ("line", "arguments", "says"),
    [
        ('channel_order = "bgr"', "", "channel_order 'bgr' where robot 'toy' has 'rgb'"),
        ("chunk = 9", "", "chunk 9 where robot 'toy' has 6"),
        ('gripper_kind = "continuous"', "", "gripper_kind 'continuous' where .* has 'binary'"),
        ('gripper_kind = "binary"', "&gripper=continuous", "gripper_kind 'binary' where"),
        ("image_size = [9, 9]", "", r"image_size \[9, 9\]"),
        ("chanel_order = 1", "", "did you mean 'channel_order'"),
    ],
)
def test_what_an_openpi_server_means_is_compared_with_a_file(
    served: Callable, tmp_path: Path, line: str, arguments: str, says: str
) -> None:
    path = tmp_path / "meant.toml"
    path.write_text(line)
    with pytest.raises((MismatchError, ConfigError), match=says):
        served([0, 0, 0, 0.3], arguments=f"{arguments}&conventions={path}")


def test_a_file_that_agrees_lets_an_openpi_server_act(served: Callable, tmp_path: Path) -> None:
    path = tmp_path / "meant.toml"
    path.write_text('chunk = 6\ngripper_kind = "binary"\nresize = "stretch"')
    assert served([0, 0, 0, 0.3], arguments=f"&conventions={path}")[0][3] == 1
