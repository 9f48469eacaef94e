"""vla-evaluation-harness's servers: the published bytes, one episode a connection, what goes wrong.

The server is written from the harness's src/vla_eval/model_servers/serve.py, predict.py and
protocol/, with a codec of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.policies.servers.hashing import HashPolicy
from worldeval import testing
from worldeval.errors import ConfigError, MismatchError, PolicyError, PolicyGoneError
from worldeval.motion.panda import panda
from worldeval.policies.loading import load_policy
from worldeval.policies.servers.remote_policy import made_up
from worldeval.robots import RobotSpec
from worldeval.testing import TOY_ROBOT
from worldeval.types import Observation

PANDA = panda(image_size=(24, 40))
DELTA = {"name": "position", "dims": 3, "format": "delta_xyz", "range": [-1, 1]}
GRIP = {"name": "gripper", "dims": 1, "format": "binary_close_positive", "range": [-1, 1]}
OPEN = GRIP | {"format": "binary_close_negative"}
RGB = {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"}
SAID = {
    "action_spec": {"position": DELTA, "gripper": GRIP},
    "observation_spec": {
        "image": RGB,
        "state": {"name": "state", "dims": 4, "format": "pos3_gripper1"},
        "language": {"name": "language", "dims": 0, "format": "language"},
    },
    "observation_params": {"send_state": True},
}


def encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {
            "__ndarray__": True,
            "data": value.tobytes(),
            "dtype": value.dtype.str,
            "shape": list(value.shape),
        }
    return float(value)


def decode(value: Any) -> Any:
    if "__ndarray__" in value:
        dtype = np.dtype(value["dtype"])
        return np.frombuffer(value["data"], dtype=dtype).reshape(value["shape"]).copy()
    return value


class Remembers(HashPolicy):
    """Its actions depend on all that it was shown since its reset, but not on a rollout's name."""

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        pairs = zip(rollout_ids, instructions, seeds, strict=True)
        self.past = {
            name: hashlib.sha256(f"{words} {seed}".encode()) for name, words, seed in pairs
        }

    def _one(self, o: Observation) -> np.ndarray:
        return super()._one(dataclasses.replace(o, step=0))


