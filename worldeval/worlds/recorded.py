"""A recorded store as a world: it shows what was recorded, whatever actions come.

Enters: an ``EpisodeStore`` and the robot that made it. Leaves: the recorded frames and poses. It
gives a policy's own view of true episodes (its actions change nothing), feeds judges and viewers
through the one engine, and is the reference that imagined replays are compared with.

Rollouts are found by ``start_id``: a key of the store, or the ``start_id`` column where only one
episode has it. After the end of a recording its last frame stays, and ``info["held"]`` counts the
frames for which it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worldeval.data import digests
from worldeval.data.fit import check_store
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, MismatchError, StartStateError, WorldError
from worldeval.policies.arguments import split_arguments
from worldeval.registry import did_you_mean
from worldeval.robots import RobotSpec
from worldeval.types import ActionChunk, Episode, StartState, WorldStep
from worldeval.worlds.named import robot_of_store


class RecordedWorld:
    """Replays the frames of a store.

    robot: must have the store's views, image size, pose and actions, else MismatchError.
    truth: whether the success flags of the recordings are shown. None: if every episode of the
        store was judged (so that it does not depend on which episodes meet in a batch).
    policy: where several policies share start states, whose recordings to show.
    """

    frames_per_step: int | None = None
    own_seed = 0

    def __init__(
        self,
        store: EpisodeStore | str | Path,
        robot: RobotSpec,
        *,
        truth: bool | None = None,
        policy: str | None = None,
        name: str = "recorded",
    ) -> None:
        self.name = name
        self.robot = robot
        self._store = EpisodeStore.open(store) if isinstance(store, (str, Path)) else store
        check_store(self._store, robot, actions=False)
        table = self._store.metadata()
        if policy is not None:
            if "policy" not in table.columns or policy not in set(table["policy"]):
                raise MismatchError(
                    f"{self._store.root} has no rollouts of policy {policy!r}; leave policy out or "
                    "name one that it has"
                )
            table = table[table["policy"] == policy]
        self._table = table
        self._truth = bool(table["success"].notna().all()) if truth is None else truth
        self._index = {
            str(k): int(i) for k, i in zip(table["key"], table["episode_index"], strict=True)
        }
        self._of_start: dict[str, list[str]] = {}
        if "start_id" in table.columns:
            for start_id, key in zip(table["start_id"], table["key"], strict=True):
                self._of_start.setdefault(str(start_id), []).append(str(key))
        self._episodes: list[Episode | None] = []
        self._time: list[int] = []
        self._digests: dict[str, str] | None = None

    @property
    def own_chunks(self) -> int:
        """As long as the longest recording, in whole chunks."""
        frames = max((int(n) for n in self._table["length"]), default=1) - 1
        return max(1, -(-frames // self.robot.frames_per_chunk))

    def own_starts(self) -> tuple[StartState, ...]:
        return self.start_states()

    def start_states(self) -> tuple[StartState, ...]:
        """One start state an episode, with its key as ``start_id``: the store as a suite."""
        # Rollouts keep the scene's seed as "start_seed", recorded demonstrations as "seed".
        table = self._table
        seeds = next((table[c] for c in ("start_seed", "seed") if c in table.columns), None)
        splits = table["split"] if "split" in table.columns else None
        return tuple(
            StartState(
                start_id=str(table["key"].iloc[i]),
                task=str(table["task"].iloc[i]),
                instruction=str(table["instruction"].iloc[i]),
                seed=0 if seeds is None else int(seeds.iloc[i]),
                split="recorded" if splits is None else str(splits.iloc[i]),
            )
            for i in range(len(table))
        )

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        self._episodes = [None] * len(starts)
        self._time = [0] * len(starts)
        return self.reset_rows(range(len(starts)), starts, seeds)

    def reset_rows(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> WorldStep:
        """Begin other recordings in some rows; ``seeds`` are not used, nothing here is random."""
        for row, start in zip(rows, starts, strict=True):
            episode = self._store.episode(self._find(start.start_id))
            if self._truth and episode.success_at is None:
                raise WorldError(
                    f"recording {episode.key!r} has no success flags; make the world with "
                    "truth=False and let a judge decide"
                )
            self._episodes[row], self._time[row] = episode, 0
        return self._show(rows, 1)

    def start_digest(self, start: StartState) -> str:
        """Twelve digits for the recording that ``start`` shows."""
        if self._digests is None:
            self._digests = digests.of_episodes(self._store)
        return self._digests[str(self._store.facts(self._find(start.start_id))["key"])]

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        frames = chunk.poses.shape[1]
        for row in rows:
            self._time[row] += 1
        shown = self._show(rows, frames)
        for row in rows:
            self._time[row] += frames - 1
        return shown

    def close(self) -> None:
        self._episodes, self._time = [], []

    def _show(self, rows: Sequence[int], frames: int) -> WorldStep:
        episodes = [self._episode(row) for row in rows]
        wanted = [np.arange(self._time[row], self._time[row] + frames) for row in rows]
        times = [np.minimum(w, e.length - 1) for w, e in zip(wanted, episodes, strict=True)]
        success = None
        if self._truth:
            success = np.stack(
                [np.asarray(e.success_at)[t] for e, t in zip(episodes, times, strict=True)]
            )
        return WorldStep(
            frames=np.stack([e.frames[t] for e, t in zip(episodes, times, strict=True)]),
            poses=np.stack([e.poses[t] for e, t in zip(episodes, times, strict=True)]),
            success=success,
            info=[
                {"recording": e.key, "held": int((w != t).sum())}
                for e, w, t in zip(episodes, wanted, times, strict=True)
            ],
            joints=self._joints(episodes, times),
        )

    def _joints(
        self, episodes: Sequence[Episode], times: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        if not self.robot.joint_names:
            return None
        return np.stack([np.asarray(e.joints)[t] for e, t in zip(episodes, times, strict=True)])

    def _episode(self, row: int) -> Episode:
        episode = self._episodes[row]
        if episode is None:
            raise WorldError(f"world {self.name!r}: row {row} was never reset; call reset first")
        return episode

    def _find(self, start_id: str) -> int:
        if start_id in self._index:
            return self._index[start_id]
        keys = self._of_start.get(start_id, [])
        if len(keys) == 1:
            return self._index[keys[0]]
        if keys:
            raise StartStateError(
                f"start state {start_id!r} has {len(keys)} recordings in {self._store.root}, such "
                f"as {keys[0]!r} and {keys[1]!r}, expected one; say whose with policy=NAME"
            )
        raise StartStateError(
            f"start state {start_id!r} is neither a key nor a start_id in {self._store.root} "
            f"({len(self._index)} episodes); take start states from start_states()"
        )


def load(rest: str) -> RecordedWorld:
    """The world of ``recorded:STORE?policy=NAME``, whose robot the store keeps."""
    place, given = split_arguments(rest, "world")
    for name in given:
        if name != "policy":
            raise ConfigError(
                f"world 'recorded:{rest}' has no argument {name!r}"
                f"{did_you_mean(name, ['policy'])}; it has policy"
            )
    if not place:
        raise ConfigError("world 'recorded:' names no store; write recorded:FOLDER")
    store = EpisodeStore.open(place)
    return RecordedWorld(
        store,
        robot_of_store(store),
        policy=given["policy"].text if "policy" in given else None,
    )
