"""Imagined actions carried out in a world that knows what comes of them.

In: a store of imagined rollouts and a world with a measure of success (a simulator). Out: the same
actions carried out from the same start states, and the imagined rollouts with what truly came of
them. A judge of imagined rollouts is measured and trained on these: in a recording that is imagined
again the motion is somebody else's, here it is what a policy does when it sees imagined frames.
"""

from __future__ import annotations

from pathlib import Path

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError
from worldeval.imagination.replay import label_replays
from worldeval.motion.adapters import Adapter
from worldeval.policies.replay import ReplayPolicy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts, starts_of
from worldeval.rollout.suite import Suite
from worldeval.types import World

NEEDED = ("policy", "start_id", "start_seed", "task", "split", "instruction")


def carry_out(
    imagined: EpisodeStore,
    world: World,
    out: str | Path,
    *,
    batch: int = 8,
    adapter: Adapter | None = None,
    progress: bool = True,
) -> EpisodeStore:
    """Carry out the actions of all rollouts of ``imagined`` in ``world``; resumable.

    Writes OUT/carried, what came of them, and OUT/labelled, the imagined rollouts with that as
    their outcome, which is returned. Raises DataError for a store that holds no rollouts,
    MismatchError for another robot's.
    """
    table = imagined.metadata()
    missing = [name for name in NEEDED if name not in table.columns]
    if missing or not len(table):
        raise DataError(
            f"{imagined.root} holds {len(table)} episodes without {missing or 'any'}, expected "
            "rollouts; give a folder that `worldeval rollout` wrote"
        )
    per_chunk = world.robot.frames_per_chunk
    with open_rollouts(Path(out) / "carried", world.robot) as carried:
        for name, rows in table.groupby("policy", sort=False):
            frames = int(rows["length"].max()) - 1
            suite = Suite(
                name=f"{name} of {imagined.root.name}",
                robot=imagined.layout.robot_type,
                chunks=-(-frames // per_chunk),
                starts=starts_of(rows),
            )
            policy = ReplayPolicy(imagined, world.robot, policy=str(name), name=str(name))
            run(
                world,
                policy,
                suite,
                carried,
                batch=batch,
                seed=0,
                progress=progress,
                adapter=adapter,
            )
    return label_replays(imagined, carried, Path(out) / "labelled")
