"""`worldeval serve-policy`: equal actions to the bit, conventions compared, clients of others."""

from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect

from tests.policies.servers import stub_server as stub
from tests.policies.servers.hashing import HashPolicy
from worldeval import testing
from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.motion.panda import panda
from worldeval.policies.loading import load_policy
from worldeval.policies.scripted import RandomPolicy
from worldeval.policies.servers.conventions import REMEDIES, ours, read_conventions
from worldeval.policies.servers.remote_policy import made_up
from worldeval.policies.servers.serving import PolicyServer
from worldeval.robots import RobotSpec, read_robot
from worldeval.testing import TOY_ROBOT

PANDA = panda(image_size=(24, 40))
SAWYER = read_robot("metaworld-sawyer")


def uri(server: PolicyServer, *arguments: str, scheme: str = "roboarena") -> str:
    return f"{scheme}://127.0.0.1:{server.port}?" + "&".join(["timeout_s=20", *arguments])


@pytest.mark.parametrize("robot", [PANDA, TOY_ROBOT, SAWYER], ids=lambda r: r.name)
@pytest.mark.parametrize("scheme", ["roboarena", "openpi"])
@pytest.mark.parametrize("size", [None, 20])
def test_a_served_policy_acts_as_in_process(
    robot: RobotSpec, scheme: str, size: int | None
) -> None:
    with PolicyServer(lambda: HashPolicy(robot, size=size), robot) as server:
        served = load_policy(uri(server, scheme=scheme), robot)
        testing.check_served(served, HashPolicy(robot, size=size), robot)
        testing.check_served(served, HashPolicy(robot, size=size), robot, seed=7)
        served.close()


def test_the_seed_of_a_rollout_reaches_the_policy() -> None:
    with PolicyServer(lambda: RandomPolicy(PANDA), PANDA) as server:
        served = load_policy(uri(server), PANDA)
        testing.check_served(served, RandomPolicy(PANDA), PANDA, seed=3)
        served.close()


def test_many_rollouts_at_once_do_not_mix() -> None:
    here = HashPolicy(PANDA)
    with PolicyServer(lambda: HashPolicy(PANDA), PANDA, sessions=6) as server:
        served = load_policy(uri(server), PANDA)
        names = [f"r{i}" for i in range(6)]
        looks = [
            dataclasses.replace(made_up(PANDA, here.spec), rollout_id=n, images=images)
            for n, images in zip(names, _images(here, 6), strict=True)
        ]
        for _ in range(2):  # a second batch takes the place of the first
            for one in (served, here):
                one.reset(names, ["x"] * 6, range(6))
            for _ in range(2):
                assert np.array_equal(served.act(looks), here.act(looks))
        with pytest.raises(PolicyError, match="7 rollouts were begun at once where sessions=6"):
            served.reset([*names, "more"], ["x"] * 7, range(7))
        served.close()


def _images(policy: HashPolicy, count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    shape = (*(policy.spec.image_size or ()), 3)
    return [
        {c: rng.integers(0, 256, shape, np.uint8) for c in policy.spec.cameras}
        for _ in range(count)
    ]


class Foreign:
    """A client of openpi's or RoboArena's kind, with the codec written out a second time."""

    def __init__(self, server: PolicyServer) -> None:
        self._opened = ExitStack()
        url = f"ws://127.0.0.1:{server.port}"
        self.connection = self._opened.enter_context(connect(url, compression=None))
        self.metadata = stub.decode(self.connection.recv())

    def close(self) -> None:
        self._opened.close()

    def ask(self, message: dict[str, Any]) -> Any:
        self.connection.send(stub.encode(message))
        answer = self.connection.recv()
        return answer if isinstance(answer, str) else stub.decode(answer)


def _request(policy: HashPolicy) -> dict[str, Any]:
    o = made_up(PANDA, policy.spec)
    images = _images(policy, 1)[0]
    return {
        **{f"observation/exterior_image_{i}_left": images[c] for i, c in enumerate(EXTERIORS)},
        **({"observation/wrist_image_left": images["wrist"]} if "wrist" in images else {}),
        **{f"observation/{name}": value for name, value in o.state.items()},
        "prompt": "go",
    }


EXTERIORS = [c for c in HashPolicy(PANDA).spec.cameras if c != "wrist"]


def test_a_client_of_roboarena_and_one_of_openpi_are_answered() -> None:
    here = HashPolicy(PANDA, forgets=True)
    with PolicyServer(lambda: HashPolicy(PANDA, forgets=True), PANDA) as server:
        client, request = Foreign(server), _request(here)
        assert client.metadata["action_space"] == "joint_velocity"
        assert client.metadata["image_resolution"] == [20, 24]
        assert client.metadata["n_external_cameras"] == len(EXTERIORS)
        arena = request | {"endpoint": "infer", "session_id": "one"}
        assert client.ask({"endpoint": "reset", "session_id": "one"}) == "reset successful"
        actions = client.ask(arena)
        assert actions.shape == (4, 8)
        plain = client.ask(request)
        assert np.array_equal(plain["actions"], actions)
        del arena["observation/gripper_position"]
        said = client.ask(arena)
        assert "Traceback (most recent call last)" in said
        assert "a request has no 'observation/gripper_position', expected" in said
        client.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"endpoint": "kill"}, "endpoint is 'kill', expected 'infer' or 'reset'"),
        ({"observation/joint_position": np.zeros(6)}, r"shape \(6,\), expected 7 numbers"),
        ({"observation/joint_position": np.full(7, np.nan)}, "not finite"),
        ({"observation/exterior_image_0_left": np.zeros((20, 24, 3))}, "float64 of shape"),
        ({"observation/exterior_image_0_left": np.zeros((9, 9, 3), np.uint8)}, r"\(9, 9, 3\)"),
        ({"step": -1}, "step is -1"),
    ],
)
def test_a_request_that_does_not_fit_is_told(changes: dict[str, Any], said: str) -> None:
    with PolicyServer(lambda: HashPolicy(PANDA), PANDA) as server:
        client = Foreign(server)
        answer = client.ask(_request(HashPolicy(PANDA)) | changes)
        assert isinstance(answer, str) and re.search(said, answer), answer
        client.close()


