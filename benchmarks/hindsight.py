"""Is a rollout that takes another task by hindsight truly a success of that task?

    python benchmarks/hindsight.py RUN

RUN: a store of imagined Meta-World rollouts, judged. What the judge relabels is carried out in true
physics: the imagined actions, from the same scene, with the flag of the task that they were
relabelled to. Prints how many truly achieve it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from worldeval import EpisodeStore, MetaWorld, StartState, load_judge, shipped
from worldeval.evaluation.folder import judge_folder
from worldeval.motion.adapters import adapter_for, command
from worldeval.synthesis.hindsight import hindsight
from worldeval.synthesis.selecting import Funnel
from worldeval.types import Episode


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("--most", type=int, default=60, help="relabelled rollouts to carry out")
    given = options.parse_args()
    store, judge = EpisodeStore.open(given.run), load_judge(shipped.path(shipped.JUDGE))
    verdicts = judge_folder(judge, given.run)
    rollouts = (
        store.metadata()
        .drop(columns=["outcome"])
        .merge(verdicts[["key", "outcome", "probability"]], on="key")
    )
    found, said = hindsight(store, Funnel(rollouts=rollouts, stages=()), judge)
    print(said[0])
    world = MetaWorld()
    right: dict[str, list[bool]] = {}
    for key, other in list(found.items())[:: max(1, len(found) // given.most)]:
        solved = carried_out(world, store.by_key(key), other.task, other.instruction)
        right.setdefault(other.task, []).append(solved)
    for task, flags in sorted(right.items()):
        print(f"{task}: {sum(flags)} of {len(flags)} truly achieved it")
    flags = [flag for some in right.values() for flag in some]
    print(f"all: {sum(flags)} of {len(flags)} ({100 * np.mean(flags):.0f} %)")


def carried_out(world: MetaWorld, episode: Episode, task: str, words: str) -> bool:
    """Whether the actions of ``episode`` achieve ``task`` in true physics from its scene."""
    seed = int(episode.extra["start_seed"])
    start = StartState(
        start_id="hindsight", task=task, seed=seed, split="evaluation", instruction=words
    )
    seen, adapter = world.reset([start], [0]), adapter_for(world.robot)
    steps = episode.actions.reshape(1, -1, episode.actions.shape[-1])
    size, solved = world.robot.chunk_steps, False
    for first in range(0, steps.shape[1] - size + 1, size):
        chunk = command(adapter, seen.poses, seen.joints, steps[:, first : first + size])
        seen = world.step(chunk, [0])
        assert seen.success is not None
        solved |= bool(seen.success.any())
    return solved


if __name__ == "__main__":
    main()
