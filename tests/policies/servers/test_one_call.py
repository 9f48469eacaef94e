"""Servers that answer one observation a call: the published bytes, to the bit, and what goes wrong.

Each server is written from the description of its wire, with a codec of its own.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies.servers.closing import close_while_asked
from tests.policies.servers.hashing import HashPolicy
from worldeval import testing
from worldeval.errors import (
    ConfigError,
    MismatchError,
    PolicyAwayError,
    PolicyError,
    PolicyGoneError,
)
from worldeval.policies.loading import load_policy
from worldeval.policies.servers import http
from worldeval.testing import TOY_ROBOT
from worldeval.types import Observation

Answer = Callable[[dict[str, Any]], Any]


def as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(value.data if value.flags.c_contiguous else value.tobytes())
        return {"__numpy__": data.decode(), "dtype": value.dtype.str, "shape": value.shape}
    raise TypeError


def from_json(value: dict[str, Any]) -> Any:
    if "__numpy__" in value:
        data = base64.b64decode(value["__numpy__"])
        return np.frombuffer(data, np.dtype(value["dtype"])).reshape(value["shape"])
    return value


@contextmanager
def http_server(
    answer: Answer, *, path: str = "/act", status: int = 200, protocol: str = "HTTP/1.1"
) -> Iterator[str]:
    """host:port of a server that posts to ``path``; bytes are sent as they are."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = protocol

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            message = json.loads(self.rfile.read(length), object_hook=from_json)
            right = self.path == path
            value = answer(message) if right else "no such path"
            body = (
                value if isinstance(value, bytes) else json.dumps(value, default=as_json).encode()
            )
            self.send_response(status if right else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def observation(message: dict[str, Any], images: dict[str, Any]) -> Observation:
    return Observation(
        images=images,
        state=message.get("state", {}),
        instruction=message["instruction"],
        rollout_id=message.get("rollout_id", ""),
        step=message.get("step", 0),
    )


def hashed(**changes: Any) -> HashPolicy:
    return HashPolicy(TOY_ROBOT, size=None, forgets=True, **({"cameras": 3} | changes))


def ours(policy: HashPolicy) -> Answer:
    return lambda message: {"actions": policy.act([observation(message, message["images"])])[0]}


def openvla(policy: HashPolicy, key: str = "toy") -> Answer:
    def answer(message: dict[str, Any]) -> Any:
        if message["unnorm_key"] != key:
            return "error"
        return policy.act([observation(message, {"top": message["image"]})])[0, 0]

    return answer


def one_image() -> HashPolicy:
    policy = hashed(chunk=1, cameras=1)
    policy.spec = type(policy.spec)(**(vars(policy.spec) | {"state_keys": ()}))
    return policy


def test_our_http_schema_acts_as_in_process() -> None:
    with http_server(ours(hashed()), path="/policy") as at:
        served = load_policy(f"http://{at}/policy?name=mine", TOY_ROBOT)
        assert (served.spec.name, served.spec.chunk) == ("mine", 4)
        testing.check_served(served, hashed(), TOY_ROBOT)
        testing.check_policy(served, TOY_ROBOT, count=9)  # more rollouts than connections
        served.close()


def test_plain_lists_are_read_as_arrays() -> None:
    rows = [[0.5, -0.25, 0.0, 1.0]]
    with http_server(lambda message: {"actions": rows}, path="/") as at:
        served = load_policy(f"http://{at}", TOY_ROBOT)
        served.reset(["a"], ["go"], [0])
        assert served.spec.chunk == 1
        served.close()


def test_openvla_acts_as_in_process() -> None:
    policy = one_image()
    with http_server(openvla(policy)) as at:
        served = load_policy(f"openvla+http://{at}?unnorm_key=toy", TOY_ROBOT)
        testing.check_served(served, policy, TOY_ROBOT, chunks=5)
        served.close()


def test_statistics_that_openvla_does_not_know_stop_before_the_first_step() -> None:
    with http_server(openvla(one_image())) as at:
        with pytest.raises(PolicyError, match="with 'error'.*unnorm_key"):
            load_policy(f"openvla+http://{at}?unnorm_key=bridge", TOY_ROBOT)
        with pytest.raises(ConfigError, match="give unnorm_key=NAME"):
            load_policy(f"openvla+http://{at}", TOY_ROBOT)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "expected JSON"),
        (b'{"action": [[0, 0, 0, 0]]}', r"with \['action'\], expected 'actions'"),
        (b"[1]", "with list, expected 'actions'"),
        (b'{"actions": [[0, 0, 0]]}', r"shape \(1, 3\), expected \(chunk, 4\)"),
        (b'{"actions": [[0, 0, 0], [1]]}', "expected numbers"),
        (b'{"actions": {"__numpy__": "AA==", "dtype": "|O", "shape": [1]}}', "cannot be read"),
        (b'{"actions": {"__numpy__": "AA==", "dtype": "<f4", "shape": [9]}}', "cannot be read"),
    ],
)
def test_answers_that_cannot_be_used_are_told(body: bytes, said: str) -> None:
    with (
        http_server(lambda message: body, path="/") as at,
        pytest.raises(PolicyError, match=said),
    ):
        load_policy(f"http://{at}", TOY_ROBOT)


