"""GR00T's inference service: the published bytes of N1.5 and N1.6, and what goes wrong.

The server is a real REP socket, written from Isaac-GR00T's gr00t/eval/service.py (N1.5) and
gr00t/policy/server_client.py (N1.6), with a codec of its own.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from tests.policies.servers.closing import close_while_asked
from tests.policies.servers.hashing import HashPolicy
from worldeval import testing
from worldeval.data.writers.modality import parts
from worldeval.errors import (
    ConfigError,
    MismatchError,
    PolicyAwayError,
    PolicyError,
    PolicyGoneError,
)
from worldeval.motion.panda import panda
from worldeval.policies.loading import load_policy
from worldeval.policies.servers import groot_bytes
from worldeval.policies.servers.groot_bytes import Modality
from worldeval.policies.servers.groot_keys import keys_of
from worldeval.policies.servers.remote_policy import made_up
from worldeval.robots import RobotSpec
from worldeval.testing import TOY_ROBOT
from worldeval.types import Observation

PANDA = panda(image_size=(24, 40))
TASK = "annotation.human.action.task_description"
MODALITIES: dict[str, Any] = {
    "video": {"delta_indices": [0], "modality_keys": ["top", "front"]},
    "state": {"delta_indices": [0], "modality_keys": ["arm", "gripper"]},
    "action": {"delta_indices": [0, 1, 2, 3], "modality_keys": ["arm", "gripper"]},
    "language": {"delta_indices": [0], "modality_keys": [TASK]},
}


def npy(array: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def read(obj: Any) -> Any:
    if "__ndarray_class__" in obj:
        return np.load(io.BytesIO(obj["as_npy"]), allow_pickle=False)
    return obj


def modality_config(which: dict[str, Any], old: bool) -> dict[str, Any]:
    """As pydantic's model_dump_json (N1.5) and asdict (N1.6) write them."""
    if old:
        return {
            kind: {
                "__ModalityConfig_class__": True,
                "as_json": json.dumps(
                    config
                    | {
                        "modality_keys": [
                            key if kind == "language" else f"{kind}.{key}"
                            for key in config["modality_keys"]
                        ]
                    }
                ),
            }
            for kind, config in which.items()
        }
    rest = {"sin_cos_embedding_keys": None, "mean_std_embedding_keys": None, "action_configs": None}
    return {
        kind: {"__ModalityConfig_class__": True, "as_json": rest | config}
        for kind, config in which.items()
    }


