"""The selected rollouts as a dataset: a store of its own, marked as synthetic, whole or not there.

Enters: a store of imagined rollouts, the funnel, who judged. Leaves: ``dataset``, which appears by
renaming when its last episode is written. Films are copied as they are: what is trained on is what
was judged, to the last bit. What a rerun would not repeat (seconds) is left out, so that the same
selection of the same rollouts gives the same dataset.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.data import digests
from worldeval.data.atomic import sync_folder
from worldeval.data.origin import SYNTHETIC
from worldeval.data.store import statistics
from worldeval.data.store.coding import CodedViews
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import DECIDED
from worldeval.errors import ConfigError, StoreError
from worldeval.synthesis.selecting import Funnel
from worldeval.synthesis.tables import INSTRUCTION, KEY, OUTCOME, PROBABILITY
from worldeval.types import Episode, Outcome

if TYPE_CHECKING:
    import pandas as pd

LEFT_OUT = ("chunks",)
"""Facts of a rollout that hold seconds."""
SELECTION = "selection"
TOLD = "told"
"""Fact of an episode: what the policy was told, whatever words it is learned under."""


@dataclass(frozen=True, kw_only=True)
class Relabelled:
    """What a rollout achieved instead of what it was for."""

    task: str
    instruction: str
    probability: float


def write_dataset(
    out: Path,
    imagined: EpisodeStore,
    funnel: Funnel,
    *,
    facts: Mapping[str, Any],
    relabelled: Mapping[str, Relabelled] | None = None,
) -> EpisodeStore:
    """Write the rollouts that the funnel kept to ``out``, and those that were relabelled.

    facts: about the whole dataset (rules, judge, world model). A dataset that is there already is
    returned if it was made of the same rollouts by the same selection; ConfigError if not.
    """
    other = relabelled or {}
    names = [*funnel.kept, *(key for key in other if key not in set(funnel.kept))]
    made = digests.of_episodes(imagined)
    selection = digests.of_json(
        [facts, [[key, made[key], _words(other.get(key))] for key in names]]
    )
    if (out / "meta").exists():
        store = EpisodeStore.open(out)
        if store.extra.get(SELECTION) == selection:
            return store
        raise ConfigError(
            f"{out} holds a dataset of {len(store)} episodes of another selection or of other "
            "rollouts; choose another --out (with --pool nothing is imagined again), or delete it"
        )
    partial = out.with_name(f".{out.name}.tmp")
    rows = funnel.rollouts.set_index(KEY)
    extra = {"kind": SYNTHETIC, SYNTHETIC: True, SELECTION: selection, **facts}
    if (robot := imagined.extra.get("robot")) is not None:
        extra["robot"] = robot
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        with EpisodeStore.create(partial, **vars(imagined.layout), extra=extra) as store:
            for key in names:
                row, judge = rows.loc[key], str(facts.get("judge", ""))
                _append(store, imagined, key, row, funnel.scores_of(key), other.get(key), judge)
        os.replace(partial, out)
        sync_folder(out.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StoreError(
            f"the dataset {out} cannot be written ({error.strerror or error}); free some space or "
            "choose another --out, and run the same command again: nothing is imagined again"
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return EpisodeStore.open(out)


def _append(
    store: EpisodeStore,
    imagined: EpisodeStore,
    key: str,
    row: pd.Series,
    scores: Mapping[str, float],
    relabelled: Relabelled | None,
    judge: str,
) -> None:
    number = imagined.index_of(key)
    episode = imagined.episode(number)
    if relabelled is None:
        outcome, probability = row.get(OUTCOME), row.get(PROBABILITY)
    else:
        outcome, probability = Outcome.SUCCESS.value, relabelled.probability
    known = outcome in DECIDED
    extra = {name: value for name, value in episode.extra.items() if name not in LEFT_OUT}
    extra |= {
        "kind": SYNTHETIC,
        "judge": str(row.get("judge") or judge),
        "outcome": str(outcome) if known else Outcome.UNDECIDED.value,
        "probability": None if probability is None or probability != probability else
        round(float(probability), 6),
        "selected_by": json.dumps(scores),
        "relabelled_from": "" if relabelled is None else episode.task,
        TOLD: episode.instruction,
    }  # fmt: skip
    named = replace(episode, instruction=str(row[INSTRUCTION]))
    if relabelled is not None:
        named = replace(
            episode,
            key=f"{key}+{relabelled.task}",
            task=relabelled.task,
            instruction=relabelled.instruction,
        )
    kept = replace(named, success=outcome == Outcome.SUCCESS.value if known else None, extra=extra)
    store.append(kept, _copied(imagined, number, kept, store.root))


def _copied(imagined: EpisodeStore, number: int, episode: Episode, root: Path) -> CodedViews | None:
    """Copies of the rollout's films, for the dataset to take over; None where it has none alone."""
    films = imagined.own_films(number)
    if films is None:
        return None
    copies = tuple(root / f".{view}.mp4" for view in range(len(films)))
    for film, copy in zip(films, copies, strict=True):
        shutil.copyfile(film, copy)
    return CodedViews(
        files=copies,
        statistics=tuple(
            statistics.of_frames(episode.frames[:, view]) for view in range(len(films))
        ),
    )


def _words(relabelled: Relabelled | None) -> list[Any] | None:
    if relabelled is None:
        return None
    return [relabelled.task, relabelled.instruction, relabelled.probability]
