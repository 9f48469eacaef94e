"""Recorded actions as a policy: the same hands in another world.

Enters: an EpisodeStore and a rollout's name. Leaves: the recorded actions, chunk by chunk, then
standing still with the last gripper command. Replay in imagination against the recorded frames is
how fidelity is measured; ``shuffled`` answers with another episode's actions, which a faithful
world must show as worse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data.fit import check_store
from worldeval.errors import PolicyError
from worldeval.policies.scripted import blind_spec
from worldeval.robots import ABSOLUTE_MOTIONS, RobotSpec
from worldeval.types import Observation

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore


class ReplayPolicy:
    """Replays a store's episodes, found by rollout id.

    A rollout id matches an episode's key or its ``start_id`` column, with or without leading parts
    (the engine names rollouts "policy/start_id"). Where several episodes share a start id,
    ``policy`` says whose recording is meant.
    """

    def __init__(
        self,
        store: str | Path | EpisodeStore,
        robot: RobotSpec,
        *,
        policy: str | None = None,
        shuffled: bool = False,
        name: str | None = None,
    ) -> None:
        if isinstance(store, str | Path):
            from worldeval.data.store.episodes import EpisodeStore

            store = EpisodeStore.open(store)
        check_store(store, robot)
        self.spec = blind_spec(name or ("replay-shuffled" if shuffled else "replay"), robot)
        self._robot = robot
        self._store = store
        self._shuffled = shuffled
        table = store.metadata()
        if policy is not None:
            if "policy" not in table.columns:
                raise PolicyError(
                    f"policy is {policy!r}, but the store has no column 'policy' (it has "
                    f"{list(table.columns)}); leave policy out"
                )
            table = table[table["policy"] == policy]
        if not len(table):
            raise PolicyError(
                "there is nothing to replay: the store has no episodes"
                + (f" of policy {policy!r}" if policy else "")
                + "; give another store"
            )
        self._keys = {
            int(i): str(k) for i, k in zip(table["episode_index"], table["key"], strict=True)
        }
        self._by_name: dict[str, list[int]] = {}
        for index, key in self._keys.items():
            self._by_name.setdefault(key, []).append(index)
        if "start_id" in table.columns:
            for index, start in zip(table["episode_index"], table["start_id"], strict=True):
                known = self._by_name.setdefault(str(start), [])
                if int(index) not in known:
                    known.append(int(index))
        self._actions: dict[str, np.ndarray] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self._actions = {}
        for rollout in rollout_ids:
            index = self._find(rollout)
            if self._shuffled:
                index = self._other(index)
            actions = self._store.trajectory(index).actions  # (T, S, A)
            self._actions[rollout] = actions.reshape(-1, actions.shape[-1])

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        chunks = []
        for observation in observations:
            if observation.rollout_id not in self._actions:
                raise PolicyError(
                    f"policy {self.spec.name!r} does not know rollout {observation.rollout_id!r}; "
                    "call reset with it before act"
                )
            chunks.append(self._chunk(self._actions[observation.rollout_id], observation.step))
        return np.stack(chunks)

    def close(self) -> None:
        self._actions = {}

    def _find(self, rollout: str) -> int:
        parts = rollout.split("/")
        for first in range(len(parts)):
            found = self._by_name.get("/".join(parts[first:]), [])
            if len(found) == 1:
                return found[0]
            if found:
                raise PolicyError(
                    f"{len(found)} recorded episodes match rollout {rollout!r}, such as "
                    f"{self._keys[found[0]]!r} and {self._keys[found[1]]!r}, expected one; say "
                    "whose with policy=NAME"
                )
        raise PolicyError(
            f"no recorded episode matches rollout {rollout!r} among {len(self._keys)}, such as "
            f"{next(iter(self._keys.values()))!r}; replay a store that was made from the same "
            "start states"
        )

    def _other(self, index: int) -> int:
        """The next episode on one ring through all, in an order that hashing fixes."""
        if len(self._keys) < 2:
            raise PolicyError("shuffled replay has 1 episode, expected 2 or more; record another")
        ring = sorted(self._keys, key=lambda i: hashlib.sha256(self._keys[i].encode()).hexdigest())
        return ring[(ring.index(index) + 1) % len(ring)]

    def _chunk(self, steps: np.ndarray, start: int) -> np.ndarray:
        chunk = np.zeros((self.spec.chunk, self.spec.action_dim), np.float32)
        recorded = steps[start : start + self.spec.chunk]
        chunk[: len(recorded)] = recorded
        if len(steps) and self._robot.control_mode in ABSOLUTE_MOTIONS:
            chunk[len(recorded) :] = steps[-1]  # to stay is to be told the same place again
        elif len(steps):
            held = list(self._robot.held_axes)
            chunk[len(recorded) :, held] = steps[-1, held]
        else:
            grippers = list(self._robot.gripper_axes)
            chunk[:, grippers] = self._robot.grippers_open
        return chunk


class ShuffledReplayPolicy(ReplayPolicy):
    """Replays another episode's actions: the control that a faithful world must show as worse."""

    def __init__(
        self,
        store: str | Path | EpisodeStore,
        robot: RobotSpec,
        *,
        policy: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(store, robot, policy=policy, shuffled=True, name=name)
