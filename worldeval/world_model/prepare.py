"""From raw robot recordings to a store of episodes with cached latents.

Enters: a folder in a layout of ``data/readers/ctrl_world.py`` or ``data/readers/droid.py``.
Leaves, in one folder: an ``EpisodeStore`` (frames at 5 Hz, absolute poses, joints),
``latents/<digest>`` (``LatentCache``), ``statistics.json`` (1st and 99th percentiles of the poses)
and, where episodes could not be used, ``skipped.json`` with the reason of each.

Workers decode, resize and encode; one process writes, in the order of the dataset, so the result
does not depend on the number of workers nor on how often it was killed: what is there is skipped.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from worldeval.data import origin
from worldeval.data.atomic import write_atomically
from worldeval.data.bounds import outside_bounds
from worldeval.data.fit import robot_extra, store_fields
from worldeval.data.pose_statistics import STATISTICS, clipped, measure
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.workers import in_order
from worldeval.errors import DataError, MismatchError, StoreError
from worldeval.robots import RobotSpec
from worldeval.world_model.latents import LatentCache
from worldeval.world_model.prepare_episode import (
    CODED,
    Job,
    PrepareConfig,
    Prepared,
    begin,
    bounds_of,
    open_dataset,
    robot_of,
    work,
)

__all__ = ["PrepareConfig", "PrepareReport", "Skipped", "open_dataset", "prepare"]

SKIPPED = "skipped.json"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An episode that could not be used, and why (the reason names the file)."""

    id: str
    reason: str


@dataclass(kw_only=True)
class PrepareReport:
    """What a call of ``prepare`` did."""

    written: int = 0
    present: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def prepare(config: PrepareConfig, out: str | Path, *, progress: bool = True) -> PrepareReport:
    """Bring into ``out`` what is lacking there of the dataset, and report.

    Episodes that cannot be used are named in the report, the others go on. Ctrl-C or a kill loses
    the episodes under way; calling again continues. Raises DataError if there is nothing at all.
    """
    out = Path(out)
    dataset, robot, digest = open_dataset(config), robot_of(config), config.digest
    synthetic = origin.marked_folder(config.source)
    store = open_store(robot, out, synthetic=synthetic)
    cache = None if digest is None else _open_cache(config, out, digest)
    ids = dataset.ids[: config.limit]
    todo = []
    for identity in ids:
        key = f"{config.split}/{identity}"
        job = Job(id=identity, frames=key not in store, latents=_lacks(cache, key))
        if job.frames or job.latents:
            todo.append(job)
    report = PrepareReport(present=len(ids) - len(todo), warnings=list(dataset.notes))
    if synthetic:
        report.warnings.append(f"{config.source} is synthetic: imagined, not recorded")
    taken: Counter[str] = Counter()
    changed = False
    bar = tqdm(total=len(todo), desc=f"prepare {config.split}", disable=not progress, unit="ep")
    results = in_order(
        work, todo, min(config.workers, max(1, len(todo))), begin=begin, arguments=(config, out)
    )
    try:
        with closing(results), bar:  # closed, no worker is left that could write
            for result in results:
                problem = result.problem
                if problem is None:
                    if not changed:  # what it says is no longer so
                        (out / STATISTICS).unlink(missing_ok=True)
                        changed = True
                    problem = _append(store, result)
                if problem is None:
                    report.written += 1
                    taken.update(result.notes)
                else:
                    report.skipped.append(Skipped(id=result.id, reason=problem))
                bar.set_postfix(skipped=len(report.skipped), refresh=False)
                bar.update()
    finally:
        store.close()
        shutil.rmtree(out / CODED, ignore_errors=True)
    _note_skipped(out, report.skipped)
    if not len(store):
        first = report.skipped[0].reason if report.skipped else "the split is empty"
        raise DataError(f"no episode of {config.source} could be prepared; the first: {first}")
    if changed or not (out / STATISTICS).exists():
        if cache is not None:
            cache.write_index(sorted(store.keys))
        store.compact()
        measure(store, bounds_of(dataset, robot))
    report.warnings += [f"{count} episodes: {note}" for note, count in taken.items()]
    report.warnings += [*clipped(store), *outside_bounds(store, robot)]
    return report


def open_store(robot: RobotSpec, out: Path, *, synthetic: bool = False) -> EpisodeStore:
    """The store at ``out``. Raises MismatchError if one of another layout is there.

    synthetic: whether its source is marked as imagined, which stays.
    """
    extra = robot_extra(robot) | ({origin.SYNTHETIC: True} if synthetic else {})
    return EpisodeStore.open_or_create(out, **store_fields(robot), images="video", extra=extra)


def _open_cache(config: PrepareConfig, out: Path, digest: str) -> LatentCache:
    """Latents of one maker only: two autoencoders may share a name, but not a space."""
    cache = LatentCache(out, digest)
    space = cache.space()
    if space is not None and space["source"] != config.latent_source:
        raise MismatchError(
            f"{cache.root} holds latents of source {space['source']!r}, these would be of "
            f"{config.latent_source!r}; choose another folder, or delete that one"
        )
    return cache


def _append(store: EpisodeStore, result: Prepared) -> str | None:
    """Put an episode into the store; why it does not fit there, if so."""
    if result.episode is None or result.coded is None:
        return None
    shape = (len(result.episode.poses), *result.episode.frames.shape[1:])
    frames = np.broadcast_to(np.uint8(0), shape)  # a shape without memory behind it
    try:
        store.append(replace(result.episode, frames=frames), result.coded)
    except StoreError:  # the disk is full, or the store damaged
        raise
    except DataError as error:
        return " ".join(str(error).split())
    return None


def _lacks(cache: LatentCache | None, key: str) -> bool:
    return cache is not None and key not in cache


def _note_skipped(out: Path, skipped: list[Skipped]) -> None:
    path = out / SKIPPED
    if not skipped:
        with suppress(FileNotFoundError):
            path.unlink()
        return
    text = json.dumps([{"id": s.id, "reason": s.reason} for s in skipped], indent=1) + "\n"
    write_atomically(path, partial(_write_text, text))


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
