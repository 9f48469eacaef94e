"""Policies behind real sockets that speak the real bytes, and every way in which they fail."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval.errors import ConfigError, MismatchError, PolicyError, PolicyGoneError
from worldeval.motion.panda import panda
from worldeval.policies.loading import load_policy
from worldeval.policies.servers import asking, link, msgpack_numpy
from worldeval.policies.servers.remote_policy import RemotePolicy, made_up
from worldeval.policies.servers.request_keys import resize_with_pad
from worldeval.robots import RobotSpec
from worldeval.types import Observation

_spec = importlib.util.spec_from_file_location(
    "stub_server", Path(__file__).parent / "stub_server.py"
)
assert _spec is not None and _spec.loader is not None
stub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stub)

ROBOT = panda(image_size=(24, 40))
BAD = "rollout '2' step 24"


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """A server, and a policy of it; all are closed afterwards."""
    things: list[Any] = []

    def open_(
        answer: Callable[[dict[str, Any]], Any] = stub.openpi,
        *,
        scheme: str = "openpi",
        arguments: str = "",
        robot: RobotSpec = ROBOT,
        **options: Any,
    ) -> tuple[Any, RemotePolicy]:
        server = stub.StubServer(answer, **options)
        things.append(server.kill)
        uri = f"{scheme}://127.0.0.1:{server.port}?reconnect_s=20&timeout_s=20{arguments}"
        policy = load_policy(uri, robot)
        assert isinstance(policy, RemotePolicy)
        things.append(policy.close)
        return server, policy

    yield open_
    for close in reversed(things):
        close()


def looks(policy: RemotePolicy, count: int = 4, robot: RobotSpec = ROBOT) -> list[Observation]:
    """Observations that differ in all they have."""
    rng = np.random.default_rng(1)
    height, width = robot.image_size
    first = made_up(robot, policy.spec)
    return [
        dataclasses.replace(
            first,
            images={c: rng.integers(0, 256, (height, width, 3), np.uint8) for c in first.images},
            state={k: rng.normal(size=v.shape).astype(np.float32) for k, v in first.state.items()},
            instruction=f"do {i}",
            rollout_id=str(i),
            step=12 * i,
        )
        for i in range(count)
    ]


def test_a_request_is_what_openpi_servers_of_droid_expect(opened: Callable[..., Any]) -> None:
    server, policy = opened()
    assert (policy.spec.chunk, policy.spec.execute, policy.spec.rate_hz) == (15, 12, 15.0)
    (look,) = looks(policy, 1)
    actions = policy.act([look])
    asked = server.seen[-1]
    assert set(asked) == {
        "observation/exterior_image_1_left",
        "observation/wrist_image_left",
        "observation/joint_position",
        "observation/gripper_position",
        "prompt",
    }
    assert asked["prompt"] == "do 0"
    for key, camera in (("exterior_image_1_left", "exterior_2"), ("wrist_image_left", "wrist")):
        image = asked[f"observation/{key}"]
        assert image.shape == (224, 224, 3) and image.dtype == np.uint8
        assert np.array_equal(image, resize_with_pad(look.images[camera], (224, 224)))
    for key in ("joint_position", "gripper_position"):
        assert np.array_equal(asked[f"observation/{key}"], look.state[key])
    raw = stub.hashed_actions(asked)
    assert actions.shape == (1, 15, 8) and actions.dtype == np.float32
    assert np.array_equal(actions[0, :, :7], np.clip(raw[:, :7], -1, 1).astype(np.float32))
    assert np.array_equal(actions[0, :, 7], raw[:, 7] > 0.5)
    assert 0 < actions[0, :, 7].mean() < 1  # both happen


def test_the_options_of_the_loop_and_the_key(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "abc")
    server, policy = opened(
        arguments="&gripper=continuous&clip=false&exterior=exterior_1&name=pi&chunk=15"
        "&api_key_env=MY_KEY"
    )
    assert server.seen == []  # the chunk was given, so nothing was tried
    assert policy.spec.name == "pi" and policy.spec.cameras == ("exterior_1", "wrist")
    actions = policy.act(looks(policy, 1))[0]
    assert np.array_equal(actions, stub.hashed_actions(server.seen[0]).astype(np.float32))
    assert server.headers == ["Api-Key abc"]
    assert "abc" not in repr(policy.server.settings)


def test_images_are_padded_as_openpi_pads_them() -> None:
    grey = np.full((192, 320, 3), 100, np.uint8)
    image = resize_with_pad(grey, (224, 224))  # 320 -> 224, 192 -> 134, 45 above and 45 below
    assert (image[45:179] == 100).all() and not image[:45].any() and not image[179:].any()
    tall = resize_with_pad(np.full((40, 24, 3), 9, np.uint8), (25, 50))  # 25 high, 15 wide
    assert (tall[:, 17:32] == 9).all() and not tall[:, :17].any() and not tall[:, 32:].any()
    half = resize_with_pad(np.tile(np.uint8([[[0], [90], [180], [90]]]), (4, 1, 3)), (2, 2))
    assert np.ptp(half, axis=0).max() == 0 and half[0, 0, 0] < 90 < half[0, 1, 0]
    assert np.array_equal(resize_with_pad(half, (2, 2)), half)
    assert resize_with_pad(grey, None) is grey


def test_rows_come_back_in_order_over_a_few_connections(opened: Callable[..., Any]) -> None:
    def slowly(observation: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.02 * (observation["prompt"] == "do 0"))
        return stub.openpi(observation)

    server, policy = opened(slowly, arguments="&connections=3")
    observations = looks(policy, 10)
    together = policy.act(observations)
    assert 2 <= server.most_at_once <= 3 and len(server.headers) == 3
    alone = np.concatenate([policy.act([look]) for look in observations])
    assert np.array_equal(together, alone)
    assert len({chunk.tobytes() for chunk in alone}) == 10


class Misbehaving:
    """Well-behaved but for one rollout."""

    def __init__(self, how: Callable[[dict[str, Any]], Any]) -> None:
        self.how = how

    def __call__(self, observation: dict[str, Any]) -> Any:
        return (self.how if observation["prompt"] == "do 2" else stub.openpi)(observation)


def spoilt(value: float) -> np.ndarray:
    actions = np.zeros((15, 8))
    actions[3, 7] = value
    return actions


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda o: o["observation/depth"], rf"failed on {BAD}: KeyError: 'observation/depth'"),
        (lambda o: "I am tired", f"answered for {BAD} with the text 'I am tired', expected"),
        (lambda o: {"actions": np.zeros((10, 8))}, r"shape \(10, 8\), expected \(15, 8\)"),
        (lambda o: {"actions": np.zeros(8)}, r"shape \(8,\), expected \(15, 8\)"),
        (lambda o: {"actions": spoilt(np.nan)}, rf"{BAD} with nan \(step 3, action 7\)"),
        (lambda o: {"actions": spoilt(-np.inf)}, r"with -inf \(step 3, action 7\)"),
        (lambda o: {"action": np.zeros((15, 8))}, r"with \['action'\], expected 'actions'"),
        (lambda o: np.zeros((15, 8)), "with ndarray, expected 'actions'"),
        (lambda o: {"actions": "left"}, "with str, expected an array of numbers"),
        (lambda o: {"actions": None}, r"shape \(\), expected|expected an array of numbers"),
        (lambda o: b"", "no msgpack"),
        (lambda o: b"\x80\x04\x95 a pickle", "no msgpack"),
        (lambda o: bytes(msgpack_numpy.MAX_BYTES + 1), "more than 1048576 bytes"),
    ],
)
def test_a_bad_answer_is_one_clear_sentence_and_the_next_is_fine(
    opened: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[dict[str, Any]], Any],
    says: str,
) -> None:
    monkeypatch.setattr(msgpack_numpy, "MAX_BYTES", 2**20)
    server, policy = opened(Misbehaving(how), arguments="&connections=2")
    observations = looks(policy)
    with pytest.raises(PolicyError, match=says) as caught:
        policy.act(observations)
    assert f"127.0.0.1:{server.port}" in str(caught.value) or "policy server" in str(caught.value)
    if "KeyError" in says:  # all of the server's traceback is kept, but not in the sentence
        assert "stub_server.py" in caught.value.__notes__[0]
        assert "stub_server.py" not in str(caught.value)
    good = [o for o in observations if o.rollout_id != "2"]
    again = policy.act(good)
    assert np.array_equal(again, np.concatenate([policy.act([o]) for o in good]))


def test_a_late_answer_is_not_taken_for_the_next(opened: Callable[..., Any]) -> None:
    release = threading.Event()

    def hang(observation: dict[str, Any]) -> dict[str, Any]:
        release.wait(30)
        return {"actions": np.ones((15, 8))}

    server, policy = opened(Misbehaving(hang), arguments="&timeout_s=0.3&connections=1")
    observations = looks(policy)
    began = time.monotonic()
    with pytest.raises(PolicyError, match=f"did not answer for {BAD} within 0.3 s; look whether"):
        policy.act(observations[2:3])
    assert time.monotonic() - began < 10
    release.set()
    actions = policy.act(observations[:1])[0]
    expected = np.clip(stub.hashed_actions(server.seen[-1]), -1, 1).astype(np.float32)
    assert np.array_equal(actions[:, :7], expected[:, :7])


@pytest.mark.parametrize("rows", [1, 4])
def test_ctrl_c_ends_the_wait_at_once(opened: Callable[..., Any], rows: int) -> None:
    release = threading.Event()

    def hang(observation: dict[str, Any]) -> dict[str, Any]:
        release.wait(20)
        return stub.openpi(observation)

    _, policy = opened(hang, arguments="&chunk=15&timeout_s=20")
    alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            policy.act(looks(policy, rows))
        assert time.monotonic() - began < 10
    finally:
        release.set()


def test_a_lost_request_is_asked_again_but_not_for_ever(opened: Callable[..., Any]) -> None:
    deaths: list[int] = []

    def die(observation: dict[str, Any]) -> Any:
        if len(deaths) < 2:
            deaths.append(1)
            raise stub.Die
        return stub.openpi(observation)

    _, policy = opened(Misbehaving(die))
    observations = looks(policy)
    once_more = policy.act(observations)
    assert len(deaths) == 2 and np.array_equal(once_more, policy.act(observations))

    def always(observation: dict[str, Any]) -> Any:
        raise stub.Die

    _, policy = opened(Misbehaving(always))
    with pytest.raises(PolicyError, match=f"hung up {link.LOSSES} times when asked for {BAD}"):
        policy.act(observations)


def test_a_server_that_comes_back_is_asked_again(opened: Callable[..., Any]) -> None:
    server, policy = opened()
    observations = looks(policy, 8)
    before = policy.act(observations)
    server.kill()
    returned: list[Any] = []

    def return_() -> None:
        time.sleep(0.3)
        returned.append(stub.StubServer(port=server.port))

    thread = threading.Thread(target=return_)
    thread.start()
    try:
        assert np.array_equal(policy.act(observations), before)
    finally:
        thread.join()
        returned[0].kill()


def test_another_server_in_its_place_is_noticed(opened: Callable[..., Any]) -> None:
    server, policy = opened(metadata={"policy": "pi0"})
    server.kill()
    with (
        stub.StubServer(port=server.port, metadata={"policy": "pi05"}),
        pytest.raises(PolicyGoneError, match="came back as another server.*'pi0'.*'pi05'"),
    ):
        policy.act(looks(policy, 1))


def test_a_server_that_stays_away_ends_the_run(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "GONE", 3)
    server, policy = opened(arguments="&reconnect_s=0.2")
    server.kill()
    observation = looks(policy, 1)
    for _ in range(2):
        with pytest.raises(PolicyError, match="no policy server answers at ws://127.0.0.1"):
            policy.act(observation)
    with pytest.raises(PolicyGoneError, match="3 requests in a row found nobody") as caught:
        policy.act(observation)
    assert not isinstance(caught.value, PolicyError)
    with stub.StubServer(port=server.port):  # it is as good as new when it is there again
        assert policy.act(observation).shape == (1, 15, 8)


def test_nobody_there_and_other_kinds_of_servers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(PolicyError, match=f"no policy server answers at ws://127.0.0.1:{port} "):
        load_policy(f"openpi://127.0.0.1:{port}", ROBOT)
    assert time.monotonic() - began < 10
    for metadata, says in (("hello", "began with the text 'hello'"), ([1], "began with list")):
        with (
            stub.StubServer(metadata=metadata) as server,
            pytest.raises(PolicyError, match=says),
        ):
            load_policy(f"openpi://127.0.0.1:{server.port}", ROBOT)
    for status, says in ((401, "HTTP 401; give api_key_env"), (404, "HTTP 404; correct its path")):
        with stub.StubServer(refuse=status) as server, pytest.raises(PolicyError, match=says):
            load_policy(f"openpi://127.0.0.1:{server.port}", ROBOT)


def of_size(*shape: int) -> Callable[[dict[str, Any]], Any]:
    return lambda observation: {"actions": np.zeros(shape)}


@pytest.mark.parametrize(
    ("shape", "arguments", "steps_per_frame", "executed"),
    [
        ((15, 8), "", 3, 12),
        ((15, 8), "&execute=15", 3, 15),
        ((10, 8), "", 3, 10),
        ((2, 8), "", 3, 2),
        ((15, 8), "&execute=4", 3, 4),
        ((10, 8), "", 2, 8),
        ((10, 8), "&execute=6", 3, 6),
        ((50, 8), "", 3, 12),
    ],
)
def test_how_much_of_a_chunk_is_executed(
    opened: Callable[..., Any],
    shape: tuple[int, ...],
    arguments: str,
    steps_per_frame: int,
    executed: int,
) -> None:
    robot = panda(image_size=(24, 40), steps_per_frame=steps_per_frame)
    _, policy = opened(of_size(*shape), arguments=arguments, robot=robot)
    assert (policy.spec.chunk, policy.spec.execute) == (shape[0], executed)


@pytest.mark.parametrize(
    ("shape", "arguments", "says"),
    [
        ((10, 8), "&execute=12", "execute is 12, but its server answers with 10 steps; give 1 to"),
        ((15, 7), "", r"shape \(15, 7\), expected \(steps, 8\)"),
        ((15, 8, 1), "", r"shape \(15, 8, 1\)"),
        ((0, 8), "", r"shape \(0, 8\)"),
    ],
)
def test_chunks_that_do_not_fit_are_refused_before_the_first_step(
    opened: Callable[..., Any], shape: tuple[int, ...], arguments: str, says: str
) -> None:
    with pytest.raises(MismatchError, match=says):
        opened(of_size(*shape), arguments=arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ("chunk=0", ConfigError, "chunk is 0"),
        ("gripper=half", ConfigError, "gripper is 'half'"),
        ("clip=1", ConfigError, "clip is 1"),
        ("tls=yes", ConfigError, "tls is 'yes'"),
        ("connections=0", ConfigError, "connections is 0"),
        ("timeout_s=0", ConfigError, "timeout_s is 0"),
        ("wait_s=soon", ConfigError, "wait_s is 'soon'"),
        ("api_key_env=NO_SUCH", ConfigError, "api_key_env is 'NO_SUCH'"),
        ("keys=no_such.toml", ConfigError, "there is no file of keys at no_such.toml"),
        ("exterior=front", MismatchError, "camera 'front'"),
    ],
)
def test_wrong_arguments(
    opened: Callable[..., Any], arguments: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        opened(arguments=f"&{arguments}")


def test_a_policy_for_another_robot_is_refused_without_asking(toy_robot: RobotSpec) -> None:
    with stub.StubServer() as server:
        for robot, says in (
            (toy_robot, "camera 'exterior_2'"),
            (panda("absolute_pose"), "action_space 'joint_velocity'"),
            (dataclasses.replace(ROBOT, control_hz=20.0), "rate_hz 15.0"),
        ):
            with pytest.raises(MismatchError, match=says):
                load_policy(f"openpi://127.0.0.1:{server.port}", robot)
        assert server.seen == []


KEYS = """
action_space = "toy-delta-position"
action_dim = 4
rate_hz = 10.0
image_size = [12, 12]
prompt = "task"
actions = "action"
[images]
"observation/image" = "top"
[state]
"observation/state" = ["pose", "pose"]
"""


def test_other_robots_need_a_file_only(
    opened: Callable[..., Any], toy_robot: RobotSpec, tmp_path: Path
) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(KEYS)

    def answer(observation: dict[str, Any]) -> dict[str, Any]:
        return {"action": stub.hashed_actions(observation, steps=6, size=4)}

    server, policy = opened(answer, robot=toy_robot, arguments=f"&keys={path}")
    (look,) = looks(policy, 1, toy_robot)
    actions = policy.act([look])[0]
    asked = server.seen[-1]
    assert set(asked) == {"observation/image", "observation/state", "task"}
    assert asked["observation/image"].shape == (12, 12, 3)
    assert np.array_equal(asked["observation/state"], np.tile(look.state["pose"], 2))
    assert set(np.unique(actions[:, 3])) <= {-1.0, 1.0}  # this robot's gripper, open or closed
    for text, says in (
        (KEYS + "[imges]\n", r"\['imges'\] too much"),
        (KEYS.replace("rate_hz = 10.0", ""), r"\['rate_hz'\] too little"),
        (KEYS.replace("[12, 12]", "[12]"), r"image_size is \(12,\)"),
        (KEYS.replace("[12, 12]", "12"), "wrong kind"),
        ("a b", "cannot be read as TOML"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=says):
            load_policy(f"openpi://127.0.0.1:1?keys={path}", toy_robot)
