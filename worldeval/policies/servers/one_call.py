"""A policy whose server says nothing of itself and answers one observation a call.

Enters: observations, and what the URI says of the policy. Leaves: chunks of actions to the bit as
the server gave them, or one sentence. Subclasses say how a request and an answer are written
(``encode``, ``decode``). What such a server does not say, its URI or a file does: cameras, states,
chunk, and the ``conventions`` that are compared before the first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from worldeval.errors import ConfigError, PolicyError
from worldeval.policies.checking import check_spec, shaped_actions, state_keys
from worldeval.policies.servers import conventions
from worldeval.policies.servers.link import Request, ServerSettings, Session
from worldeval.policies.servers.remote_policy import made_up
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec


class Asked(Protocol):
    """A server and its connections: ``Pool``, or ``remote.Server`` where a connection remembers."""

    settings: ServerSettings

    def ask(
        self, requests: Sequence[Request], sessions: Sequence[Session] | None = None
    ) -> list[bytes | str]:
        """The answers, in order."""
        ...

    def close(self) -> None: ...


class OneCall:
    """A policy behind a ``Pool``; see the module docstring."""

    watches_itself = True  # by its own timeout_s

    def __init__(self, pool: Asked, robot: RobotSpec, spec: PolicySpec) -> None:
        self.pool, self.spec, self._robot = pool, spec, robot
        self.url = pool.settings.url

    def encode(self, observation: Observation) -> bytes:
        """The request for one observation."""
        raise NotImplementedError

    def request(self, observation: Observation, of: str) -> Request:
        return Request(data=self.encode(observation), of=of)

    def sessions(self, observations: Sequence[Observation]) -> list[Session] | None:
        """The session of each row; None where the server remembers nothing."""
        return None

    def decode(self, answer: bytes, of: str) -> Any:
        """The actions (chunk, action_dim) of an answer."""
        raise NotImplementedError

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Nothing to forget: every request carries all that its answer depends on."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        requests = [
            self.request(o, f"rollout {o.rollout_id!r} step {o.step}") for o in observations
        ]
        answers = self.pool.ask(requests, self.sessions(observations))
        return np.concatenate(
            [
                self._actions(answer, request.of)
                for request, answer in zip(requests, answers, strict=True)
            ]
        )

    def close(self) -> None:
        self.pool.close()

    def trial(self) -> int:
        """Ask once with a made-up observation; the number of steps in the answer."""
        observation = made_up(self._robot, self.spec)
        if self.spec.image_size is not None:
            images = {
                name: np.zeros((*self.spec.image_size, 3), np.uint8) for name in self.spec.cameras
            }
            observation = dataclasses.replace(observation, images=images)
        self.reset([observation.rollout_id], [observation.instruction], [0])
        of = "a made-up observation"
        sessions = self.sessions([observation])
        (answer,) = self.pool.ask([self.request(observation, of)], sessions)
        return len(self._array(answer, of))

    def _array(self, answer: bytes | str, of: str) -> np.ndarray:
        value = self.decode(answer if isinstance(answer, bytes) else answer.encode(), of)
        try:
            actions = np.asarray(value, np.float32)
        except (TypeError, ValueError) as error:
            raise PolicyError(
                f"{self.url} answered for {of} with {type(value).__name__}, expected numbers "
                f"({error})"
            ) from error
        if actions.ndim != 2 or not len(actions) or actions.shape[1] != self.spec.action_dim:
            raise PolicyError(
                f"{self.url} answered for {of} with actions of shape {actions.shape}, expected "
                f"(chunk, {self.spec.action_dim}) for robot {self._robot.name!r} "
                f"({', '.join(self._robot.action_names)}); serve a policy for this robot"
            )
        return actions

    def _actions(self, answer: bytes | str, of: str) -> np.ndarray:
        return shaped_actions(self._array(answer, of)[None], self.spec, self._robot, 1)


def opened(
    kind: Callable[[Any, RobotSpec, PolicySpec], OneCall],
    robot: RobotSpec,
    pool: Asked,
    *,
    name: str,
    cameras: str | None,
    state: str | None,
    size: int | None,
    chunk: int | None,
    execute: int | None,
    conventions_file: str | None,
    prepare: Callable[[Any], None] = lambda policy: None,
) -> Any:
    """The policy of ``kind``, compared with the robot and asked once for its chunk.

    cameras, state: names joined by commas; the robot's cameras and its "pose" if None, none if "".
    size: both sides of its images in pixels; the world's own if None. chunk: learnt if None.
    prepare: does to the policy what its kind needs before it is asked.
    """
    try:
        first = chunk or 1
        for what, value in (("chunk", chunk), ("execute", execute), ("size", size)):
            if value is not None and value < 1:
                raise ConfigError(f"{what} is {value}, expected 1 or more")
        spec = PolicySpec(
            name=name,
            cameras=_names(cameras, robot.views),
            image_size=(size, size) if size else None,
            state_keys=_names(state, state_keys(robot)[:1]),
            action_space=robot.action_space,
            action_dim=robot.action_dim,
            chunk=first,
            execute=min(execute or first, first),
            rate_hz=robot.control_hz,
        )
        said = conventions.read_conventions(conventions_file or None)
        check_spec(spec, robot)
        policy = kind(pool, robot, spec)
        unknown = ("chunk", "execute") if chunk is None else ()
        conventions.compare_said(said, robot, spec, unknown=unknown)
        prepare(policy)
        if chunk is None:
            chunk = policy.trial()
        steps = execute or min(chunk, robot.chunk_steps)
        policy.spec = dataclasses.replace(spec, chunk=chunk, execute=steps)
        conventions.compare_said(said, robot, policy.spec)
        check_spec(policy.spec, robot)
        return policy
    except BaseException:
        pool.close()
        raise


def _names(text: str | None, default: Sequence[str]) -> tuple[str, ...]:
    if text is None:
        return tuple(default)
    return tuple(filter(None, (part.strip() for part in text.split(","))))