class GrootServer:
    """A REP socket in a thread. answer: called with the data of get_action; its value is sent as
    it is if it is bytes."""

    def __init__(
        self,
        policy: HashPolicy | None = None,
        *,
        old: bool = False,
        wrapped: bool = False,
        modalities: dict[str, Any] = MODALITIES,
        answer: Callable[[Any], Any] | None = None,
        token: str | None = None,
        port: int = 0,
    ) -> None:
        self.policy, self.old, self.wrapped, self.token = policy, old, wrapped, token
        self.modalities = modality_config(modalities, old)
        self._answer = answer or (self._one if old else self._batch)
        self.seen: list[tuple[str, Any]] = []
        self.stop, self.die = threading.Event(), threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> GrootServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop.set()
        self._thread.join()

    def uri(self, *arguments: str) -> str:
        return f"groot://127.0.0.1:{self.port}?" + "&".join(["timeout_s=20", *arguments])

    def _run(self) -> None:
        while not self.stop.is_set():
            if not self._socket.poll(10):
                continue
            request = msgpack.unpackb(self._socket.recv(), object_hook=read)
            try:
                value = self._respond(request)
            except Exception as error:  # as both servers do
                value = {"error": str(error)}
            if self.die.is_set():
                break
            self._socket.send(
                value if isinstance(value, bytes) else msgpack.packb(value, default=npy)
            )
        self._context.destroy(linger=0)

    def _respond(self, request: dict[str, Any]) -> Any:
        if self.token is not None and request.get("api_token") != self.token:
            return {"error": "Unauthorized: Invalid API token"}
        endpoint = request.get("endpoint", "get_action")
        self.seen.append((endpoint, request.get("data")))
        if endpoint == "get_modality_config":
            return self.modalities
        if endpoint == "reset" and not self.old:
            assert request["data"] == {"options": None}
            return {}
        if endpoint != "get_action":
            raise ValueError(f"Unknown endpoint: {endpoint}")
        return self._answer(request["data"])

    def _act(self, video: dict[str, Any], state: dict[str, Any], text: str) -> dict[str, Any]:
        """One observation of (H, W, 3) and (D,); (chunk, D) for each part of the action."""
        assert self.policy is not None
        assert all(image.dtype == np.uint8 for image in video.values())
        assert all(part.dtype == np.float32 for part in state.values())
        names = self.policy.spec.state_keys
        shown = {"pose": np.concatenate([state["arm"], state["gripper"]])}
        if names != ("pose",):
            shown = dict(zip(names, (state["arm"], state["gripper"]), strict=True))
        looked = Observation(images=video, state=shown, instruction=text, rollout_id="r", step=0)
        actions = self.policy.act([looked])[0]
        arm = actions.shape[1] - 1
        return {"arm": actions[:, :arm], "gripper": actions[:, arm:]}

    def _one(self, data: dict[str, Any]) -> dict[str, Any]:
        """N1.5: (T, H, W, 3) and (T, D) of one observation; axes of length 1 are squeezed."""
        video, state = (
            {k.partition(".")[2]: v[0] for k, v in data.items() if k.startswith(kind)}
            for kind in ("video.", "state.")
        )
        (text,) = data[TASK]
        found = self._act(video, state, text)
        return {f"action.{k}": np.squeeze(v[None]) for k, v in found.items()}

    def _batch(self, data: dict[str, Any]) -> list[Any]:
        """N1.6: (B, T, H, W, 3) and (B, T, D); what is not so is asserted against."""
        observation = data["observation"]
        assert data["options"] is None
        if self.wrapped:
            texts = observation.pop(TASK)
            pairs = [(*key.split(".", 1), value) for key, value in observation.items()]
            video, state = ({k: v for m, k, v in pairs if m == n} for n in ("video", "state"))
        else:
            video, state = observation["video"], observation["state"]
            texts = [text for (text,) in observation["language"][TASK]]
        assert all(v.ndim == 5 and v.shape[1] == 1 for v in video.values())
        assert all(v.ndim == 3 and v.shape[1] == 1 for v in state.values())
        found = [
            self._act(
                {k: v[row, 0] for k, v in video.items()},
                {k: v[row, 0] for k, v in state.items()},
                text,
            )
            for row, text in enumerate(texts)
        ]
        prefix = "action." if self.wrapped else ""
        return [{prefix + k: np.stack([one[k] for one in found]) for k in found[0]}, {}]


def hashed(robot: RobotSpec = TOY_ROBOT, **changes: Any) -> HashPolicy:
    return HashPolicy(robot, size=None, forgets=True, **changes)


def views(robot: RobotSpec) -> dict[str, Any]:
    return MODALITIES | {"video": {"delta_indices": [0], "modality_keys": list(robot.views[:2])}}


@pytest.mark.parametrize("robot", [TOY_ROBOT, PANDA], ids=lambda robot: robot.name)
@pytest.mark.parametrize("form", ["N1.5", "N1.6", "N1.6, sim wrapper"])
def test_a_policy_behind_gr00t_acts_as_in_process(robot: RobotSpec, form: str) -> None:
    old, wrapped = form == "N1.5", "wrapper" in form
    with GrootServer(hashed(robot), old=old, wrapped=wrapped, modalities=views(robot)) as server:
        served = load_policy(server.uri(f"sim_wrapper={str(wrapped).lower()}", "name=n"), robot)
        assert (served.spec.name, served.spec.chunk) == ("n", 4)
        testing.check_served(served, hashed(robot), robot)
        testing.check_policy(served, robot, count=9)  # more rollouts than connections
        asked = [endpoint for endpoint, _ in server.seen]
        # N1.6: nine rollouts in one request, and a reset before each episode
        assert asked.count("get_action") == (1 + 3 + 18 if old else 1 + 3 + 2)
        assert asked.count("reset") == (0 if old else 1 + 1 + 2)
        served.close()


def test_one_action_an_answer_is_read_too() -> None:
    one = MODALITIES | {"action": {"delta_indices": [0], "modality_keys": ["arm", "gripper"]}}
    for old in (True, False):
        with GrootServer(hashed(chunk=1), old=old, modalities=one) as server:
            served = load_policy(server.uri(), TOY_ROBOT)
            testing.check_served(served, hashed(chunk=1), TOY_ROBOT)
            served.close()


