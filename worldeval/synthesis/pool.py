"""The folder of imagined rollouts from which a dataset is selected.

Enters: options, a policy, variety. Leaves: ``imagined``, a folder as `worldeval rollout` writes it,
filled with what the recipes say; or the one that an earlier synthesis filled.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.data.origin import SYNTHETIC
from worldeval.data.provenance import jsonable, write_manifest
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError
from worldeval.evaluation.evaluation import Evaluation
from worldeval.judging.beside import judging_beside
from worldeval.synthesis.asking import check_tasks
from worldeval.synthesis.imagining import MADE_BY, Imagining
from worldeval.synthesis.making import Making, in_full
from worldeval.synthesis.near_failure import plan_near_failures
from worldeval.synthesis.planning import plan
from worldeval.synthesis.wordings import words_by

if TYPE_CHECKING:
    from worldeval.evaluation.stage import StageOptions
    from worldeval.judging.progress import ProgressJudge
    from worldeval.synthesis.synthesize import Clock
    from worldeval.synthesis.variety import Variety
    from worldeval.types import Judge

MOST_REACHED = 5000
HELD_OUT = "evaluation"
"""Split whose start states policies are evaluated on."""


def fill_pool(
    options: StageOptions,
    policy: str,
    folder: Path,
    variety: Variety,
    judge_uri: str,
    judge: Judge,
    progress: ProgressJudge | None,
    *,
    seed: int | None,
    clock: Clock,
    verb: Any,
) -> list[str]:
    """Imagine into ``folder`` what it lacks; sentences for the user.

    Raises what does not fit together before anything is imagined.
    """
    notes: list[str] = []
    with options.open(folder, [policy], verb) as stage:
        suite = stage.suite if seed is None else replace(stage.suite, seed=seed)
        notes += check_tasks(judge_uri, suite.tasks)
        if any(start.split == HELD_OUT for start in suite.starts):
            notes.append(
                "Start states of the split 'evaluation' are used: a policy that learns from this "
                "dataset has seen what it would be evaluated on. Give --starts of a "
                "training recording."
            )
        imagination = in_full(options.imagination)
        assert imagination.starts is not None
        poses, reached = start_poses(EpisodeStore.open(imagination.starts))
        world = stage.world
        words = words_by(variety.wording, suite, folder.parent / "wordings.json")
        recipes = plan(
            suite, variety, world.robot, poses, words,
            reached=reached, frames_at_once=getattr(world, "frames_per_step", None) or 1,
        )  # fmt: skip
        making = Making.of(
            policy, options.imagination, suite, threads=options.threads, but=folder.parent
        )
        imagining = Imagining(
            world=world,
            policy=stage.policies[0],
            adapter=stage.adapter,
            making=making,
            robot_name=world.robot.name,
        )
        write_manifest(
            folder.parent,
            command="synthesize",
            config={"variety": variety, "batch": options.batch, "making": jsonable(making)},
            seed=suite.seed,
            extra={"options": verb},
        )
        clock.add("opening", clock.wall_s)
        with judging_beside(judge, folder):
            imagining.into(folder, recipes, options.batch, extra={"pool": SYNTHETIC})
        if variety.near_failures and progress is not None:
            run = Evaluation.open(folder)
            with clock.part("judging"):
                run.judge(judge)
            more = plan_near_failures(
                suite, variety, EpisodeStore.open(folder), run.verdicts, progress, poses,
                getattr(world, "frames_per_step", None) or 1,
            )  # fmt: skip
            if more:
                with judging_beside(judge, folder):
                    imagining.into(folder, more, options.batch, extra={"pool": SYNTHETIC})
            else:
                notes.append("Nothing begins near failure: no rollout failed after some progress.")
    for name, seconds in imagining.seconds.items():
        clock.add(name, seconds)
    clock.frames += imagining.frames
    return notes


def pool_of(pool: Path) -> Path:
    """The folder of imagined rollouts of an earlier synthesis. DataError if it is none."""
    folder = pool / "imagined" if (pool / "imagined").is_dir() else pool
    store = EpisodeStore.open(folder)
    if not len(store) or MADE_BY not in store.metadata().columns:
        raise DataError(
            f"{pool} holds no rollouts of `worldeval synthesize` to select from: they do not say "
            "how they were made; give the --out of an earlier synthesis"
        )
    return folder


def start_poses(store: EpisodeStore) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """start_id (and key) -> pose (P,) of the first frame; and poses (N, P) that the arm was seen
    at, None where episodes are single frames."""
    table = store.metadata()
    poses: dict[str, np.ndarray] = {}
    seen: list[np.ndarray] = []
    for i, key in enumerate(table["key"]):
        path = store.trajectory(i).poses
        poses[str(key)] = path[0]
        if "start_id" in table.columns:
            poses[str(table["start_id"].iloc[i])] = path[0]
        if len(path) > 1:
            seen.append(path)
    if not seen:
        return poses, None
    reached = np.concatenate(seen)
    return poses, reached[:: max(1, len(reached) // MOST_REACHED)].astype(float)
