"""Replay of recorded episodes in imagination: how true is the imagined film, and does it obey?

In: a store of recorded episodes and an ``Imagination``. Out: a store of imagined replays (through
the one rollout engine, with the recording as the policy) and a ``ReplayReport``: PSNR and SSIM per
view and chunk, for the episode's own actions, another episode's, and none at all, beside repeating
the first frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from worldeval.data.goal_distance import distances_of
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError
from worldeval.imagination.env import Imagination
from worldeval.metrics.fidelity import ReplayReport
from worldeval.motion.adapters import Adapter
from worldeval.policies.replay import ReplayPolicy
from worldeval.policies.scripted import ZeroPolicy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts, rollout_key
from worldeval.rollout.suite import Suite
from worldeval.types import Episode, Policy, StartState

VARIANTS = ("own", "shuffled", "zero")


def origins(table: pd.DataFrame) -> pd.Series:
    """What an imagined replay of each episode calls its start state: the episode's own start_id,
    or its key where several episodes (of several policies) begin at one start state."""
    return table["start_id"] if table["start_id"].is_unique else table["key"]


def suite_of(store: EpisodeStore, *, chunks: int, name: str, limit: int | None = None) -> Suite:
    """The start states of recorded episodes, spread evenly over the store if ``limit`` is set."""
    table = store.metadata()
    table = table.assign(start_id=origins(table))
    picked = np.arange(len(table))
    if limit is not None and limit < len(table):
        picked = np.unique(np.linspace(0, len(table) - 1, limit).astype(int))
    starts = tuple(
        StartState(
            start_id=str(row["start_id"]),
            task=str(row["task"]),
            seed=int(row["seed"]),
            split=str(row["split"]),
            instruction=str(row["instruction"]),
        )
        for _, row in table.iloc[picked].iterrows()
    )
    return Suite(name=name, robot=store.layout.robot_type, chunks=chunks, starts=starts)


def imagine_replays(
    world: Imagination,
    source: EpisodeStore,
    out: str | Path,
    *,
    variant: str = "own",
    chunks: int = 10,
    batch: int = 8,
    limit: int | None = None,
    images: str = "lossless",
    progress: bool = True,
    adapter: Adapter | None = None,
) -> EpisodeStore:
    """Roll the recorded actions of ``source`` out in imagination; resumable, returns the store.

    adapter: turns actions into poses; that of the robot's ``motion`` if None.
    Rollouts are called ``own/<start_id>`` and so on after their variant.
    """
    policy: Policy
    if variant == "zero":
        policy = ZeroPolicy(world.robot, name=variant)
    elif variant in VARIANTS:
        policy = ReplayPolicy(source, world.robot, shuffled=variant == "shuffled", name=variant)
    else:
        raise DataError(f"replay variant is {variant!r}, expected one of {', '.join(VARIANTS)}")
    store = open_rollouts(out, world.robot, images=images)
    suite = suite_of(source, chunks=chunks, name=f"replay of {source.root.name}", limit=limit)
    run(world, policy, suite, store, batch=batch, seed=0, progress=progress, adapter=adapter)
    store.close()
    return store


def with_truth(imagined: EpisodeStore, source: EpisodeStore, index: int) -> Episode:
    """An imagined rollout with what truly came of its actions as its outcome: of the same rollout
    carried out (it has the same key), or of the recording that a replay is named after."""
    episode = imagined.episode(index)
    table = source.metadata()
    rows = table.index[table["key"] == episode.key]
    if not len(rows):
        rows = table.index[origins(table) == episode.extra["start_id"]]
    if len(rows) != 1:
        raise DataError(
            f"replay {episode.key!r} begins at {episode.extra['start_id']!r}, of which "
            f"{source.root} has {len(rows)} episodes, expected 1; give the store it was made from"
        )
    truth = source.episode(int(rows[0]))
    length = min(episode.length, truth.length)  # after the recording's end nobody knows
    known = None if truth.success_at is None else truth.success_at[:length]
    distances, limit = distances_of(truth)
    extra = dict(episode.extra)
    if np.isfinite(distances).any():
        extra |= {
            "goal_distance_m": [float(d) if np.isfinite(d) else None for d in distances[:length]],
            "success_distance_m": limit,
        }
    return replace(
        episode,
        extra=extra,
        frames=episode.frames[:length],
        poses=episode.poses[:length],
        actions=episode.actions[: length - 1],
        joints=None if episode.joints is None else episode.joints[:length],
        success_at=known,
        success=None if known is None else bool(known[1:].any()),
    )


def label_replays(imagined: EpisodeStore, source: EpisodeStore, out: str | Path) -> EpisodeStore:
    """Copy replays of own actions into ``out`` with the true outcome of those actions.

    This is what a judge has to be trained and calibrated on, because it will see imagined frames,
    coded as video like any rollout.
    """
    store = EpisodeStore.open_or_create(out, **{**vars(imagined.layout), "images": "video"})
    for index, key in enumerate(imagined.metadata()["key"]):
        if key not in store:
            store.append(with_truth(imagined, source, index))
    store.close()
    return store


def fidelity(
    source: EpisodeStore,
    imagined: dict[str, EpisodeStore],
    views: Sequence[str],
    frames_per_chunk: int,
    with_ssim: bool = True,
) -> ReplayReport:
    """Compare imagined replays (variant -> store) with what was recorded."""
    report = ReplayReport(views=views, frames_per_chunk=frames_per_chunk, with_ssim=with_ssim)
    held = {name: store.keys for name, store in imagined.items()}
    table = source.metadata()
    for index, row in table.assign(start_id=origins(table)).iterrows():
        keys = {name: rollout_key(name, str(row["start_id"])) for name in imagined}
        if any(key not in held[name] for name, key in keys.items()):
            continue
        truth = source.frames(int(index))
        frames_of = {name: imagined[name].by_key(key).frames for name, key in keys.items()}
        length = min(len(truth), *(len(d) for d in frames_of.values()))
        report.add(
            str(row["key"]),
            start=truth[0],
            truth=truth[1:length],
            imagined={name: d[1:length] for name, d in frames_of.items()},
            task=str(row["task"]),
        )
    return report
