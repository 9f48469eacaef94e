"""Motions read back from frames, of recordings and of rollouts imagined for a probe.

In: an ``Imagination``, a store of recorded episodes, an inverse dynamics network. Out:
``probe.Motion``s, and a ``MotionProbe`` for recorded, another episode's and random actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import to_model
from worldeval.errors import DataError
from worldeval.imagination.env import Imagination
from worldeval.imagination.probe import Motion, MotionProbe, probe_motion
from worldeval.imagination.replay import imagine_replays, origins, suite_of
from worldeval.imagination.trust.inverse_dynamics import InverseDynamics
from worldeval.imagination.trust.signals import check_layout
from worldeval.motion.adapters import Adapter
from worldeval.policies.scripted import RandomPolicy
from worldeval.robots import ABSOLUTE_MOTIONS
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.types import Episode

KINDS = {"own": "recorded", "shuffled": "another episode's"}


def read_motion(network: InverseDynamics, episode: Episode) -> Motion:
    """Commanded and read changes of an episode's poses, in units of the network's spread."""
    config = network.config
    order = [episode.views.index(view) for view in config.views]
    after = np.arange(1, len(episode.frames))
    before = np.maximum(after - config.most_frames, 0)
    video = torch.from_numpy(to_model(episode.frames[:, order]))
    read = network.read(video, before, after).numpy()[:, -1, 1]
    commanded = network.targets(episode.poses[before], episode.poses[after])[:, 1]
    return Motion(commanded=commanded, read=read, chunk=(after - 1) // config.most_frames)


def motion_of(network: InverseDynamics, episodes: Iterable[Episode]) -> Motion:
    """Of all episodes of two frames or more; DataError if there is none."""
    parts = [read_motion(network, e) for e in episodes if len(e.frames) > 1]
    if not parts:
        raise DataError("no episode has two frames or more; there is no motion to read")
    return Motion.joined(parts)


def probe_world(
    world: Imagination,
    network: InverseDynamics,
    source: EpisodeStore,
    out: Path,
    *,
    episodes: int,
    chunks: int,
    batch: int = 8,
    adapter: Adapter | None = None,
) -> list[MotionProbe]:
    """Imagine from ``episodes`` starts of ``source`` and measure; resumable, rollouts in ``out``.

    Random actions are left out for a robot that is told where to be. Raises MismatchError for a
    network of another robot or other views.
    """
    check_layout(network.config, source.layout, str(source.root))
    suite = suite_of(source, chunks=chunks, name="probe", limit=episodes)
    table = source.metadata()
    begun = origins(table).astype(str)
    picked = [int(row) for s in suite.starts for row in table.index[begun == s.start_id]]
    true = motion_of(network, (source.episode(row) for row in picked))
    stores = {
        kind: imagine_replays(
            world,
            source,
            out / variant,
            variant=variant,
            chunks=chunks,
            batch=batch,
            limit=episodes,
            adapter=adapter,
        )
        for variant, kind in KINDS.items()
    }
    if world.robot.control_mode not in ABSOLUTE_MOTIONS:
        stores["random"] = store = open_rollouts(out / "random", world.robot, images="lossless")
        policy = RandomPolicy(world.robot)
        run(world, policy, suite, store, batch=batch, seed=0, adapter=adapter)
        store.close()
    names = network.config.pose_names
    return [
        probe_motion(kind, motion_of(network, (s.episode(i) for i in range(len(s)))), true, names)
        for kind, s in stores.items()
    ]