class Harness:
    """make: a policy, for each episode. chunked: whether the rest of a chunk stays in the server,
    as with its chunk_size. answer: instead of a policy; it gives the type and the payload."""

    def __init__(
        self,
        make: Callable[[], HashPolicy] | None = None,
        *,
        chunked: bool = False,
        said: dict[str, Any] = SAID,
        answer: Callable[[dict[str, Any]], Any] | None = None,
        greets: Callable[[dict[str, Any]], Any] | None = None,
        port: int = 0,
    ) -> None:
        self.make, self.chunked, self.said, self.answer = make, chunked, said, answer
        self.greets = greets
        self.seen: list[tuple[int, str]] = []
        self.open: list[ServerConnection] = []
        self.drop_next = threading.Event()
        self._server = serve(self._talk, "127.0.0.1", port, compression=None, max_size=None)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *exception: object) -> None:
        for connection in self.open:
            self.hang_up(connection)
        self._server.shutdown()
        self._thread.join()

    def uri(self, *arguments: str) -> str:
        return f"vla-eval://127.0.0.1:{self.port}?" + "&".join(["timeout_s=20", *arguments])

    @staticmethod
    def hang_up(connection: ServerConnection) -> None:
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)

    def _talk(self, connection: ServerConnection) -> None:
        self.open.append(connection)
        number, rest = len(self.open), []
        policy: HashPolicy | None = None

        def send(kind: str, payload: Any, seq: int) -> None:
            message = {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
            connection.send(msgpack.packb(message, default=encode, use_bin_type=True))

        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                message = msgpack.unpackb(connection.recv(), object_hook=decode, raw=False)
                assert sorted(message) == ["payload", "seq", "timestamp", "type"]
                kind, payload, seq = message["type"], message["payload"], message["seq"]
                self.seen.append((number, kind))
                if self.drop_next.is_set() and kind == "observation":
                    self.drop_next.clear()
                    self.hang_up(connection)
                elif kind == "hello":
                    hello = {"harness_version": "0.7.0", "protocol_version": 1, **self.said}
                    if self.greets is None:
                        send("hello", hello, seq)
                    elif (greeting := self.greets(hello)) is None:
                        return
                    else:
                        connection.send(greeting)
                elif kind == "episode_start":
                    rest.clear()
                    if self.make is not None:
                        policy = self.make()
                        policy.reset(["r"], [payload["task"]["name"]], [payload["seed"]])
                elif self.answer is not None:
                    given = self.answer(payload)
                    if given is not None:
                        send(*given, seq=seq)
                else:
                    assert policy is not None
                    if not rest:
                        rest.extend(self._act(policy, payload))
                    actions = rest.pop(0) if self.chunked else np.stack(rest)
                    if not self.chunked:
                        rest.clear()
                    send("action", {"actions": actions}, seq)

    @staticmethod
    def _act(policy: HashPolicy, payload: dict[str, Any]) -> np.ndarray:
        state = payload["states"]
        assert state.dtype == np.float32 and np.array_equal(state, payload["state"])
        names = policy.spec.state_keys
        shown = {names[0]: state}
        if len(names) > 1:
            shown = {names[0]: state[:-1], names[1]: state[-1:]}
        looked = Observation(
            images=payload["images"],
            state=shown,
            instruction=payload["task_description"],
            rollout_id="r",
            step=0,
        )
        return policy.act([looked])[0]


def made(robot: RobotSpec = TOY_ROBOT, **changes: Any) -> Remembers:
    return Remembers(robot, size=None, cameras=3, **changes)


@pytest.mark.parametrize("robot", [TOY_ROBOT, PANDA], ids=lambda robot: robot.name)
def test_a_policy_behind_the_harness_acts_as_in_process(robot: RobotSpec) -> None:
    said = SAID if robot is TOY_ROBOT else {}
    states = ",".join(made(robot).spec.state_keys)
    with Harness(lambda: made(robot), said=said) as server:
        served = load_policy(server.uri("name=mine", f"state={states}"), robot)
        assert (served.spec.name, served.spec.chunk) == ("mine", 4)
        for seed in (0, 5):
            testing.check_served(served, made(robot), robot, seed=seed)
        testing.check_policy(served, robot, count=9)  # more rollouts than requests at once
        served.close()


def test_a_server_that_keeps_its_chunks_is_asked_at_each_step() -> None:
    with Harness(made, chunked=True) as server:
        served = load_policy(server.uri(), TOY_ROBOT)
        assert (served.spec.chunk, served.spec.execute) == (1, 1)
        here = made()
        served.reset(["a"], ["go"], [3])
        here.reset(["a"], ["go"], [3])
        looked = dataclasses.replace(made_up(TOY_ROBOT, served.spec), rollout_id="a")
        for _ in range(2):  # each of its chunks is of the observation at which it began
            steps = [served.act([looked])[0, 0] for _ in range(4)]
            assert np.array_equal(np.stack(steps), here.act([looked])[0])
        served.close()


def test_rollouts_have_a_connection_each_and_do_not_mix() -> None:
    names = [f"r{i}" for i in range(6)]
    with Harness(made) as server:
        served, here = load_policy(server.uri("connections=2"), TOY_ROBOT), made()
        first = made_up(TOY_ROBOT, served.spec)
        looks = [
            dataclasses.replace(first, rollout_id=name, instruction=f"go {name}") for name in names
        ]
        for _ in range(2):
            for one in (served, here):
                one.reset(names, [look.instruction for look in looks], range(6))
            for rows in (looks, looks[2:], looks[::-1]):  # some end earlier, the order is another
                assert np.array_equal(served.act(rows), here.act(rows))
        assert len(server.open) == 6
        with pytest.raises(PolicyError, match="65 rollouts were begun at once .* say --batch 64"):
            served.reset([str(i) for i in range(65)], ["x"] * 65, range(65))
        with pytest.raises(PolicyError, match="does not know rollout 'other'"):
            served.act([dataclasses.replace(first, rollout_id="other")])
        served.close()


def test_a_server_that_comes_back_is_told_again_what_it_was_shown() -> None:
    with Harness(made) as server:
        served, here = load_policy(server.uri("reconnect_s=20"), TOY_ROBOT), made()
        for one in (served, here):
            one.reset(["a"], ["go"], [1])
        looked = dataclasses.replace(made_up(TOY_ROBOT, served.spec), rollout_id="a")
        assert np.array_equal(served.act([looked]), here.act([looked]))
        server.drop_next.set()
        assert np.array_equal(served.act([looked]), here.act([looked]))
        assert [kind for number, kind in server.seen if number == 2] == [
            "hello", "episode_start", "observation", "observation",
        ]  # fmt: skip
        served.close()


@pytest.mark.parametrize(
    ("said", "arguments", "expected"),
    [
        ({"action_spec": {"position": DELTA, "rotation": DELTA, "gripper": GRIP}}, "",
         r"actions of 7 numbers \(position 3, rotation 3, gripper 1\), robot 'toy' takes 4"),
        ({"observation_spec": {"image": RGB, "wrist": RGB}}, "cameras=top",
         r"wants 2 pictures \(image, wrist\) and would be sent 1 \(top\)"),
        ({"observation_spec": {"state": {"dims": 8, "format": "eef_pos3_quat4"}}}, "",
         r"a state of 8 numbers \(eef_pos3_quat4\) and would be sent 4 \(pose\)"),
        ({"action_spec": {"position": DELTA | {"format": "absolute_xyz"}}}, "",
         "actions of 3 numbers"),
        ({"action_spec": {"position": DELTA | {"format": "absolute_xyz"}, "gripper": GRIP}}, "",
         "action_reference 'absolute' where robot 'toy' has 'relative'"),
        ({"action_spec": {"position": DELTA, "gripper": OPEN}},
         "", "gripper_sense 'close_negative' where"),
        ({"action_spec": {"position": DELTA, "gripper": GRIP | {"range": [0, 1]}}}, "",
         r"gripper_range \[\[0.0, 1.0\]\] where"),
    ],
)  # fmt: skip
def test_what_the_server_says_of_itself_is_compared_before_it_is_asked(
    said: dict[str, Any], arguments: str, expected: str
) -> None:
    with Harness(made, said=SAID | said) as server:
        with pytest.raises(MismatchError, match=expected):
            load_policy(server.uri(*filter(None, [arguments])), TOY_ROBOT)
        assert {kind for _, kind in server.seen} == {"hello"}


def test_turns_are_compared_too() -> None:
    robot = dataclasses.replace(panda("absolute_pose"), rotation="euler")
    turns = {"name": "rotation", "dims": 3, "format": "axis_angle"}
    place = {"name": "position", "dims": 3, "format": "absolute_xyz"}
    spec = {"position": place, "rotation": turns, "gripper": GRIP | {"range": [0, 1]}}
    with (
        Harness(made, said={"action_spec": spec}) as server,
        pytest.raises(MismatchError, match="rotation 'rotation_vector' where .* has 'euler'"),
    ):
        load_policy(server.uri(), robot)


def test_what_it_does_not_say_a_file_does(tmp_path: Path) -> None:
    path = tmp_path / "meant.toml"
    path.write_text('image_rotation = "180"')
    with (
        Harness(made) as server,
        pytest.raises(MismatchError, match="image_rotation '180' where"),
    ):
        load_policy(server.uri(f"conventions={path}"), TOY_ROBOT)


def message(**parts: Any) -> bytes:
    whole = {"type": "hello", "payload": {}, "seq": 0, "timestamp": 0.0} | parts
    return msgpack.packb(whole)


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        (None, "hung up when it was greeted .* newer version"),
        (b"\xc1", "no message of vla-evaluation-harness"),
        ("metadata", "no message of vla-evaluation-harness"),
        (msgpack.packb([1]), "no message"),
        (message(payload=3), "no map with a payload"),
        (message(type="action"), "answered hello with 'action'"),
        (message(payload={"x": msgpack.ExtType(3, b"")}), "extension 3"),
    ],
)
def test_another_kind_of_server_is_told(greeting: Any, expected: str) -> None:
    with (
        Harness(greets=lambda hello: greeting) as server,
        pytest.raises(PolicyError, match=expected),
    ):
        load_policy(server.uri(), TOY_ROBOT)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (("error", {"error": "observation_failed: KeyError: 'wrist'"}), "failed on .*KeyError"),
        (("hello", {}), "with 'hello' number .*, expected 'action'"),
        (("action", {"action": [0.0]}), "with action, expected 'actions'"),
        (("action", {"actions": np.zeros(3)}), r"shape \(1, 3\), expected \(chunk, 4\)"),
        (("action", {"actions": [[0.0], [0.0, 1.0]]}), "expected numbers"),
        (("action", {"actions": {"__ndarray__": True, "dtype": "|O", "shape": [1], "data": b""}}),
         "dtype '|O'"),
        (("action", {"actions": {"__ndarray__": True, "dtype": "<f4", "shape": [9], "data": b""}}),
         "do not fit together"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_stops_before_the_first_step(
    answer: Any, expected: str
) -> None:
    with (
        Harness(answer=lambda payload: answer) as server,
        pytest.raises(PolicyError, match=expected),
    ):
        load_policy(server.uri(), TOY_ROBOT)


def test_after_an_error_a_late_answer_is_no_ones() -> None:
    calls: list[int] = []

    def second_fails(payload: dict[str, Any]) -> Any:
        calls.append(len(calls))
        if calls[-1] == 1:
            return "error", {"error": "out of memory"}
        return "action", {"actions": np.full((2, 4), calls[-1] / 10, np.float32)}

    with Harness(answer=second_fails) as server:
        served = load_policy(server.uri(), TOY_ROBOT)
        served.reset(["a"], ["go"], [0])
        looked = dataclasses.replace(made_up(TOY_ROBOT, served.spec), rollout_id="a")
        with pytest.raises(PolicyError, match="out of memory"):
            served.act([looked])
        assert served.act([looked])[0, 0, 0] == np.float32(0.2)
        served.close()


def test_a_server_that_hangs_or_is_not_there_is_told() -> None:
    with pytest.raises(PolicyError, match="no policy server answers at ws://127.0.0.1:9"):
        load_policy("vla-eval://127.0.0.1:9", TOY_ROBOT)
    with (
        Harness(answer=lambda payload: None) as server,
        pytest.raises(PolicyError, match="did not answer for .* within 0.3 s"),
    ):
        load_policy(server.uri("timeout_s=0.3"), TOY_ROBOT)
    with pytest.raises(ConfigError, match="names no server"):
        load_policy("vla-eval:host", TOY_ROBOT)
    with pytest.raises(ConfigError, match="no argument 'chunk'"):
        load_policy("vla-eval://127.0.0.1:9?chunk=3", TOY_ROBOT)


def test_another_server_in_its_place_ends_the_run() -> None:
    with Harness(made) as first:
        served = load_policy(first.uri("reconnect_s=10"), TOY_ROBOT)
        served.reset(["a"], ["go"], [0])
        looked = dataclasses.replace(made_up(TOY_ROBOT, served.spec), rollout_id="a")
    with (
        Harness(made, said={}, port=first.port),
        pytest.raises(PolicyGoneError, match="came back as another server"),
    ):
        served.act([looked])
    served.close()
