"""Policies behind an openpi server: pi0, pi0-FAST, pi0.5 and whatever else speaks its protocol.

Enters: observations of the robot. Leaves: its chunks of actions. For DROID's Panda, for which the
published pi policies are trained, a request and its answer are::

    observation/exterior_image_1_left   (224, 224, 3) uint8 RGB, resized without distortion, padded
    observation/wrist_image_left        likewise
    observation/joint_position          (7,) float32 rad
    observation/gripper_position        (1,) float32, 0 open to 1 closed
    prompt                              the instruction
    -> actions (H, 8)                   7 joint velocities, 1 gripper position, at 15 Hz

Which camera goes where is data, ``RequestKeys``; ``openpi://host:8000?keys=my_robot.toml`` reads
them from a file for another robot.

As in openpi's own loop for DROID the gripper is opened or closed at 0.5 and actions are clipped to
the robot's bounds (``gripper=continuous``, ``clip=false`` leave them). How many steps H a chunk has
is learnt by asking once with a made-up observation, which also lets a JAX server compile.

A request carries all that its answer depends on, except the server's own chance: openpi draws the
noise of a flow policy on the server, where no client can seed it, so a real pi0 answers otherwise
when asked again.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.policies import wire
from worldeval.policies.checking import check_spec, states
from worldeval.policies.link import Request, ServerSettings, Session
from worldeval.policies.remote import Server, websocket_url
from worldeval.policies.request_keys import RequestKeys, droid_keys, read_keys, resize_with_pad
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec

log = logging.getLogger(__name__)

GRIPPERS = ("binary", "continuous")
GRIPPER_THRESHOLD = 0.5


class RemotePolicy:
    """A policy behind a server. Rollouts share its connections; answers come in row order."""

    def __init__(
        self,
        server: Server,
        keys: RequestKeys,
        robot: RobotSpec,
        spec: PolicySpec,
        *,
        gripper: str = "binary",
        clip: bool = True,
    ) -> None:
        if gripper not in GRIPPERS:
            raise ConfigError(f"gripper is {gripper!r}, expected one of {GRIPPERS}")
        if not isinstance(clip, bool):
            raise ConfigError(f"clip is {clip!r}, expected true or false")
        self.spec = spec
        self.server = server
        self._keys = keys
        self._gripper, self._clip = gripper, clip
        self._low = np.asarray(robot.action_low, np.float32)
        self._high = np.asarray(robot.action_high, np.float32)

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Nothing to forget: every request carries all that its answer depends on."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        requests = [
            Request(data=wire.pack(self._message(o)), of=f"rollout {o.rollout_id!r} step {o.step}")
            for o in observations
        ]
        answers = self.server.ask(requests, self._sessions(observations))
        expected = (self.spec.chunk, self.spec.action_dim)
        chunks = []
        for request, answer in zip(requests, answers, strict=True):
            actions = self.read(answer, request.of)
            if actions.shape != expected:
                raise PolicyError(
                    f"{self.server.settings.url} answered for {request.of} with actions of shape "
                    f"{actions.shape}, expected {expected} = (chunk, action_dim)"
                )
            if not np.isfinite(actions).all():  # before a threshold turns NaN into "open"
                step, axis = np.argwhere(~np.isfinite(actions))[0]
                raise PolicyError(
                    f"{self.server.settings.url} answered for {request.of} with "
                    f"{actions[step, axis]} (step {step}, action {axis}), expected finite numbers; "
                    "look for diverged weights or statistics of another robot"
                )
            chunks.append(self._command(actions))
        return np.stack(chunks)

    def close(self) -> None:
        self.server.close()

    def read(self, answer: bytes | str, of: str) -> np.ndarray:
        """The array of actions in an answer, of whatever shape it is."""
        value = wire.unpack(answer if isinstance(answer, bytes) else answer.encode())
        name = self._keys.actions or "actions"
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif self._keys.actions is not None or isinstance(value, dict):
            found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise PolicyError(
                f"{self.server.settings.url} answered for {of} with {found}, expected {name!r}; "
                "name the key of its actions in keys=FILE"
            )
        try:
            return np.asarray(value, np.float32)
        except (TypeError, ValueError) as error:
            raise PolicyError(
                f"{self.server.settings.url} answered for {of} with {type(value).__name__}, "
                f"expected an array of numbers ({error})"
            ) from error

    def _sessions(self, observations: Sequence[Observation]) -> list[Session] | None:
        return None

    def _message(self, observation: Observation) -> dict[str, Any]:
        message: dict[str, Any] = {
            key: resize_with_pad(observation.images[camera], self._keys.image_size)
            for key, camera in self._keys.images.items()
        }
        for key, names in self._keys.state.items():
            message[key] = np.concatenate([observation.state[name] for name in names])
        message[self._keys.prompt] = observation.instruction
        return message

    def _command(self, actions: np.ndarray) -> np.ndarray:
        actions = actions.copy()
        if self._gripper == "binary":
            actions[:, -1] = np.where(
                actions[:, -1] > GRIPPER_THRESHOLD, self._high[-1], self._low[-1]
            )
        return np.clip(actions, self._low, self._high) if self._clip else actions


def load(
    rest: str,
    robot: RobotSpec,
    *,
    name: str | None = None,
    chunk: int | None = None,
    execute: int | None = None,
    exterior: str = "exterior_2",
    keys: str | None = None,
    gripper: str = "binary",
    clip: bool = True,
    api_key: str | None = None,
    api_key_env: str | None = None,
    tls: bool = False,
    connections: int = 4,
    timeout_s: float = 120.0,
    wait_s: float = 0.0,
    reconnect_s: float = 120.0,
) -> RemotePolicy:
    """The policy behind ``openpi:REST``. See the module docstring and ``ServerSettings``.

    api_key_env: variable of the environment that holds the key; unlike ``api_key`` it does not
    write the key into the record of a run.
    """
    from worldeval.policies import roboarena

    settings = server_settings(
        "openpi",
        rest,
        api_key=api_key,
        api_key_env=api_key_env,
        tls=tls,
        connections=connections,
        timeout_s=timeout_s,
        wait_s=wait_s,
        reconnect_s=reconnect_s,
    )
    wanted = read_keys(keys) if keys is not None else droid_keys(exterior)
    _fit_before_asking(wanted, robot, name or "openpi")
    server = Server(settings)
    try:
        metadata = server.connect()
        if keys is None and roboarena.describes_itself(metadata):
            log.warning(
                "%s describes itself as a RoboArena server (action_space %r); it is asked as one",
                settings.url,
                metadata["action_space"],
            )
            return roboarena.policy(
                server,
                robot,
                name=name,
                chunk=chunk,
                execute=execute,
                exterior=exterior,
                gripper=gripper,
                clip=clip,
            )
        shown = _spec(wanted, robot, name or default_name(settings.url), robot.chunk_steps, None)
        policy = RemotePolicy(server, wanted, robot, shown, gripper=gripper, clip=clip)
        return with_chunk(policy, robot, chunk, execute)
    except BaseException:
        server.close()
        raise


def server_settings(
    scheme: str, rest: str, *, api_key: str | None, api_key_env: str | None, tls: bool, **times: Any
) -> ServerSettings:
    uri = f"{scheme}:{rest}"
    if api_key_env is not None:
        api_key = os.environ.get(str(api_key_env))
        if not api_key:
            raise ConfigError(
                f"policy {uri!r}: api_key_env is {api_key_env!r}, but the environment has no such "
                "variable; export it"
            )
    key = None if api_key is None else str(api_key)
    return ServerSettings(url=websocket_url(rest, uri, tls=bool(tls)), api_key=key, **times)


def default_name(url: str) -> str:
    """``ws://host:8000`` as a name that can be part of a key: openpi-host-8000."""
    return "openpi-" + url.partition("://")[2].strip("/").replace("/", "-").replace(":", "-")


