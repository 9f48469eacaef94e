"""The policies of ``run.py``: a toy policy behind a server of its own, and the same in process.

Enters: observations. Leaves: actions that depend on the rollout's seed and the pictures alone, so a
server may forget everything between two requests. Run as a program, it is the server.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from websockets.sync.server import ServerConnection, serve

from worldeval.policies.servers import msgpack_numpy
from worldeval.policies.servers.link import Request, ServerSettings
from worldeval.policies.servers.remote import Server
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec
from worldeval.worlds.toy import TOY_ROBOT, ToyPolicy


def answer(asked: dict[str, Any]) -> np.ndarray:
    """The actions (K, A) for one observation."""
    policy = ToyPolicy(robot=TOY_ROBOT, mistakes=0.4, clumsiness=0.5)
    policy.reset(["one"], [asked["instruction"]], [asked["seed"]])
    seen = Observation(
        rollout_id="one",
        step=0,
        images={name: asked[name] for name in ("top", "front")},
        state={"pose": asked["pose"]},
        instruction=asked["instruction"],
    )
    return policy.act([seen])[0]


class Local:
    """In process; ``name`` is that of its rollouts."""

    def __init__(self, robot: RobotSpec, name: str = "a") -> None:
        self.spec: PolicySpec = ToyPolicy(robot=robot, name=name).spec
        self._seeds: dict[str, int] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self._seeds = dict(zip(rollout_ids, seeds, strict=True))

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return np.stack([self._asked(self._question(seen)) for seen in observations])

    def close(self) -> None:
        self._seeds = {}

    def _question(self, seen: Observation) -> dict[str, Any]:
        return {
            "instruction": seen.instruction,
            "seed": self._seeds[seen.rollout_id],
            "pose": np.asarray(seen.state["pose"]),
            **{name: np.asarray(seen.images[name]) for name in ("top", "front")},
        }

    def _asked(self, question: dict[str, Any]) -> np.ndarray:
        return answer(question)


class Served(Local):
    """Behind a server on this machine."""

    watches_itself = True

    def __init__(self, robot: RobotSpec, port: int, name: str = "a") -> None:
        super().__init__(robot, name)
        settings = ServerSettings(
            url=f"ws://127.0.0.1:{port}", wait_s=60, timeout_s=20, reconnect_s=60
        )
        self._server = Server(settings)

    def _asked(self, question: dict[str, Any]) -> np.ndarray:
        (data,) = self._server.ask([Request(data=msgpack_numpy.pack(question), of="actions")])
        assert isinstance(data, bytes)
        return np.array(msgpack_numpy.unpack(data)["actions"])

    def close(self) -> None:
        super().close()
        self._server.close()


def _speak(connection: ServerConnection) -> None:
    connection.send(msgpack_numpy.pack({"policy": "toy"}))
    for message in connection:
        assert isinstance(message, bytes)
        time.sleep(0.01)
        connection.send(msgpack_numpy.pack({"actions": answer(msgpack_numpy.unpack(message))}))


if __name__ == "__main__":
    with serve(_speak, "127.0.0.1", int(sys.argv[1]), compression=None, max_size=None) as server:
        server.serve_forever()
