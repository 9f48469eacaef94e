"""RoboArena's handshake, its two endpoints, and sessions that survive the death of their server."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.motion.panda import panda
from worldeval.policies.loading import load_policy
from worldeval.policies.servers.remote_policy import made_up
from worldeval.policies.servers.roboarena import RoboArenaPolicy
from worldeval.robots import RobotSpec
from worldeval.types import Observation

_spec = importlib.util.spec_from_file_location(
    "stub_server", Path(__file__).parent / "stub_server.py"
)
assert _spec is not None and _spec.loader is not None
stub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stub)

ROBOT = panda(image_size=(24, 40))


class Arena:
    """Answers as RoboArena's server does; with sessions, by all that was shown since the reset."""

    def __init__(self, *, size: int = 8) -> None:
        self.size = size
        self.past: dict[str, list[dict[str, Any]]] = {}
        self.resets: list[str | None] = []

    def __call__(self, request: dict[str, Any]) -> Any:
        observation = dict(request)
        endpoint, session = observation.pop("endpoint"), observation.pop("session_id", None)
        if endpoint == "reset":
            self.resets.append(session)
            self.past[session or ""] = []
            return "reset successful"
        assert endpoint == "infer"
        if session is None:
            return stub.hashed_actions(observation, size=self.size)
        self.past[session].append(observation)
        return stub.hashed_actions({"all": self.past[session]}, size=self.size)


def config(**changes: Any) -> dict[str, Any]:
    return stub.ROBOARENA | changes


def uri(server: Any, *arguments: str, scheme: str = "roboarena") -> str:
    return f"{scheme}://127.0.0.1:{server.port}?" + "&".join(
        ["timeout_s=20", "reconnect_s=20", *arguments]
    )


def look(policy: RoboArenaPolicy, robot: RobotSpec, rollout: str, step: int) -> Observation:
    first = made_up(robot, policy.spec)
    return dataclasses.replace(first, rollout_id=rollout, step=step, instruction=f"at {step}")


@pytest.mark.parametrize("scheme", ["roboarena", "openpi"])
def test_the_server_says_what_it_wants(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    robot = panda("joint_position", image_size=(24, 40))
    metadata = config(
        image_resolution=[20, 40], n_external_cameras=2, action_space="joint_position"
    )
    arena = Arena()
    with (
        stub.StubServer(arena, metadata=metadata) as server,
        caplog.at_level(logging.WARNING),
    ):
        policy = load_policy(uri(server, scheme=scheme), robot)
        assert isinstance(policy, RoboArenaPolicy)
        assert ("describes itself as a RoboArena server" in caplog.text) is (scheme == "openpi")
        assert policy.spec.cameras == ("exterior_1", "exterior_2", "wrist")
        policy.reset(["a"], [""], [0])
        observation = look(policy, robot, "a", 0)
        actions = policy.act([observation])[0]
        asked = server.seen[-1]
        policy.close()
    assert arena.resets == [None, None]  # the trial's and the rollout's
    assert set(asked) == {
        "endpoint",
        "observation/exterior_image_0_left",
        "observation/exterior_image_1_left",
        "observation/wrist_image_left",
        "observation/joint_position",
        "observation/cartesian_position",
        "observation/gripper_position",
        "prompt",
    }
    assert asked["observation/exterior_image_0_left"].shape == (20, 40, 3)
    assert np.array_equal(
        asked["observation/cartesian_position"], observation.state["cartesian_position"]
    )
    raw = stub.hashed_actions({k: v for k, v in asked.items() if k != "endpoint"})
    low, high = np.float32(robot.action_low), np.float32(robot.action_high)
    expected = np.clip(raw.astype(np.float32), low, high)
    assert np.array_equal(actions[:, :7], expected[:, :7])


def test_poses_and_images_as_they_are() -> None:
    robot = panda("absolute_pose", image_size=(24, 40))
    metadata = config(
        action_space="cartesian_position", n_external_cameras=0, image_resolution=None
    )
    with stub.StubServer(Arena(size=7), metadata=metadata) as server:
        policy = load_policy(uri(server, "name=pose"), robot)
        assert (policy.spec.action_space, policy.spec.action_dim) == ("absolute_pose", 7)
        policy.act([look(policy, robot, "a", 0)])
        assert server.seen[-1]["observation/wrist_image_left"].shape == (24, 40, 3)
        assert "observation/exterior_image_0_left" not in server.seen[-1]
        policy.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"action_space": "joint_position"}, "action_space 'joint_position'"),
        ({"action_space": "cartesian_velocity"}, "action_space is 'cartesian_velocity'"),
        ({"n_external_cameras": 3}, "n_external_cameras is 3"),
        ({"needs_stereo_camera": True}, "no world here has a second lens"),
        ({"needs_wrist_camera": "yes"}, "needs_wrist_camera is 'yes'"),
        ({"image_resolution": [224]}, r"image_resolution is \(224,\)"),
        ({"image_resolution": 224}, r"image_resolution is \(224,\)"),
    ],
)
def test_a_server_for_another_robot_is_refused_before_it_is_asked(
    changes: dict[str, Any], says: str
) -> None:
    with stub.StubServer(Arena(), metadata=config(**changes)) as server:
        with pytest.raises(MismatchError, match=says):
            load_policy(uri(server), ROBOT)
        assert server.seen == []


