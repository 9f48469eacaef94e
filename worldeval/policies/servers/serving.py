"""Any policy behind RoboArena's hello on openpi's wire, for our own client and for others.

Enters: a way to make a policy, and its robot. Leaves: a ``PolicyServer`` on a port. A message is

    {"endpoint": "reset", "session_id": ..}  answered by text; it may have "seed", "prompt" and
                                             "rollout_id"
    {"endpoint": "infer", "session_id": ..}  with images and states of the hello, and "prompt";
                                             answered by the array of actions (chunk, action_dim)
    without "endpoint"                       openpi's: answered by {"actions": array}

A policy forgets everything at a reset, so each session has one of its own. How sessions come and
go, and what becomes of errors, says ``sessions.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldeval.errors import PolicyError
from worldeval.policies.checking import check_policy, shaped_actions
from worldeval.policies.servers import hello, msgpack_numpy
from worldeval.policies.servers.sessions import Held, SessionServer
from worldeval.robots import RobotSpec
from worldeval.types import Observation, Policy


@dataclass(eq=False)
class Rollout:
    """A policy, and where its rollout stands."""

    policy: Policy
    name: str = ""
    step: int = 0


class PolicyServer(SessionServer[Rollout]):
    """A policy on a port of ``host``; ``port`` says which if 0 was asked for. A context manager.

    make: a policy, called for each session. conventions: values of ``conventions.ours`` that are
    served otherwise. seed: of a session whose reset names none.
    """

    error = PolicyError
    endpoints = (None, "infer", "reset")

    def __init__(
        self,
        make: Callable[[], Policy],
        robot: RobotSpec,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        sessions: int = 8,
        conventions: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        first = make()
        check_policy(first, robot)
        self.spec, self._robot, self._seed = first.spec, robot, seed
        self._images = hello.image_keys(self.spec)
        super().__init__(
            lambda: Rollout(make()),
            Rollout(first),
            msgpack_numpy.pack(hello.metadata(self.spec, robot, sessions, conventions)),
            host=host,
            port=port,
            sessions=sessions,
        )

    def end(self, thing: Rollout) -> None:
        thing.policy.close()

    def answer(
        self, session: Held[Rollout], name: str, endpoint: str | None, message: dict[str, Any]
    ) -> bytes | str:
        if endpoint == "reset" or not session.begun:
            self._begin(session.thing, name, message)
            session.begun = True
        if endpoint == "reset":
            return "reset successful"
        actions = self._act(session.thing, message)
        return msgpack_numpy.pack(actions if endpoint else {"actions": actions})

    def _begin(self, rollout: Rollout, name: str, message: Mapping[str, Any]) -> None:
        seed = message.get("seed", self._seed)
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise PolicyError(f"seed is {seed!r}, expected a whole number of 0 or more")
        rollout.name, rollout.step = str(message.get("rollout_id", name)), 0
        rollout.policy.reset([rollout.name], [str(message.get("prompt", ""))], [int(seed)])

    def _act(self, rollout: Rollout, message: Mapping[str, Any]) -> np.ndarray:
        step = message.get("step", rollout.step)
        if not isinstance(step, int | np.integer) or step < 0:
            raise PolicyError(f"step is {step!r}, expected a whole number of 0 or more")
        observation = Observation(
            images={camera: self._image(message, key) for key, camera in self._images.items()},
            state={name: self._state(message, name) for name in self.spec.state_keys},
            instruction=str(message.get("prompt", "")),
            rollout_id=rollout.name,
            step=int(step),
        )
        rollout.step = int(step) + self.spec.execute
        answer = rollout.policy.act([observation])
        return shaped_actions(answer, self.spec, self._robot, 1)[0]

    def _image(self, message: Mapping[str, Any], key: str) -> np.ndarray:
        image = self._array(message, key)
        size = self.spec.image_size
        right = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        if not right or size is not None and image.shape[:2] != tuple(size):
            height, width = size or ("H", "W")
            raise PolicyError(
                f"{key} is {image.dtype} of shape {image.shape}, expected uint8 RGB "
                f"({height}, {width}, 3)"
            )
        return image

    def _state(self, message: Mapping[str, Any], name: str) -> np.ndarray:
        key = f"observation/{name}"
        state = self._array(message, key)
        robot = self._robot
        grippers = len(robot.pose_grippers)
        sizes = {
            "pose": robot.pose_dim,
            "joint_position": robot.joint_dim,
            "gripper_position": grippers,
            "cartesian_position": robot.pose_dim - grippers,
        }
        if state.dtype.kind not in "fiu" or state.shape != (sizes[name],):
            raise PolicyError(
                f"{key} is {state.dtype} of shape {state.shape}, expected {sizes[name]} numbers"
            )
        if not np.isfinite(state).all():
            raise PolicyError(f"{key} has numbers that are not finite, expected finite ones")
        return state.astype(np.float32)

    def _array(self, message: Mapping[str, Any], key: str) -> np.ndarray:
        if key not in message:
            raise PolicyError(
                f"a request has no {key!r}, expected {', '.join(self._images)} and "
                f"{', '.join('observation/' + name for name in self.spec.state_keys) or 'no state'}"
                f"; it has {', '.join(sorted(map(str, message)))}"
            )
        return np.asarray(message[key])