def with_chunk(
    policy: RemotePolicy, robot: RobotSpec, chunk: int | None, execute: int | None
) -> RemotePolicy:
    """``policy`` with its server's chunk, which is learnt by asking once if not given."""
    if chunk is None:
        chunk = _try(policy, robot)
    elif type(chunk) is not int or chunk < 1:
        raise ConfigError(f"chunk is {chunk!r}, expected the number of steps in an answer")
    if execute is not None and (type(execute) is not int or not 1 <= execute <= chunk):
        raise MismatchError(
            f"policy {policy.spec.name!r}: execute is {execute!r}, but its server answers with "
            f"{chunk} steps; {_advice(chunk, robot)}"
        )
    if execute is None:
        per_frame = robot.steps_per_frame
        execute = min(chunk, robot.chunk_steps) // per_frame * per_frame
        if not execute:
            raise MismatchError(
                f"policy {policy.spec.name!r} answers with {chunk} steps, fewer than the "
                f"{per_frame} of one frame of robot {robot.name!r}; {_advice(chunk, robot)}"
            )
        if execute < robot.chunk_steps:
            log.warning(
                "policy %r executes %d of its %d steps at a time, a chunk of robot %r has %d; %s",
                policy.spec.name,
                execute,
                chunk,
                robot.name,
                robot.chunk_steps,
                _advice(chunk, robot),
            )
    policy.spec = dataclasses.replace(policy.spec, chunk=chunk, execute=execute)
    return policy