def test_what_export_names_is_found_by_itself() -> None:
    for robot in (TOY_ROBOT, PANDA):
        names = robot.pose_names
        if robot.joint_names:
            names = (*robot.joint_names, "gripper_position")  # as DROID has it
        said = {
            "state": Modality(tuple(parts(names)), (0,)),
            "action": Modality(tuple(parts(robot.action_names)), (0,)),
        }
        found = keys_of(said, robot, None, "mine")
        sent = {key: sum(len(places) for _, places in found.state[key]) for key in found.state}
        assert sent == {key: part["end"] - part["start"] for key, part in parts(names).items()}


def test_a_file_says_what_stands_under_a_foreign_key(tmp_path: Path) -> None:
    foreign = {
        "video": {"delta_indices": [0], "modality_keys": ["ego", "wrist"]},
        "state": {"delta_indices": [0], "modality_keys": ["arm", "gripper"]},
        "action": {"delta_indices": [0, 1, 2, 3], "modality_keys": ["gripper", "arm"]},
        "language": {"delta_indices": [0], "modality_keys": [TASK]},
    }
    path = tmp_path / "keys.toml"
    path.write_text('[images]\nego = "top"\nwrist = "front"\n[state]\narm = ["x", "y", "z"]\n')
    policy = hashed()

    class Renamed(GrootServer):
        def _act(self, video: Any, state: Any, text: str) -> Any:
            return super()._act({"top": video["ego"], "front": video["wrist"]}, state, text)

    with Renamed(policy, modalities=foreign) as server:
        with pytest.raises(MismatchError, match=r"video 'ego'.*top, front, side.*\[images\]"):
            load_policy(server.uri(), TOY_ROBOT)
        served = load_policy(server.uri(f"keys={path}"), TOY_ROBOT)
        testing.check_served(served, hashed(), TOY_ROBOT)
        served.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[image]\na = "top"', r"no 'image', did you mean 'images'.*\[images\], \[state\]"),
        ('[images]\nfrnt = "top"', "no 'frnt' in its video, did you mean 'front'"),
        ('[images]\nfront = "ceiling"', "video 'front', which is none of robot 'toy'"),
        ("[state]\narm = [1]", r"'arm' of \[state\] is \[1\], expected names of numbers"),
        ('[state]\narm = ["x", "w"]', r"state 'w', which is none of .*x, y, z, gripper"),
        ('[actions]\narm = ["dx", "dy"]', "answers dx, dy, gripper, expected each of dx, dy, dz"),
        ('[actions]\narm = ["dx", "dy", "dx"]', "expected each of dx, dy, dz, gripper once"),
        ("[images", "cannot be read as TOML"),
    ],
)
def test_a_file_of_keys_that_does_not_fit_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with (
        GrootServer(hashed()) as server,
        pytest.raises((ConfigError, MismatchError), match=said),
    ):
        load_policy(server.uri(f"keys={path}"), TOY_ROBOT)


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("video", {"modality_keys": ["ceiling"]}, "video 'ceiling', which is none of robot 'toy'"),
        ("state", {"modality_keys": ["left_leg"]}, "state 'left_leg', which is none of"),
        ("action", {"modality_keys": ["arm"]}, "answers dx, dy, dz, expected each of .* gripper"),
        ("action", {"modality_keys": ["hand"]}, "action 'hand', which is none of"),
        ("video", {"delta_indices": [-10, 0]}, r"video is of the moments \[-10, 0\].*newest"),
        ("action", {"delta_indices": [0, 2, 4]}, r"action is of the moments \[0, 2, 4\]"),
        ("action", {"delta_indices": []}, r"moments \[\]"),
    ],
)
@pytest.mark.parametrize("old", [True, False], ids=["N1.5", "N1.6"])
def test_a_modality_config_of_another_robot_stops_before_the_first_step(
    kind: str, config: dict[str, Any], said: str, old: bool
) -> None:
    modalities = MODALITIES | {kind: MODALITIES[kind] | config}
    with GrootServer(hashed(), old=old, modalities=modalities) as server:
        with pytest.raises(MismatchError, match=said):
            load_policy(server.uri(), TOY_ROBOT)
        assert {endpoint for endpoint, _ in server.seen} == {"get_modality_config"}


