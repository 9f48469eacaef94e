"""Policies behind HTTP: OpenVLA's ``/act``, and a plain schema for a server in any language.

Enters: observations. Leaves: chunks of actions. Bodies are JSON, with arrays as json-numpy writes
them: {"__numpy__": base64 of the bytes, "dtype": "<f4", "shape": [4]}; plain lists are read too.

``openvla+http://HOST:PORT``: POST /act of {"image", "instruction", "unnorm_key"}, answered by one
action; the text "error" is its failure. ``http(s)://HOST:PORT/PATH``: POST of {"images": {camera:
array}, "state": {name: array}, "instruction", "rollout_id", "step"}, answered by {"actions":
(chunk, action_dim)}; what is no 200 is told with its text. See docs/policy_servers.md.
"""

from __future__ import annotations

import base64
import json
import math
import re
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from worldeval.errors import ConfigError, PolicyError
from worldeval.policies.servers import msgpack_numpy, options
from worldeval.policies.servers.asking import no_tls
from worldeval.policies.servers.link import (
    TCP_TIMEOUT_S,
    Lost,
    Request,
    ServerSettings,
    short,
    shut,
)
from worldeval.policies.servers.one_call import OneCall, opened
from worldeval.policies.servers.options import Connecting
from worldeval.policies.servers.pool import Pool
from worldeval.robots import RobotSpec
from worldeval.types import Observation


def pack(value: Any) -> bytes:
    """JSON with arrays as json-numpy writes them."""
    return json.dumps(value, default=_as_json).encode()


def unpack(data: bytes, url: str) -> Any:
    """The value of a body; nothing in it is run, objects and records are refused."""
    try:
        return json.loads(data, object_hook=_as_array)
    except PolicyError:
        raise
    except (ValueError, RecursionError) as error:
        raise PolicyError(
            f"{url} answered with {short(data[:200].decode(errors='replace'))!r}, expected JSON "
            f"({error}); is another kind of server at this address?"
        ) from error


def _as_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    return {
        "__numpy__": base64.b64encode(np.ascontiguousarray(value).data).decode(),
        "dtype": value.dtype.str,
        "shape": list(value.shape),
    }


def _as_array(value: dict[str, Any]) -> Any:
    if "__numpy__" not in value:
        return value
    try:
        dtype = np.dtype(str(value["dtype"]))
        data = base64.b64decode(value["__numpy__"], validate=True)
        shape = [int(n) for n in value["shape"]]
        fits = math.prod(shape) * dtype.itemsize == len(data) and min([0, *shape]) == 0
        if dtype.kind not in "biuf" or not fits:
            raise ValueError(f"dtype {dtype}, shape {shape} and {len(data)} bytes")
        return np.frombuffer(data, dtype).reshape(shape).copy()
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise PolicyError(
            f"the policy server sent an array that cannot be read ({error}); expected json-numpy's "
            "__numpy__, dtype and shape of numbers"
        ) from error


class HttpConnection:
    """One connection that is kept open between requests."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        parts = urlsplit(settings.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        assert parts.hostname is not None  # http_url made it
        self._http = kind(parts.hostname, parts.port, timeout=TCP_TIMEOUT_S)
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._open()

    def _open(self) -> None:
        try:
            self._http.connect()
        except OSError as error:
            if refused := no_tls(self._settings.url, error):
                raise refused from error
            raise Lost(f"{type(error).__name__}: {error}") from error
        sock: socket.socket = self._http.sock
        sock.settimeout(self._settings.timeout_s)

    def exchange(self, request: Request) -> bytes:
        url = self._settings.url
        headers = {"Content-Type": "application/json"}
        if self._settings.api_key:
            headers["Authorization"] = f"Bearer {self._settings.api_key}"
        if self._http.sock is None:  # the server ends each connection after its answer
            self._open()
        try:
            self._http.request("POST", self._path, request.data, headers)
            answer = self._http.getresponse()
            data = answer.read(msgpack_numpy.MAX_BYTES + 1)
        except TimeoutError as error:
            raise PolicyError(
                f"{url} did not answer for {request.of} within {self._settings.timeout_s:g} s; "
                "look whether it hangs, or give more timeout_s"
            ) from error
        except (OSError, HTTPException) as error:
            raise Lost(f"{type(error).__name__}: {error}") from error
        if answer.status != 200:
            raise PolicyError(
                f"{url} answered for {request.of} with HTTP {answer.status} "
                f"({short(data[:500].decode(errors='replace'))!r}), expected 200; mend the server, "
                "or correct the address"
            )
        if len(data) > msgpack_numpy.MAX_BYTES:
            raise PolicyError(f"{url} answered with more than {msgpack_numpy.MAX_BYTES} bytes")
        return data

    def close(self) -> None:
        if self._http.sock is not None:
            shut(self._http.sock)
        self._http.close()


class HttpPolicy(OneCall):
    """A policy behind our own schema."""

    def encode(self, observation: Observation) -> bytes:
        return pack(
            {
                "images": dict(observation.images),
                "state": dict(observation.state),
                "instruction": observation.instruction,
                "rollout_id": observation.rollout_id,
                "step": int(observation.step),
            }
        )

    def decode(self, answer: bytes, of: str) -> Any:
        value = unpack(answer, self.url)
        if not isinstance(value, dict) or "actions" not in value:
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise PolicyError(f"{self.url} answered for {of} with {found}, expected 'actions'")
        return value["actions"]


class OpenVlaPolicy(OneCall):
    """A policy behind OpenVLA's ``/act``: one image, one action."""

    unnorm_key: str | None = None

    def encode(self, observation: Observation) -> bytes:
        (image,) = observation.images.values()
        body: dict[str, Any] = {"image": image, "instruction": observation.instruction}
        if self.unnorm_key is not None:
            body["unnorm_key"] = self.unnorm_key
        return pack(body)

    def decode(self, answer: bytes, of: str) -> Any:
        value = unpack(answer, self.url)
        if isinstance(value, str):
            if value != "error":  # with double_encode the array is text within the text
                value = unpack(value.encode(), self.url)
            else:
                raise PolicyError(
                    f"{self.url} answered for {of} with 'error'; its own output says why (often an "
                    "unnorm_key that its model does not know)"
                )
        return [value]