def _advice(chunk: int, robot: RobotSpec) -> str:
    fits = chunk // robot.frames_per_chunk
    if not fits:
        return f"a world model of {robot.frames_per_chunk} frames at once cannot use so few"
    return f"a robot with {fits} control steps a frame would use {fits * robot.frames_per_chunk}"


def _spec(
    keys: RequestKeys, robot: RobotSpec, name: str, chunk: int, execute: int | None
) -> PolicySpec:
    return PolicySpec(
        name=str(name),
        cameras=tuple(dict.fromkeys(keys.images.values())),
        image_size=None,  # padded here, not stretched by the world
        state_keys=keys.state_keys,
        action_space=keys.action_space,
        action_dim=keys.action_dim,
        chunk=chunk,
        execute=chunk if execute is None else execute,
        rate_hz=keys.rate_hz,
    )


def _fit_before_asking(keys: RequestKeys, robot: RobotSpec, name: str) -> None:
    """All of ``check_spec`` that does not depend on the server's answer."""
    check_spec(_spec(keys, robot, name, robot.chunk_steps, None), robot)


def made_up(robot: RobotSpec, spec: PolicySpec) -> Observation:
    """An observation that no robot ever saw, of the shapes that ``spec`` asks for."""
    rng = np.random.default_rng(0)
    height, width = robot.image_size
    pose = np.mean([robot.pose_low, robot.pose_high], axis=0)
    shown = states(pose, np.zeros(len(robot.joint_names)) if robot.joint_names else None)
    return Observation(
        images={c: rng.integers(0, 256, (height, width, 3), np.uint8) for c in spec.cameras},
        state={key: shown[key] for key in spec.state_keys},
        instruction="stand still",
        rollout_id="trial",
        step=0,
    )


def _try(policy: RemotePolicy, robot: RobotSpec) -> int:
    """Ask once; the number of steps in the answer."""
    observation = made_up(robot, policy.spec)
    policy.reset([observation.rollout_id], [observation.instruction], [0])
    of = "a made-up observation"
    request = Request(data=wire.pack(policy._message(observation)), of=of)
    (answer,) = policy.server.ask([request], policy._sessions([observation]))
    actions = policy.read(answer, of)
    if actions.ndim != 2 or not actions.shape[0] or actions.shape[1] != policy.spec.action_dim:
        raise MismatchError(
            f"{policy.server.settings.url} answers with actions of shape {actions.shape}, expected "
            f"(steps, {policy.spec.action_dim}) for robot {robot.name!r} "
            f"({', '.join(robot.action_names)}); serve a policy for this robot"
        )
    return int(actions.shape[0])