def test_what_follows_from_the_config_and_what_a_file_says_is_compared(tmp_path: Path) -> None:
    def kind(rep: str) -> dict[str, Any]:
        return {"rep": rep, "type": "NON_EEF", "format": "DEFAULT", "state_key": None}

    configs = {"action_configs": [kind("RELATIVE"), kind("ABSOLUTE")]}
    relative = MODALITIES | {"action": MODALITIES["action"] | configs}
    with (
        GrootServer(hashed(), modalities=relative) as server,
        pytest.raises(MismatchError, match="action_reference 'absolute' where .* 'relative'"),
    ):
        load_policy(server.uri(), TOY_ROBOT)
    path = tmp_path / "meant.toml"
    path.write_text("rate_hz = 5.0")
    with (
        GrootServer(hashed()) as server,
        pytest.raises(MismatchError, match="rate_hz 5.0 where"),
    ):
        load_policy(server.uri(f"conventions={path}"), TOY_ROBOT)


class Ran:
    """What a pickle would run."""

    there = False

    def __reduce__(self) -> Any:
        return (setattr, (Ran, "there", True))


def objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Ran()], dtype=object), allow_pickle=True)
    return file.getvalue()


def header(text: str, data: bytes = b"") -> bytes:
    line = text.encode()
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + data


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (objects(), "objects would be a pickle"),
        (b"no array", "cannot be read"),
        (b"", "cannot be read"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }\n", b"ab"), "in "),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 60,), }\n"), "cannot be"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }\n"), "in "),
        (header("__import__('os').system('x')\n"), "cannot be read"),
        (header("{'descr': 'V4', 'fortran_order': False, 'shape': (), }\n", b"abcd"), "V4"),
        (12, "cannot be read"),
    ],
)  # fmt: skip
def test_nothing_that_arrives_is_run(array: Any, said: str) -> None:
    def answer(data: Any) -> bytes:
        return msgpack.packb([{"arm": {"__ndarray_class__": True, "as_npy": array}}, {}])

    with (
        GrootServer(answer=answer) as server,
        pytest.raises(PolicyError, match=said),
    ):
        load_policy(server.uri(), TOY_ROBOT)
    assert not Ran.there


def test_arrays_of_both_orders_are_read() -> None:
    for order in ("C", "F"):
        array = np.asarray(np.arange(6, dtype=np.float32).reshape(2, 3), order=order)  # type: ignore[call-overload]
        back = groot_bytes.unpack(msgpack.packb(npy(array)), "tcp://x")
        assert np.array_equal(back, array) and back.flags.writeable


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"ERROR", "N1's pickles, which are never read here"),
        (pickle.dumps({"arm": 1}, protocol=2), "N1's pickles"),
        (b"\xc1", "none of GR00T's messages"),
        (msgpack.packb(msgpack.ExtType(4, b"x")), "extension 4"),
        ({"error": "Video key 'x' must be in observation"}, "failed on .*: Video key 'x' must"),
        ([{"arm": np.zeros((1, 4, 3))}, {}], "answered for .* with arm, expected 'gripper'"),
        ([{"arm": np.zeros((1, 4, 2)), "gripper": 0}, {}], r"'arm' of shape \(1, 4, 2\), expected"),
        ([{"arm": np.zeros((1, 9, 3)), "gripper": 0}, {}], r"expected \(1, 4, 3\) = \(batch"),
        ([{"arm": np.array([["a"]]), "gripper": 0}, {}], "'arm' of shape"),
        ([], "with no map, expected 'arm'"),
        (3, "with no map"),
        ([{"arm": np.full((1, 4, 3), np.nan), "gripper": np.zeros((1, 4, 1))}, {}], "finite"),
    ],
)
def test_an_answer_that_cannot_be_used_stops_before_the_first_step(answer: Any, said: str) -> None:
    with (
        GrootServer(answer=lambda data: answer) as server,
        pytest.raises((PolicyError, MismatchError), match=said),
    ):
        load_policy(server.uri(), TOY_ROBOT)


def test_a_key_is_sent_and_its_lack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with GrootServer(hashed(), token="secret") as server:
        with pytest.raises(PolicyError, match=r"Unauthorized.*give api_key_env=VARIABLE"):
            load_policy(server.uri(), TOY_ROBOT)
        monkeypatch.setenv("GROOT_TOKEN", "secret")
        load_policy(server.uri("api_key_env=GROOT_TOKEN"), TOY_ROBOT).close()


