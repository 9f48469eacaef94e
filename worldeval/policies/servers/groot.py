"""Policies behind GR00T's inference service, N1.5's and N1.6's: ``groot://HOST:PORT``.

Enters: observations. Leaves: chunks of actions. ZeroMQ and ``groot_bytes``; a request is
{"endpoint", "data", "api_token"}. The server is first asked for its modality config, from which
cameras, states, actions and the chunk are taken (``groot_keys.py``)::

    N1.5  get_action of {"video.KEY": (1, H, W, 3), "state.KEY": (1, D), "LANGUAGE": [text]},
          answered by {"action.KEY": (chunk, D), or (chunk,) where D is 1}
    N1.6  get_action of {"observation": {"video": {KEY: (B, 1, H, W, 3)}, "state": {KEY: (B, 1, D)},
          "language": {KEY: [[text]]}}, "options": None}, answered by [{KEY: (B, chunk, D)}, info];
          all rollouts of a batch in one request; a reset before them

An N1.6 server that was started with --use-sim-policy-wrapper takes and gives N1.5's keys:
``?sim_wrapper=true``. A policy that looks at more than the newest observation is refused.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from worldeval.errors import ConfigError, MismatchError, PolicyError, PolicyGoneError
from worldeval.policies.checking import check_spec, shaped_actions
from worldeval.policies.servers import conventions as meanings
from worldeval.policies.servers import options
from worldeval.policies.servers.groot_bytes import Modality, pack, unpack
from worldeval.policies.servers.groot_keys import Keys, keys_of
from worldeval.policies.servers.link import Request, ServerSettings, short
from worldeval.policies.servers.one_call import OneCall
from worldeval.policies.servers.options import Connecting
from worldeval.policies.servers.pool import Pool
from worldeval.policies.servers.remote_policy import made_up
from worldeval.policies.servers.zmq_connection import ZmqConnection
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec

log = logging.getLogger(__name__)

PORT = 5555


class Groot:
    """A GR00T server: its requests, its answers, and that it stays the same one."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._said: dict[str, Modality] | None = None

    def connect(self) -> ZmqConnection:
        """A connection, once the server has said the modalities that it said at first."""
        link = ZmqConnection(self.settings)
        try:
            of = "its modality config"
            said = self.read(link.exchange(self.request("get_modality_config", None, of)), of)
            with self._lock:
                if self._said is None:
                    self._said = self._modalities(said)
                elif said != self._said:
                    raise PolicyGoneError(
                        f"{self.settings.url} came back as another server: its modality config "
                        f"was {self._said}, now it is {said}; serve the same policy, or give it "
                        "another name"
                    )
        except BaseException:
            link.close()
            raise
        return link

    def request(self, endpoint: str, data: Any, of: str) -> Request:
        message = {"endpoint": endpoint}
        if data is not None:
            message["data"] = data
        if self.settings.api_key:
            message["api_token"] = self.settings.api_key
        return Request(data=pack(message), of=of)

    def read(self, answer: bytes | str, of: str) -> Any:
        """The value of an answer; PolicyError with the server's own words where it is an error."""
        url = self.settings.url
        value = unpack(answer if isinstance(answer, bytes) else answer.encode(), url)
        if isinstance(value, dict) and "error" in value:
            said = short(" ".join(str(value["error"]).split()))
            remedy = (
                "give api_key_env=VARIABLE with its token"
                if "Unauthorized" in said
                else "mend the server, or send it the observation that its policy was trained for"
            )
            raise PolicyError(f"{url} failed on {of}: {said}; {remedy}")
        return value

    @property
    def said(self) -> dict[str, Modality]:
        assert self._said is not None  # a connection is only there once it is
        return self._said

    def _modalities(self, said: Any) -> dict[str, Modality]:
        url = self.settings.url
        found = said if isinstance(said, dict) else {}
        modalities = {str(k): v for k, v in found.items() if isinstance(v, Modality)}
        if "action" not in modalities:
            raise MismatchError(
                f"{url} says of itself {sorted(map(str, found)) or type(said).__name__}, expected "
                "the modality config of a GR00T policy with 'action'; is another kind of server at "
                "this address?"
            )
        for name, modality in modalities.items():
            count = len(modality.moments)
            expected = tuple(range(count)) if name == "action" else (0,)
            if modality.moments != expected or not count:
                raise MismatchError(
                    f"{url}: its {name} is of the moments {list(modality.moments)} "
                    f"(delta_indices), expected {'0, 1, 2 ...' if name == 'action' else '[0]'}; "
                    "serve a policy that looks at the newest observation and answers every step"
                )
        return modalities


