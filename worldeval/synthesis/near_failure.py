"""Starts near failure: where a failed rollout stopped making progress.

Enters: judged rollouts, a judge of progress. Leaves: recipes that follow a failed rollout up to
the frame at which its progress went flat, and let the policy try again from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.rollout.suite import Suite
from worldeval.synthesis.imagining import RECIPE
from worldeval.synthesis.planning import generator, samples_of
from worldeval.synthesis.recipe import Recipe, from_text
from worldeval.synthesis.variety import Variety
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.judging.progress import ProgressJudge

LEAST_GAIN = 0.05
"""Progress that is still to come, below which it is flat."""


def plan_near_failures(
    suite: Suite,
    variety: Variety,
    store: EpisodeStore,
    verdicts: pd.DataFrame,
    judge: ProgressJudge,
    poses: Mapping[str, np.ndarray],
    frames_at_once: int,
) -> tuple[Recipe, ...]:
    """Recipes of the varied starts near failure, for start states of which a rollout failed.

    poses: start_id -> pose (P,) at which its recording begins.

    Start states at which nothing failed, or nothing ever moved towards success, get none.
    """
    failed = verdicts[verdicts["outcome"] == Outcome.FAILURE.value]["key"].tolist()
    by_base: dict[str, list[str]] = {}
    for key in sorted(failed):
        by_base.setdefault(str(store.facts(store.index_of(key))["base_start"]), []).append(key)
    found: list[Recipe] = []
    for start in suite.starts:
        keys = by_base.get(start.start_id, [])
        if not keys or not variety.near_failures:
            continue
        order = generator(suite.seed, f"{start.start_id}/near-failure", 0).permutation(len(keys))
        made = 0
        for number in order:
            if made == variety.near_failures:
                break
            episode = store.by_key(keys[number])
            flat = flat_at(judge.progress(episode), frames_at_once)
            if not flat:
                continue
            (recipe,) = from_text(str(episode.extra[RECIPE]), episode.key)
            before = recipe.approach(poses[start.start_id])
            path = np.concatenate([before, episode.poses[1 : flat + 1]])
            varied = {
                "path": tuple(tuple(float(value) for value in pose) for pose in path),
                "path_of": f"{episode.key}@{flat}",
            }
            found += samples_of(start, f"f{made}", variety, suite.seed, varied)
            made += 1
    return tuple(found)


def flat_at(progress: np.ndarray, multiple: int) -> int:
    """The frame after which ``progress`` (T+1,) gains less than ``LEAST_GAIN``, rounded down to a
    multiple of ``multiple`` frames; 0 where it never gained anything, or went on to the end."""
    best = np.maximum.accumulate(progress)
    to_come = best[-1] - best
    flat = int(np.argmax(to_come < LEAST_GAIN))
    if flat >= len(progress) - multiple:
        return 0
    return flat // multiple * multiple