def test_nobody_at_the_address_and_another_kind_of_server_are_told() -> None:
    with pytest.raises(PolicyError, match=r"no policy server answers at tcp://127.0.0.1:9 \(Conn"):
        load_policy("groot://127.0.0.1:9", TOY_ROBOT)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            for _ in range(2):
                client, _ = other.accept()
                with client:
                    client.recv(8)
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 64)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(PolicyError, match="does not speak ZeroMQ|the server hung up"):
            load_policy(f"groot://127.0.0.1:{other.getsockname()[1]}", TOY_ROBOT)
        thread.join()


@pytest.mark.parametrize("uri", ["groot:host", "groot://", "groot://a:b@host", "groot://h:x"])
def test_an_address_that_is_none_is_told(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no (server|place)"):
        load_policy(uri, TOY_ROBOT)


@pytest.mark.parametrize("argument", ["size=0", "execute=0", "sim_wraper=true", "keys=none.toml"])
def test_arguments_that_do_not_fit_are_told(argument: str) -> None:
    with GrootServer(hashed()) as server, pytest.raises(ConfigError):
        load_policy(server.uri(argument), TOY_ROBOT)


def look(served: Any) -> Observation:
    return dataclasses.replace(made_up(TOY_ROBOT, served.spec), rollout_id="a")


def test_a_server_that_hangs_is_given_up_and_its_late_answer_is_no_ones() -> None:
    slow, policy = threading.Event(), hashed()

    class Slow(GrootServer):
        def _batch(self, data: dict[str, Any]) -> list[Any]:
            found = super()._batch(data)
            if slow.is_set():
                time.sleep(0.6)
            return found

    with Slow(policy) as server:
        served = load_policy(server.uri("timeout_s=0.3", "connections=1"), TOY_ROBOT)
        slow.set()
        with pytest.raises(PolicyError, match="did not answer for rollout 'a' step 0 within 0.3 s"):
            served.act([look(served)])
        slow.clear()
        time.sleep(0.6)
        other = dataclasses.replace(look(served), instruction="another")
        assert np.array_equal(served.act([other]), policy.act([other]))
        served.close()


def test_a_server_that_dies_while_it_thinks_is_told_at_once_and_may_come_back() -> None:
    server = GrootServer(hashed())
    uri = server.uri("reconnect_s=10", "connections=1", "timeout_s=20")
    with server:
        served = load_policy(uri, TOY_ROBOT)
        server.die.set()
        began = time.monotonic()
        again: list[GrootServer] = []
        thread = threading.Timer(0.5, lambda: again.append(GrootServer(hashed(), port=server.port)))
        thread.start()
        acted = served.act([look(served)])
        assert time.monotonic() - began < 8
        assert np.array_equal(acted, hashed().act([look(served)]))
        thread.join()
    with again[0]:
        pass
    served._groot.settings = served.pool.settings = dataclasses.replace(
        served.pool.settings, reconnect_s=0.0
    )
    for _ in range(7):
        with pytest.raises(PolicyAwayError, match="no policy server answers"):
            served.act([look(served)])
    with pytest.raises(PolicyGoneError, match="8 requests in a row"):
        served.act([look(served)])
    served.close()


def test_another_server_in_its_place_ends_the_run() -> None:
    with GrootServer(hashed()) as first:
        served = load_policy(first.uri("connections=1", "reconnect_s=5"), TOY_ROBOT)
    other = MODALITIES | {"action": {"delta_indices": [0], "modality_keys": ["arm", "gripper"]}}
    with (
        GrootServer(hashed(chunk=1), modalities=other, port=first.port),
        pytest.raises(PolicyGoneError, match="came back as another server"),
    ):
        served.act([look(served)])
    served.close()


def test_closing_ends_a_request_that_is_not_answered() -> None:
    asked, answered, hang = threading.Event(), threading.Event(), threading.Event()

    class Hanging(GrootServer):
        def _batch(self, data: dict[str, Any]) -> list[Any]:
            if hang.is_set():
                asked.set()
                answered.wait(20)
            return super()._batch(data)

    with Hanging(hashed()) as server:
        served = load_policy(server.uri(), TOY_ROBOT)
        hang.set()
        close_while_asked(served, look(served), asked, answered)
