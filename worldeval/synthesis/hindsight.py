"""A failed rollout that achieved another known task of its scene, taken for that task.

Enters: judged rollouts and the judge. Leaves: key -> the task that it achieved. Off by default: a
judge that errs here adds wrong examples. A task counts if the judge says so of the whole rollout
and did not say so of its first frames, for drawers that were open all along teach nothing; and if
it is the only one.
"""

from __future__ import annotations

from dataclasses import replace

from worldeval.data.store.episodes import EpisodeStore
from worldeval.synthesis.dataset import Relabelled
from worldeval.synthesis.selecting import Funnel
from worldeval.synthesis.tables import ASKED, KEY, OUTCOME
from worldeval.types import Episode, Judge, Outcome

LEAST = 0.9
"""Probability that the judge must give."""
OPENING = 3
"""Frames that show how it began."""


def hindsight(
    store: EpisodeStore, funnel: Funnel, judge: Judge
) -> tuple[dict[str, Relabelled], list[str]]:
    """What failed rollouts achieved instead, and a sentence with the count per task.

    Tasks are those of the same scene (``start_seed``) in the store; the words are those in which
    the suite asks for them there.
    """
    table = store.metadata()
    asked: dict[int, dict[str, str]] = {}
    for row in table.to_dict("records"):
        words = row.get(ASKED) or row["instruction"]
        asked.setdefault(row["start_seed"], {})[row["task"]] = str(words)
    failures = funnel.rollouts[funnel.rollouts[OUTCOME] == Outcome.FAILURE.value]
    found: dict[str, Relabelled] = {}
    tried = 0
    for row in failures.to_dict("records"):
        others = {t: w for t, w in asked[row["start_seed"]].items() if t != row["task"]}
        if not others:
            continue
        tried += 1
        episode = store.by_key(row[KEY])
        achieved = [
            r for task, words in others.items() if (r := _achieved(episode, task, words, judge))
        ]
        if len(achieved) == 1:
            found[row[KEY]] = achieved[0]
    counts: dict[str, int] = {}
    for other in found.values():
        counts[other.task] = counts.get(other.task, 0) + 1
    said = ", ".join(f"{count} as {task}" for task, count in sorted(counts.items()))
    return found, [
        f"Hindsight: of {tried} failed rollouts with another task in their scene {len(found)} were "
        f"relabelled{f' ({said})' if said else ''}."
    ]


def _achieved(episode: Episode, task: str, words: str, judge: Judge) -> Relabelled | None:
    asked = replace(episode, task=task, instruction=words)
    opening = replace(
        asked,
        frames=episode.frames[:OPENING],
        poses=episode.poses[:OPENING],
        actions=episode.actions[: OPENING - 1],
        joints=None if episode.joints is None else episode.joints[:OPENING],
    )
    after, before = judge.judge([asked, opening])
    probability = 1.0 if after.probability is None else after.probability
    sure = after.outcome == Outcome.SUCCESS and probability >= LEAST
    if not sure or before.outcome != Outcome.FAILURE:
        return None
    return Relabelled(task=task, instruction=words, probability=probability)