def test_numbers_that_are_not_finite_are_told() -> None:
    bad = np.full((1, 4), np.nan, np.float32)
    with http_server(lambda message: {"actions": bad}, path="/") as at:
        served = load_policy(f"http://{at}", TOY_ROBOT)
        with pytest.raises(PolicyError, match="expected finite numbers"):
            testing.check_served(served, hashed(chunk=1), TOY_ROBOT)
        served.close()


def test_a_wrong_path_and_a_failing_server_are_told() -> None:
    with (
        http_server(ours(hashed()), path="/policy") as at,
        pytest.raises(PolicyError, match="HTTP 404 .*expected 200"),
    ):
        load_policy(f"http://{at}/polcy", TOY_ROBOT)
    with (
        http_server(lambda message: b"out of memory", path="/", status=500) as at,
        pytest.raises(PolicyError, match="HTTP 500 .*out of memory"),
    ):
        load_policy(f"http://{at}", TOY_ROBOT)


def test_nobody_at_the_address_is_told_and_a_slow_server_is_given_up() -> None:
    with pytest.raises(PolicyError, match=r"no policy server answers at http://127.0.0.1:9/ \("):
        load_policy("http://127.0.0.1:9", TOY_ROBOT)
    slow = threading.Event()

    def hang(message: dict[str, Any]) -> Any:
        slow.wait(5)
        return {}

    with http_server(hang, path="/") as at:
        with pytest.raises(PolicyError, match=r"did not answer for .* within 0.2 s"):
            load_policy(f"http://{at}?timeout_s=0.2", TOY_ROBOT)
        slow.set()


def test_a_server_that_stays_away_is_no_fault_of_the_rollout_and_ends_the_run() -> None:
    served = load_policy("http://127.0.0.1:9?chunk=1&cameras=&state=", TOY_ROBOT)
    asked = observation({"instruction": "go", "rollout_id": "a"}, {})
    for _ in range(7):
        with pytest.raises(PolicyAwayError, match="no policy server answers"):
            served.act([asked])
    with pytest.raises(PolicyGoneError, match="8 requests in a row found nobody"):
        served.act([asked])
    served.close()


def test_closing_ends_a_request_that_is_not_answered() -> None:
    asked, answered = threading.Event(), threading.Event()

    def hang(message: dict[str, Any]) -> Any:
        asked.set()
        answered.wait(20)
        return {}

    with http_server(hang, path="/") as at:
        served = load_policy(f"http://{at}?chunk=1&cameras=&state=&timeout_s=20", TOY_ROBOT)
        close_while_asked(served, observation({"instruction": "go"}, {}), asked, answered)


def test_a_server_that_ends_each_connection_may_take_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "TCP_TIMEOUT_S", 0.2)

    def slow(message: dict[str, Any]) -> Any:
        time.sleep(0.4)
        return {"actions": [[0.0, 0.0, 0.0, 1.0]]}

    with http_server(slow, path="/", protocol="HTTP/1.0") as at:
        served = load_policy(f"http://{at}?cameras=&state=", TOY_ROBOT)
        assert served.act([observation({"instruction": "go"}, {})]).shape == (1, 1, 4)
        served.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("conections=3", "takes no argument 'conections' .did you mean 'connections'"),
        ("scheme=ftp", "takes no argument 'scheme'"),
        ("chunk=four", "chunk is 'four', expected a whole number"),
        ("size=0", "size is 0, expected 1 or more"),
        ("api_key_env=WORLDEVAL_NO_SUCH", "the environment has no such variable"),
    ],
)
def test_arguments_that_do_not_fit_are_told_with_tls_or_without(
    scheme: str, argument: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load_policy(f"{scheme}://127.0.0.1:9?{argument}", TOY_ROBOT)


@pytest.mark.parametrize("uri", ["http:host", "http://", "http://a:b@host", "openvla+http://"])
def test_an_address_that_is_none_is_told(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no (server|place)"):
        load_policy(f"{uri}?unnorm_key=x" if "vla" in uri else uri, TOY_ROBOT)


def test_what_a_server_does_not_say_a_file_does(tmp_path: Path) -> None:
    path = tmp_path / "meant.toml"
    path.write_text('channel_order = "bgr"\nimage_rotation = "180"')
    with (
        http_server(ours(hashed()), path="/") as at,
        pytest.raises(MismatchError, match="channel_order 'bgr' where .*'rgb'.*image_rotation"),
    ):
        load_policy(f"http://{at}?conventions={path}", TOY_ROBOT)
