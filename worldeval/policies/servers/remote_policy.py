"""A policy behind a server: observations become requests, answers become chunks of actions.

Enters: observations, and ``RequestKeys``. Leaves: actions in the robot's units, each answer checked
for shape and numbers before it is touched. ``openpi.py`` and ``roboarena.py`` open such policies.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.policies.checking import states
from worldeval.policies.commands_sent import Sent, gripper_cuts
from worldeval.policies.servers import msgpack_numpy
from worldeval.policies.servers.conventions import compare_said
from worldeval.policies.servers.link import Request, Session
from worldeval.policies.servers.remote import Server
from worldeval.policies.servers.request_keys import RequestKeys, resize_with_pad
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec

log = logging.getLogger(__name__)


class RemotePolicy:
    """A policy behind a server. Rollouts share its connections; answers come in row order."""

    watches_itself = True  # by its own timeout_s, and it may wait for a server that comes back

    def __init__(
        self,
        server: Server,
        keys: RequestKeys,
        robot: RobotSpec,
        spec: PolicySpec,
        *,
        gripper: str = "binary",
        gripper_at: float | None = None,
        clip: bool = True,
    ) -> None:
        """gripper: "binary" opens or closes it wholly, at ``gripper_at`` (None: the middle of the
        robot's own bounds); "continuous" carries out what the server says. clip: numbers beyond the
        robot's bounds are brought to them and counted; else they are refused.
        """
        if not isinstance(clip, bool):
            raise ConfigError(f"clip is {clip!r}, expected true or false")
        self.spec = spec
        self.server = server
        self._robot = robot
        self._keys = keys
        self._clip = clip
        self._gripper = gripper
        self.grippers = gripper_cuts(robot, gripper, gripper_at)
        self._sent = Sent(robot, self.grippers)
        self._low = np.asarray(robot.action_low, np.float32)
        self._high = np.asarray(robot.action_high, np.float32)

    unknown: tuple[str, ...] = ()
    """Conventions that cannot be compared."""

    def sent(self) -> dict[str, Any]:
        """Conventions that are kept otherwise than ``conventions.ours`` says."""
        size = self._keys.image_size
        padded = {} if size is None else {"image_size": list(size), "resize": "letterbox"}
        return {"gripper_kind": self._gripper, **padded}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Nothing to forget: every request carries all that its answer depends on."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        requests = [
            Request(
                data=msgpack_numpy.pack(self.message(o)),
                of=f"rollout {o.rollout_id!r} step {o.step}",
            )
            for o in observations
        ]
        answers = self.server.ask(requests, self.sessions(observations))
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
        for note in self.run_notes():
            log.warning("%s", note)

    def run_notes(self) -> list[str]:
        """What its user has to know of what was answered since this was last asked."""
        sent, self._sent = self._sent, Sent(self._robot, self.grippers)
        return sent.notes(self.spec.name, clipped=self._clip)

    def read(self, answer: bytes | str, of: str) -> np.ndarray:
        """The array of actions in an answer, of whatever shape it is."""
        value = msgpack_numpy.unpack(answer if isinstance(answer, bytes) else answer.encode())
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

    def sessions(self, observations: Sequence[Observation]) -> list[Session] | None:
        """The session of each row; None where the server remembers nothing."""
        return None

    def message(self, observation: Observation) -> dict[str, Any]:
        """The request for one observation, before it is packed."""
        message: dict[str, Any] = {
            key: resize_with_pad(observation.images[camera], self._keys.image_size)
            for key, camera in self._keys.images.items()
        }
        for key, names in self._keys.state.items():
            message[key] = np.concatenate([observation.state[name] for name in names])
        message[self._keys.prompt] = observation.instruction
        return message

    def _command(self, actions: np.ndarray) -> np.ndarray:
        self._sent.add(actions)
        actions = actions.copy()
        for axis, at in self.grippers.items():
            actions[:, axis] = np.where(actions[:, axis] > at, self._high[axis], self._low[axis])
        return np.clip(actions, self._low, self._high) if self._clip else actions


def with_chunk(
    policy: RemotePolicy,
    robot: RobotSpec,
    chunk: int | None,
    execute: int | None,
    said: Mapping[str, Any] | None = None,
) -> RemotePolicy:
    """``policy`` with its server's chunk, which is learnt by asking once if not given.

    said: conventions of the server from a file, compared before it is asked and again once the
    chunk is known.
    """
    unknown = policy.unknown
    compare_said(said, robot, policy.spec, unknown=(*unknown, "chunk", "execute"), **policy.sent())
    if chunk is None:
        chunk = _try(policy, robot)
    elif type(chunk) is not int or chunk < 1:
        raise ConfigError(f"chunk is {chunk!r}, expected the number of steps in an answer")
    if execute is not None and (type(execute) is not int or not 1 <= execute <= chunk):
        raise MismatchError(
            f"policy {policy.spec.name!r}: execute is {execute!r}, but its server answers with "
            f"{chunk} steps; give 1 to {chunk}"
        )
    if execute is None:
        execute = min(chunk, robot.chunk_steps)
    policy.spec = dataclasses.replace(policy.spec, chunk=chunk, execute=execute)
    compare_said(said, robot, policy.spec, unknown=unknown, **policy.sent())
    return policy


def spec_for(keys: RequestKeys, robot: RobotSpec, name: str) -> PolicySpec:
    """All that is known before the server has answered; its chunk is taken to be the robot's."""
    return PolicySpec(
        name=str(name),
        cameras=tuple(dict.fromkeys(keys.images.values())),
        image_size=None,  # padded here, not stretched by the world
        state_keys=keys.state_keys,
        action_space=keys.action_space,
        action_dim=keys.action_dim,
        chunk=robot.chunk_steps,
        execute=robot.chunk_steps,
        rate_hz=keys.rate_hz,
    )


def made_up(robot: RobotSpec, spec: PolicySpec) -> Observation:
    """An observation that no robot ever saw, of the shapes that ``spec`` asks for."""
    rng = np.random.default_rng(0)
    height, width = robot.image_size
    pose = np.mean([robot.pose_low, robot.pose_high], axis=0)
    shown = states(robot, pose, np.zeros(len(robot.joint_names)) if robot.joint_names else None)
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
    request = Request(data=msgpack_numpy.pack(policy.message(observation)), of=of)
    (answer,) = policy.server.ask([request], policy.sessions([observation]))
    actions = policy.read(answer, of)
    if actions.ndim != 2 or not actions.shape[0] or actions.shape[1] != policy.spec.action_dim:
        raise MismatchError(
            f"{policy.server.settings.url} answers with actions of shape {actions.shape}, expected "
            f"(steps, {policy.spec.action_dim}) for robot {robot.name!r} "
            f"({', '.join(robot.action_names)}); serve a policy for this robot"
        )
    return int(actions.shape[0])
