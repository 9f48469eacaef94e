"""A store of episodes as a LeRobot dataset, v3.0 or v2.1, at control rate.

Enters: an ``EpisodeStore`` (recorded, imagined or synthesised) and its robot. Leaves: a folder that
LeRobot, openpi (v2.1) and GR00T (v2.1 with ``modality.json``) train on; rows and columns are those
of ``lerobot_rows.py``. It is written beside its place under a hidden name and without
``meta/info.json`` until all else is there, so that nothing unfinished is ever taken for a dataset.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from worldeval.data import digests, origin
from worldeval.data.fit import check_store
from worldeval.data.store import statistics
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.store.index import write_json
from worldeval.data.video import write_mp4
from worldeval.data.writers.lerobot_rows import RowForm, spelling_of
from worldeval.data.writers.modality import modality
from worldeval.errors import ConfigError, DataError, StoreError
from worldeval.robots import RobotSpec, robot_as_json, write_robot
from worldeval.types import Episode

VERSIONS = ("3.0", "2.1")
MODALITIES = ("gr00t",)
INFO = "meta/info.json"
FORMAT = "worldeval-export-1"
"""Of the entry in info.json that LeRobot does not know: what was exported, and whether it was
imagined (``data/origin.py``)."""

_OF_LEROBOT = ("episode_index", "length", "instruction")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What a call of ``export`` wrote. notes: what its user must know, a sentence each."""

    folder: Path
    episodes: int
    rows: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Written:
    """An episode on its way into a dataset. films: files of its views, to be moved or joined."""

    index: int
    first: int
    values: Mapping[str, np.ndarray]
    films: Sequence[Path]
    stats: Mapping[str, Mapping[str, np.ndarray]]
    instruction: str
    facts: Mapping[str, Any]

    @property
    def length(self) -> int:
        return len(self.values["index"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What the index keeps of where it comes from, beside what LeRobot wants."""
        told = ("key", "task", "success")
        rest = {n: v for n, v in self.facts.items() if n not in (*told, *_OF_LEROBOT)}
        return {**{n: self.facts[n] for n in told}, "extra": json.dumps(rest, ensure_ascii=False)}


class Writer(Protocol):
    """One version of the format."""

    def __init__(self, folder: Path, form: RowForm) -> None: ...

    def add(self, episode: Written) -> None:
        """Take the episode's rows and films."""
        ...

    def finish(self, tasks: Sequence[str]) -> dict[str, Any]:
        """Write what is left but info.json; its entries beyond those of all versions."""
        ...


def export(
    store: EpisodeStore,
    out: str | Path,
    robot: RobotSpec,
    *,
    version: str = "3.0",
    keys: str | None = None,
    with_modality: str | None = None,
    episodes: Sequence[int] | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> Exported:
    """Write ``store`` as a dataset into the folder ``out``, which must not be there yet.

    keys: how columns are spelled (``lerobot_rows.spelling_of``). with_modality: "gr00t" adds
    ``meta/modality.json`` and the column of instructions. episodes: which ones; None for all.
    progress: a bar on stderr, or who is told of episodes done and of all.
    Raises ConfigError if ``out`` is taken, StoreError if the disk is full; neither that nor Ctrl-C
    leaves anything.
    """
    from worldeval.data.writers.lerobot_v21 import WriterV21
    from worldeval.data.writers.lerobot_v30 import WriterV30

    if version not in VERSIONS:
        raise ConfigError(f"version is {version!r}, expected one of {', '.join(VERSIONS)}")
    if with_modality not in (None, *MODALITIES):
        raise ConfigError(f"modality is {with_modality!r}, expected {', '.join(MODALITIES)}")
    if with_modality is not None and version != "2.1":
        raise ConfigError(f"GR00T reads version 2.1 of the format, not {version}; give 2.1")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"{out} is there already; an export never changes one, so choose another folder or "
            "delete it"
        )
    check_store(store, robot)
    numbers = list(range(len(store))) if episodes is None else list(episodes)
    if not numbers:
        raise DataError(f"{store.root} holds no episodes to export; a dataset needs at least one")
    facts = [store.facts(i) for i in numbers]
    unknown = [fact["key"] for fact in facts if fact["success"] is None]
    synthetic = origin.marked(store) or any(map(origin.is_imagined, facts))
    form = RowForm(
        robot=robot,
        layout=store.layout,
        spelling=spelling_of(robot, store.layout, keys),
        flags=not unknown,
        annotated=with_modality is not None,
    )
    odd = [side for side in store.layout.image_size if side % 2]
    if odd:
        raise DataError(
            f"{store.root} has frames of {store.layout.image_size} px; H.264 needs even sizes, "
            "record it with even ones"
        )
    staging = out.with_name(f".{out.name}.exporting-{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        writer = (WriterV30 if version == "3.0" else WriterV21)(staging, form)
        tasks = list(dict.fromkeys(str(fact["instruction"]) for fact in facts))
        rows = _write(store, numbers, facts, tasks, form, writer, staging, progress)
        extra = writer.finish(tasks)
        if with_modality is not None:
            write_json(staging / "meta/modality.json", modality(form))
        write_robot(robot, staging / "meta/robot.toml")
        info = _info(form, version, len(numbers), rows, len(tasks), store)
        info["worldeval"]["extra"] = {origin.SYNTHETIC: True} if synthetic else {}
        write_json(staging / INFO, {**info, **extra})
        if out.is_dir():
            out.rmdir()
        os.replace(staging, out)
    except OSError as error:
        raise StoreError(
            f"cannot write {out}: {error.strerror or error}; free some space or choose another "
            "folder, and run the same command again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(
        folder=out,
        episodes=len(numbers),
        rows=rows,
        notes=_notes(form, unknown, len(numbers), synthetic),
    )


def _write(
    store: EpisodeStore,
    numbers: Sequence[int],
    facts: Sequence[Mapping[str, Any]],
    tasks: Sequence[str],
    form: RowForm,
    writer: Writer,
    staging: Path,
    progress: bool | Callable[[int, int], None],
) -> int:
    """Hand every episode to the writer; how many rows there were."""
    first = 0
    shown = progress is True
    bar = tqdm(numbers, desc="export", unit="episode", disable=None if shown else True)
    for index, (number, fact) in enumerate(zip(bar, facts, strict=True)):
        episode = store.episode(number)
        values = form.values(
            episode, index=index, first=first, task=tasks.index(str(fact["instruction"]))
        )
        films = list(_films(episode, form, staging / "films"))
        stats = {name: statistics.of_values(value) for name, value in values.items()}
        for view, name in enumerate(form.views):
            measured = statistics.of_frames(episode.frames[:, view])
            stats[name] = {**measured, "count": np.array([len(values["index"])])}
        writer.add(
            Written(
                index=index,
                first=first,
                values=values,
                films=films,
                stats=stats,
                instruction=str(fact["instruction"]),
                facts=fact,
            )
        )
        first += len(values["index"])
        if callable(progress):
            progress(index + 1, len(numbers))
    shutil.rmtree(staging / "films", ignore_errors=True)
    return first


def _films(episode: Episode, form: RowForm, folder: Path) -> Iterator[Path]:
    """One film for each view, a picture for each row."""
    folder.mkdir(exist_ok=True)
    steps = form.layout.steps_per_frame
    shown = np.arange((episode.length - 1) * steps + 1) // steps
    for view in range(len(form.views)):
        path = folder / f"{view}.mp4"
        write_mp4(path, episode.frames[shown, view], form.fps)
        yield path


def _info(
    form: RowForm, version: str, episodes: int, rows: int, tasks: int, store: EpisodeStore
) -> dict[str, Any]:
    return {
        "codebase_version": f"v{version}",
        "robot_type": form.robot.name,
        "total_episodes": episodes,
        "total_frames": rows,
        "total_tasks": tasks,
        "chunks_size": 1000,
        "fps": form.fps,
        "splits": {"train": f"0:{episodes}"},
        "features": form.features(),
        "worldeval": {
            "format": FORMAT,
            "store": digests.of_store(store),
            "rows_per_frame": form.layout.steps_per_frame,
            "keys": form.spelling.name,
            "robot": robot_as_json(form.robot),
        },
    }


def _notes(
    form: RowForm, unknown: Sequence[str], episodes: int, synthetic: bool
) -> tuple[str, ...]:
    found = []
    if synthetic:
        found.append("it holds imagined episodes, and meta/info.json says so")
    if unknown:
        found.append(
            f"of {len(unknown)} of {episodes} episodes nobody knows whether they are solved (such "
            f"as {unknown[0]!r}), so next.success is left out; judge them, or choose others"
        )
    if (steps := form.layout.steps_per_frame) > 1:
        found.append(
            f"the store has a picture every {steps} control steps: each is repeated until the next"
        )
    if form.layout.expert_actions:
        found.append("what an expert would have done is in the column expert_action")
    return tuple(found)


def plain(stats: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Statistics as JSON has them."""
    return {name: np.asarray(value).tolist() for name, value in stats.items()}


def write_text(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """A JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