def test_a_plain_openpi_server_is_not_taken_for_one() -> None:
    with (
        stub.StubServer() as server,
        pytest.raises(MismatchError, match="write openpi:// instead"),
    ):
        load_policy(uri(server), ROBOT)


def test_a_reset_that_fails_is_the_policys_fault() -> None:
    def fail(request: dict[str, Any]) -> Any:
        raise RuntimeError("no weights")

    with (
        stub.StubServer(fail, metadata=config()) as server,
        pytest.raises(PolicyError, match="failed on a reset: RuntimeError: no weights"),
    ):
        load_policy(uri(server), ROBOT)


def play(policy: RoboArenaPolicy, between: Callable[[int], None]) -> np.ndarray:
    """Two rollouts of four chunks; (4, 2, 15, 8)."""
    policy.reset(["a", "b"], ["", ""], [0, 0])
    chunks = []
    for number in range(4):
        between(number)
        chunks.append(policy.act([look(policy, ROBOT, name, 12 * number) for name in "ab"]))
    return np.stack(chunks)


def test_sessions_are_told_again_to_a_server_that_was_killed() -> None:
    arenas = [Arena(), Arena()]
    server = stub.StubServer(arenas[0], metadata=config(needs_session_id=True))
    again = None
    policy = load_policy(uri(server, "sessions=2"), ROBOT)
    try:
        whole = play(policy, lambda number: None)
        assert len(np.unique(whole.reshape(8, -1), axis=0)) >= 4  # answers depend on the past

        def kill(number: int) -> None:
            nonlocal again
            if number == 2:
                server.kill()
                again = stub.StubServer(arenas[1], metadata=server.metadata, port=server.port)

        assert np.array_equal(play(policy, kill), whole)
        assert [len(past) for past in arenas[1].past.values()] == [4, 4]
        assert len(set(arenas[0].resets)) == 5  # the trial, and a new session for every rollout
    finally:
        policy.close()
        server.kill()
        if again is not None:
            again.kill()


def test_as_many_sessions_as_the_user_vouches_for() -> None:
    with stub.StubServer(Arena(), metadata=config(needs_session_id=True)) as server:
        policy = load_policy(uri(server), ROBOT)
        with pytest.raises(PolicyError, match="2 rollouts were begun at once where sessions=1"):
            policy.reset(["a", "b"], ["", ""], [0, 0])
        policy.reset(["a"], [""], [0])
        with pytest.raises(PolicyError, match="does not know rollout 'b'"):
            policy.act([look(policy, ROBOT, "b", 0)])
        policy.close()
        with pytest.raises(ConfigError, match="sessions is 0"):
            load_policy(uri(server, "sessions=0"), ROBOT)


@pytest.mark.parametrize(
    ("line", "sessions", "says"),
    [
        ('resize = "stretch"', False, "resize 'stretch' where .* has 'letterbox'"),
        ("rate_hz = 5.0", False, "rate_hz 5.0 where .* has 15.0"),
        ("history = 2", False, "history 2 where .* has 1"),
        ("history = 2", True, ""),  # a server with sessions remembers what it was shown
    ],
)
def test_what_a_roboarena_server_means_is_compared_with_a_file(
    tmp_path: Path, line: str, sessions: bool, says: str
) -> None:
    path = tmp_path / "meant.toml"
    path.write_text(line)
    with stub.StubServer(Arena(), metadata=config(needs_session_id=sessions)) as server:
        where = uri(server, f"conventions={path}")
        if says:
            with pytest.raises(MismatchError, match=says):
                load_policy(where, panda("joint_velocity", image_size=(24, 40)))
            assert not server.seen  # nobody asked it anything
        else:
            load_policy(where, panda("joint_velocity", image_size=(24, 40))).close()
