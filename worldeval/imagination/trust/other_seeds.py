"""The same actions imagined again with other seeds: how much of a rollout is random.

Enters: a store of imagined rollouts and an ``Imagination`` that knows their start states. Leaves: a
store of second imaginations under the same keys, made by the one rollout engine with the recorded
actions as the policy; what is there already is not made again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError
from worldeval.motion.adapters import Adapter
from worldeval.policies.replay import ReplayPolicy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts, starts_of
from worldeval.rollout.suite import Suite
from worldeval.types import Outcome, StartState, World

SEED = 1_953_658_227
"""Added to the number of a second imagination; no suite is likely to have such a seed."""


def imagine_again(
    world: World,
    rollouts: EpisodeStore,
    out: str | Path,
    *,
    number: int = 1,
    batch: int = 8,
    adapter: Adapter | None = None,
    progress: bool = True,
) -> EpisodeStore:
    """Imagine every rollout of a store again, with seeds of its ``number``; resumable.

    Rollouts that ended with an error are left out. Raises DataError for a store that does not say
    which policy's its episodes are, StartStateError if the world lacks their start states.
    """
    if number < 1:
        raise ConfigError(f"number of the imagination is {number!r}, expected 1 or more")
    table = rollouts.metadata()
    lacking = [n for n in ("policy", "start_id", "start_seed", "split") if n not in table.columns]
    if len(table) and lacking:
        raise DataError(
            f"{rollouts.root} has no columns {lacking}, expected a store of rollouts; give one "
            "that `worldeval rollout` wrote"
        )
    robot = world.robot
    with open_rollouts(out, robot, images=rollouts.layout.images) as store:
        _check_actions(rollouts, store)
        whole = table[table["outcome"] != Outcome.ERROR.value] if len(table) else table
        for name, group in whole.groupby("policy", sort=False) if len(whole) else ():
            starts = starts_of(group)
            for length, some in _by_length(group["length"].tolist(), starts).items():
                suite = Suite(
                    name=f"{rollouts.root.name} again",
                    robot=robot.name,
                    chunks=-(-(length - 1) // robot.frames_per_chunk),
                    starts=tuple(some),
                    seed=SEED + number,
                )
                policy = ReplayPolicy(rollouts, robot, policy=str(name), name=str(name))
                run(world, policy, suite, store, batch=batch, adapter=adapter, progress=progress)
    return EpisodeStore.open(out)


def _check_actions(rollouts: EpisodeStore, again: EpisodeStore) -> None:
    """Raise ConfigError if ``again`` holds imaginations of other actions under the same keys."""
    for key in sorted(rollouts.keys & again.keys):
        first = rollouts.trajectory(rollouts.index_of(key)).actions
        second = again.trajectory(again.index_of(key)).actions
        if len(first) != len(second) or not np.array_equal(first, second):
            raise ConfigError(
                f"{again.root} holds a second imagination of {key!r} with other actions than "
                f"{rollouts.root} has now: that was rolled out anew; delete {again.root} to "
                "imagine it again"
            )


def _by_length(lengths: list[int], starts: tuple[StartState, ...]) -> dict[int, list[StartState]]:
    """Start states by the number of frames of their rollouts, of which a suite has one."""
    groups: dict[int, list[StartState]] = {}
    for length, start in zip(lengths, starts, strict=True):
        groups.setdefault(length, []).append(start)
    return {length: some for length, some in groups.items() if length > 1}