def test_a_session_that_made_place_for_another_is_not_answered_in_silence() -> None:
    with PolicyServer(lambda: HashPolicy(PANDA), PANDA, sessions=1) as server:
        client, request = Foreign(server), _request(HashPolicy(PANDA))
        client.ask(request | {"endpoint": "infer", "session_id": "a"})
        client.ask(request | {"endpoint": "infer", "session_id": "b"})
        said = client.ask(request | {"endpoint": "infer", "session_id": "a"})
        assert "session 'a' was ended, because 1 others were begun after it" in said
        client.close()


PITFALLS: dict[str, dict[str, Any]] = {
    "antipodal quaternions": {"quaternion_sign": "any"},
    "state from another source": {"state_source": "measured"},
    "statistics of another data set": {"action_statistics": "bridge_orig"},
    "gripper sense": {"gripper_sense": "close_negative"},
    "gripper range": {"gripper_range": [[-1.0, 1.0]]},
    "binary gripper": {"gripper_kind": "binary"},
    "order of turns": {"rotation": "euler zyx"},
    "degrees": {"rotation_unit": "deg"},
    "xyzw against wxyz": {"quaternion_order": "xyzw"},
    "absolute against relative": {"action_reference": "absolute"},
    "tool frame": {"action_frame": "tool"},
    "joint order": {"joint_names": list(reversed(PANDA.joint_names))},
    "image upside down": {"image_rotation": "180"},
    "BGR": {"channel_order": "bgr"},
    "letterbox against stretch": {"resize": "letterbox"},
    "224 against 256": {"image_size": [256, 256]},
    "no wrist view": {"camera_mounts": {"exterior_1": "uncalibrated"}},
    "history": {"history": 2},
    "cameras swapped": {"camera_mounts": {"wrist": "fixed", "exterior_1": "hand"}},
    "control rate": {"rate_hz": 5.0},
    "chunk carried out in part": {"execute": 1},
    "chunk longer": {"chunk": 16},
    "actions repeated": {"action_repeat": 2},
    "waiting at the start": {"waiting_steps": 10},
    "state of another time": {"state_time": "one step before the images"},
    "form of the instruction": {"prompt": "lower case, no full stop"},
    "images as 0..1": {"image_scale": "float32 0..1"},
}


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_a_pitfall_stops_before_the_first_step(pitfall: str) -> None:
    (name, value), *_ = PITFALLS[pitfall].items()
    mine = ours(PANDA, HashPolicy(PANDA).spec)[name]
    with PolicyServer(lambda: HashPolicy(PANDA), PANDA, conventions=PITFALLS[pitfall]) as server:
        both = f"served with {name} {value!r} where robot {PANDA.name!r} has {mine!r}"
        with pytest.raises(MismatchError, match=re.escape(f"{both} ({REMEDIES[name]})")):
            load_policy(uri(server), PANDA)
        assert not server._open  # nobody asked it anything


@pytest.mark.parametrize(
    ("robot", "changes", "said"),
    [
        (TOY_ROBOT, {"gripper_sense": "close_negative"}, "gripper_sense 'close_"),
        (TOY_ROBOT, {"action_low": (-2.0,) * 4}, r"gripper_range \[\[-2"),
        (SAWYER, {"image_size": (48, 48)}, "image_size"),
        (SAWYER, {"control_hz": 40.0}, "rate_hz"),
    ],
    ids=["sense", "range", "size", "rate"],
)
def test_two_robots_that_differ_in_truth_are_told_apart(
    robot: RobotSpec, changes: dict[str, Any], said: str
) -> None:
    other = dataclasses.replace(robot, **changes)
    with (
        PolicyServer(lambda: HashPolicy(other, size=None), other) as server,
        pytest.raises(MismatchError, match=said),
    ):
        load_policy(uri(server), robot)


def test_a_misspelt_convention_is_told(tmp_path: Any) -> None:
    path = tmp_path / "conventions.toml"
    path.write_text("gripper_sens = 'x'")
    with pytest.raises(ConfigError, match="did you mean 'gripper_sense'"):
        read_conventions(path)


def test_the_verb_serves_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "worldeval", "serve-policy", "random", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            served = load_policy(process.stdout.readline().strip(), SAWYER)
            testing.check_served(served, load_policy("random", SAWYER), SAWYER)
            served.close()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_what_is_said_of_a_served_policy_can_be_corrected_by_a_file(tmp_path: Any) -> None:
    path = tmp_path / "conventions.toml"
    path.write_text('gripper_kind = "binary"')
    with PolicyServer(lambda: HashPolicy(PANDA), PANDA) as server:
        with pytest.raises(MismatchError, match="gripper_kind 'binary' where .* 'continuous'"):
            load_policy(uri(server, f"conventions={path}"), PANDA)
        load_policy(uri(server, f"conventions={path}", "gripper=binary"), PANDA).close()
