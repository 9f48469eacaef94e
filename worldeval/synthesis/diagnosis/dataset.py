"""A store looked at as training data: per task and view, and source by source.

Enters: a store of any origin. Leaves: a ``Diagnosis``: tables of effective numbers, of how well
the task can be guessed without the instruction, and findings as sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from worldeval.data import origin
from worldeval.data.provenance import jsonable
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError
from worldeval.synthesis.diagnosis.diversity import (
    effective_number,
    effective_words,
    guessed,
    shared_spread,
    spread,
)
from worldeval.synthesis.measuring import paths_of
from worldeval.synthesis.rules.distinct import at_moments

if TYPE_CHECKING:
    import pandas as pd

START_SCALE, PATH_SCALE, LOOK_SCALE = 0.05, 0.05, 0.05
"""Two start poses, paths (in shares of the robot's range) or pictures (in shares of full
brightness) so far apart count as fairly different: their similarity is exp(-1/2)."""
SOURCES = ("source", "policy", "kind", "world", "scene", "building", "operator", "split")
"""Columns that may say where an episode comes from; all that have several values are looked at."""
MOST_SOURCES = 40
THUMB = 12
"""Pixels along each side of the picture that stands for a view's appearance."""
FEW = 2.0
"""Effective numbers below are told as a finding."""
TELLS = 0.3
"""A guess that is right so much more often than chance is told."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """tasks: task -> episodes, and effective numbers of start poses, paths, instructions and, per
    view, first pictures. guesses: what tells the task (or the source) without the instruction: how
    often the nearest episode is of the same, and by chance. sources: column -> share of variance
    between its values. findings: sentences."""

    name: str
    episodes: int
    tasks: pd.DataFrame
    guesses: pd.DataFrame
    sources: pd.DataFrame
    findings: tuple[str, ...]
    views: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.name,
            "episodes": self.episodes,
            "findings": list(self.findings),
            **{
                name: jsonable(getattr(self, name).to_dict(orient="index"))
                for name in ("tasks", "guesses", "sources")
            },
            **jsonable(self.extra),
        }


@dataclass(frozen=True, kw_only=True)
class Features:
    """Of N episodes: starts (N, P) and paths (N, M, P) in shares of the range, looks: view ->
    (N, D) small first pictures in shares of full brightness; keys, tasks, instructions."""

    starts: np.ndarray
    paths: np.ndarray
    looks: dict[str, np.ndarray]
    keys: list[str]
    tasks: list[str]
    instructions: list[str]


def diagnose_store(store: EpisodeStore, seen: Features) -> Diagnosis:
    """How diverse and how fragmented ``store`` is, by its features ``seen``."""
    import pandas as pd

    table = store.metadata()
    tasks = {}
    for task in dict.fromkeys(seen.tasks):
        tasks[task] = _row(seen, np.flatnonzero(np.asarray(seen.tasks) == task))
    if len(tasks) > 1:
        tasks["all"] = _row(seen, np.arange(len(seen.tasks)))
    guesses = {}
    ways: list[tuple[str, np.ndarray]] = [("start pose", seen.starts)]
    ways += [(f"first picture, {view}", look) for view, look in seen.looks.items()]
    for what, values in ways:
        right, chance = guessed(values, seen.tasks)
        guesses[f"task from the {what}"] = {"guessed": right, "chance": chance}
    sources = {}
    for column in SOURCES:
        names = _names(table, column)
        if not 1 < len(set(names)) <= MOST_SOURCES:
            continue
        look = np.concatenate([look for look in seen.looks.values()], axis=1)
        right, chance = guessed(look, names)
        sources[column] = {
            "values": len(set(names)),
            "effective": effective_words(names),
            "between, start": shared_spread(seen.starts, names),
            "between, paths": shared_spread(seen.paths, names),
            "between, pictures": shared_spread(look, names),
            "guessed from the picture": right,
            "chance": chance,
        }
    made = Diagnosis(
        name=str(store.root),
        episodes=len(store),
        tasks=pd.DataFrame.from_dict(tasks, orient="index"),
        guesses=pd.DataFrame.from_dict(guesses, orient="index", columns=["guessed", "chance"]),
        sources=pd.DataFrame.from_dict(sources, orient="index"),
        findings=(),
        views=store.layout.views,
    )
    return _with_findings(made, store)


def features_of(store: EpisodeStore, *, progress: bool = True) -> Features:
    """What the numbers are made of; one frame per episode and view is read. DataError for an empty
    store."""
    import cv2

    if not len(store):
        raise DataError(f"{store.root} holds no episodes, so there is nothing to diagnose")
    table = store.metadata()
    paths = paths_of(store)
    looks: dict[str, list[np.ndarray]] = {view: [] for view in store.layout.views}
    for i in tqdm(
        range(len(store)), desc="first pictures", unit="episode", disable=None if progress else True
    ):
        first = store.frames(i, times=[0])[0]
        for view, image in zip(store.layout.views, first, strict=True):
            small = cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
            looks[view].append(small.astype(np.float32).ravel() / 255)
    keys = [str(key) for key in table["key"]]
    return Features(
        starts=np.stack([paths[key][0] for key in keys]),
        paths=np.stack([at_moments(paths[key]) for key in keys]),
        looks={view: np.stack(some) for view, some in looks.items()},
        keys=keys,
        tasks=[str(task) for task in table["task"]],
        instructions=[str(text) for text in table["instruction"]],
    )


def _row(seen: Features, chosen: np.ndarray) -> dict[str, float]:
    texts = [seen.instructions[i] for i in chosen]
    return {
        "episodes": len(chosen),
        "start poses": effective_number(seen.starts[chosen], START_SCALE),
        "paths": effective_number(seen.paths[chosen].reshape(len(chosen), -1), PATH_SCALE),
        "instructions": effective_words(texts),
        **{view: effective_number(look[chosen], LOOK_SCALE) for view, look in seen.looks.items()},
    }


def _names(table: pd.DataFrame, column: str) -> list[str]:
    return [str(value) for value in table[column]] if column in table.columns else []


def _with_findings(made: Diagnosis, store: EpisodeStore) -> Diagnosis:
    said = []
    if about := origin.sentence(store):
        said.append(f"{about[0].upper()}{about[1:]}.")
    tasks = made.tasks.drop(index="all", errors="ignore")
    for column, what in (
        ("start poses", "start poses of the arm"),
        ("paths", "paths"),
        ("instructions", "instructions"),
        *((view, f"first pictures in view {view}") for view in made.views),
    ):
        many = tasks[tasks["episodes"] > 1]
        few = [str(task) for task in many.index[many[column] < FEW]]
        if few:
            said.append(
                f"Hardly any variety of {what} in {_listed(few)}: as if there were "
                f"{many[column].min():.1f} to {FEW:.0f} different ones."
            )
    for what, row in made.guesses.iterrows():
        if row["guessed"] > row["chance"] + TELLS:
            said.append(
                f"The {what} is right in {100 * row['guessed']:.0f} % (by chance "
                f"{100 * row['chance']:.0f} %): a policy can do without the instruction."
            )
    for column, row in made.sources.iterrows():
        if row["guessed from the picture"] > row["chance"] + TELLS:
            said.append(
                f"The {column} of an episode can be told from its first picture in "
                f"{100 * row['guessed from the picture']:.0f} % (by chance "
                f"{100 * row['chance']:.0f} %): the sources hang together little."
            )
    return replace(made, findings=tuple(said))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more tasks"


def typical(seen: Features, task: str, count: int) -> list[int]:
    """Episodes of ``task`` to show: evenly spread from the first along the main axis of variance of
    their first pictures, so that the pictures show how much there is of it."""
    chosen = np.flatnonzero(np.asarray(seen.tasks) == task)
    look = np.concatenate([look[chosen] for look in seen.looks.values()], axis=1)
    away = look - look.mean(0)
    axis = np.linalg.svd(away[spread(len(away))], full_matrices=False)[2][0]
    order = chosen[np.argsort(away @ axis, kind="stable")]
    return [int(order[i]) for i in np.unique(np.linspace(0, len(order) - 1, count).astype(int))]