def http_url(rest: str, scheme: str, uri: str, path: str) -> str:
    """``//host:port/path`` of a policy's URI as a URL."""
    try:
        parts = urlsplit(rest)
        right = rest.startswith("//") and parts.hostname and (parts.port or True)
    except ValueError:
        right = False
    if not right or parts.username or parts.password:
        raise ConfigError(f"policy {uri!r} names no server; write {uri.split(':')[0]}://HOST:PORT")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/') or path}"


def _loader(scheme: str) -> Callable[..., HttpPolicy]:
    """What loads policies behind ``scheme:REST``; its own keywords are all that a URI may name."""

    @options.connecting
    def load(
        rest: str,
        robot: RobotSpec,
        connecting: Connecting,
        *,
        name: str | None = None,
        cameras: str | None = None,
        state: str | None = None,
        size: int | None = None,
        chunk: int | None = None,
        execute: int | None = None,
        conventions: str | None = None,
    ) -> HttpPolicy:
        """The policy behind the URI; ``one_call.opened`` says what the arguments mean."""
        uri = f"{scheme}:{rest}"
        settings = connecting.settings(http_url(rest, scheme, uri, "/"), uri)
        made: HttpPolicy = opened(
            HttpPolicy,
            robot,
            Pool(settings, lambda: HttpConnection(settings)),
            name=name or _name(settings.url),
            cameras=cameras,
            state=state,
            size=size,
            chunk=chunk,
            execute=execute,
            conventions_file=conventions,
        )
        return made

    return load


load, load_tls = _loader("http"), _loader("https")


@options.connecting
def load_openvla(
    rest: str,
    robot: RobotSpec,
    connecting: Connecting,
    *,
    name: str | None = None,
    camera: str | None = None,
    size: int | None = None,
    unnorm_key: str | None = None,
    conventions: str | None = None,
) -> OpenVlaPolicy:
    """The policy behind ``openvla+http:REST``. camera: the one it sees; the robot's first if None.
    unnorm_key: whose statistics its actions are unnormalised with."""
    uri = f"openvla+http:{rest}"
    if unnorm_key is None:
        raise ConfigError(
            f"policy {uri!r} does not say whose statistics unnormalise its actions; give "
            "unnorm_key=NAME, or unnorm_key= for a model that has those of one data set alone"
        )
    settings = connecting.settings(http_url(rest, "http", uri, "/act"), uri)

    def prepare(policy: OpenVlaPolicy) -> None:
        policy.unnorm_key = unnorm_key or None

    made: OpenVlaPolicy = opened(
        OpenVlaPolicy,
        robot,
        Pool(settings, lambda: HttpConnection(settings)),
        name=name or _name(settings.url),
        cameras=robot.views[0] if camera is None else camera,
        state="",
        size=size,
        chunk=None,  # asked once before the run: a wrong unnorm_key stops there
        execute=None,
        conventions_file=conventions,
        prepare=prepare,
    )
    return made


def _name(url: str) -> str:
    """``http://host:8000/act`` as a name that can be part of a key: http-host-8000-act."""
    return re.sub("[^A-Za-z0-9.]+", "-", url).strip("-")