class GrootPolicy(OneCall):
    """A policy behind a ``Groot``; see the module docstring."""

    def __init__(
        self,
        pool: Pool,
        robot: RobotSpec,
        spec: PolicySpec,
        *,
        groot: Groot,
        keys: Keys,
        sim_wrapper: bool,
    ) -> None:
        super().__init__(pool, robot, spec)
        self._groot, self._keys, self._wrapped = groot, keys, sim_wrapper
        self._old = any(modality.flat for modality in groot.said.values())

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Told to the server where it can be (N1.6); its noise cannot be seeded from here."""
        if not self._old:
            of = "a reset"
            (answer,) = self.pool.ask([self._groot.request("reset", {"options": None}, of)])
            self._groot.read(answer, of)

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        parts = [[o] for o in observations] if self._old else [list(observations)]
        requests = [self._request(part) for part in parts]
        answers = self.pool.ask(requests)
        chunks = [
            self._read(answer, request.of, len(part))
            for answer, request, part in zip(answers, requests, parts, strict=True)
        ]
        return shaped_actions(np.concatenate(chunks), self.spec, self._robot, len(observations))

    def trial(self) -> int:
        """Ask once, so that what does not fit is told before the first step; the chunk."""
        observation = made_up(self._robot, self.spec)
        if self.spec.image_size is not None:
            blank = np.zeros((*self.spec.image_size, 3), np.uint8)
            images = dict.fromkeys(self.spec.cameras, blank)
            observation = dataclasses.replace(observation, images=images)
        self.reset([observation.rollout_id], [observation.instruction], [0])
        return self.act([observation]).shape[1]

    def _request(self, observations: Sequence[Observation]) -> Request:
        keys, said, first = self._keys, self._groot.said, observations[0]
        of = f"rollout {first.rollout_id!r} step {first.step}"
        if len(observations) > 1:
            of += f" and {len(observations) - 1} more"
        video = {k: np.stack([o.images[c] for o in observations]) for k, c in keys.images.items()}
        state = {k: np.stack([keys.numbers(k, o.state) for o in observations]) for k in keys.state}
        texts = [o.instruction for o in observations]
        language = said["language"].keys if "language" in said else ()
        if self._old:  # of one observation; the first axis is time
            flat = {f"video.{key}": value for key, value in video.items()}
            flat |= {f"state.{key}": value for key, value in state.items()}
            return self._groot.request("get_action", flat | dict.fromkeys(language, texts), of)
        nested: dict[str, Any] = {
            "video": {key: value[:, None] for key, value in video.items()},
            "state": {key: value[:, None] for key, value in state.items()},
            "language": {key: [[text] for text in texts] for key in language},
        }
        if self._wrapped:
            kinds = ("video", "state")
            nested = {f"{kind}.{k}": v for kind in kinds for k, v in nested[kind].items()}
            nested |= dict.fromkeys(language, texts)
        return self._groot.request("get_action", {"observation": nested, "options": None}, of)

    def _read(self, answer: bytes | str, of: str, batch: int) -> np.ndarray:
        """(batch, chunk, A) of one answer."""
        value = self._groot.read(answer, of)
        if not self._old and isinstance(value, list) and value:  # [actions, info]
            value = value[0]
        prefix = "action." if self._old or self._wrapped else ""
        actions = np.empty((batch, self.spec.chunk, self._robot.action_dim), np.float32)
        for key, places in self._keys.actions.items():
            name = prefix + key
            if not isinstance(value, dict) or name not in value:
                found = ", ".join(map(str, value)) if isinstance(value, dict) else "no map"
                raise PolicyError(f"{self.url} answered for {of} with {found}, expected {name!r}")
            array, shape = value[name], (batch, self.spec.chunk, len(places))
            right = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
            if right and self._old and np.squeeze(array).shape == tuple(n for n in shape if n > 1):
                array = array.reshape(shape)  # N1.5 leaves out every axis of length 1
            if not right or array.shape != shape:
                given = getattr(array, "shape", type(array).__name__)
                raise MismatchError(
                    f"{self.url} answered for {of} with {name!r} of shape {given}, expected "
                    f"{shape} = (batch, chunk, numbers) for robot {self._robot.name!r} "
                    f"({', '.join(self._robot.action_names[i] for i in places)}); correct "
                    "[actions] of keys=FILE, or serve a policy for this robot"
                )
            actions[:, :, places] = array
        return actions


@options.connecting
def load(
    rest: str,
    robot: RobotSpec,
    connecting: Connecting,
    *,
    name: str | None = None,
    keys: str | None = None,
    size: int | None = None,
    execute: int | None = None,
    sim_wrapper: bool = False,
    conventions: str | None = None,
) -> GrootPolicy:
    """The policy behind ``groot:REST``.

    keys: TOML file of which camera, state and action stands under which key. size: both sides of
    its images in pixels; the world's own if None. sim_wrapper: whether the server was started with
    --use-sim-policy-wrapper. conventions: TOML file of what the server means.
    """
    url = _url(rest)
    for what, value in (("execute", execute), ("size", size)):
        if value is not None and value < 1:
            raise ConfigError(f"{what} is {value}, expected 1 or more")
    meant = meanings.read_conventions(conventions)
    groot = Groot(connecting.settings(url, f"groot:{rest}"))
    pool = Pool(groot.settings, groot.connect)
    try:
        pool.open()
        said = groot.said
        own = name or "groot-" + url.partition("://")[2].replace(":", "-").strip("[]")
        old = any(modality.flat for modality in said.values())
        said = _without_prefix(said) if old else said
        found = keys_of(said, robot, keys, own)
        chunk = len(said["action"].moments)
        spec = PolicySpec(
            name=own,
            cameras=tuple(dict.fromkeys(found.images.values())),
            image_size=(size, size) if size else None,
            state_keys=found.state_keys,
            action_space=robot.action_space,
            action_dim=robot.action_dim,
            chunk=chunk,
            execute=min(chunk, robot.chunk_steps) if execute is None else execute,
            rate_hz=robot.control_hz,
        )
        check_spec(spec, robot)
        meanings.compare_said({**_meant(said, found, robot), **(meant or {})}, robot, spec)
        policy = GrootPolicy(pool, robot, spec, groot=groot, keys=found, sim_wrapper=sim_wrapper)
        policy.trial()
        return policy
    except BaseException:
        pool.close()
        raise


def _without_prefix(said: Mapping[str, Modality]) -> dict[str, Modality]:
    """N1.5's keys as N1.6 has them: "front" for "video.front"."""
    return {
        kind: dataclasses.replace(
            modality, keys=tuple(key.removeprefix(f"{kind}.") for key in modality.keys)
        )
        for kind, modality in said.items()
    }


def _meant(said: Mapping[str, Modality], keys: Keys, robot: RobotSpec) -> dict[str, Any]:
    """Conventions that follow from what the server says.

    An action that was trained as relative to the state is answered as absolute again; one that is
    called absolute was only left as its data set had it, which may be anything.
    """
    action = said["action"]
    kinds = {
        str(config.get("rep"))
        for key, config in zip(action.keys, action.configs, strict=False)
        if set(keys.actions[key]) - set(robot.gripper_axes)
    }
    return {"action_reference": "absolute"} if kinds == {"RELATIVE"} else {}


def _url(rest: str) -> str:
    try:
        parts = urlsplit(rest)
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host = None
    if not rest.startswith("//") or not host or parts.username or parts.path.strip("/"):
        raise ConfigError(f"policy 'groot:{rest}' names no server; write groot://HOST:PORT")
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
