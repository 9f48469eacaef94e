"""Reading a whole store to name what is damaged.

Every file's checksum is compared and every row group, PNG and video picture is read: a store may
have been written before there were checksums, and a checksum does not say what is wrong. Damage is
told, whatever it is: nothing here ends in an exception of another kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from worldeval.data.atomic import WriterLock
from worldeval.data.files import read_json
from worldeval.data.parquet import opened, read_row_group
from worldeval.data.readers.film_spans import contradictions
from worldeval.data.store import contents, facts, index, journal, rows
from worldeval.data.store.checksums import check_unchanged
from worldeval.data.store.layout import INFO_PATH, STATS_PATH, TASKS_PATH, StoreLayout
from worldeval.data.video import mp4_times, read_mp4
from worldeval.errors import StoreError

TOLERANCE_S = 1e-4
"""How far a frame may lie from its time; LeRobot's own tolerance."""
_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is wrong: in which file, for which episode, and what."""

    path: Path
    episode_index: int | None
    """None for what concerns more than one episode."""
    what: str

    def __str__(self) -> str:
        where = "" if self.episode_index is None else f"episode {self.episode_index}: "
        return f"{self.path}: {where}{self.what}"


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What ``verify`` found: the number of episodes in the index, damage, and what to know else."""

    episodes: int
    damages: list[Damage]
    notes: list[str]


def verify(root: Path, lock: WriterLock) -> Inspection:
    """Look at everything in the store at ``root``, from its files alone.

    Raises StoreError only where it is no store, or others change it all the time.
    """
    for _ in range(_ATTEMPTS):
        journal.settle(root, lock)
        mark, stamp = journal.mark(root), index.episodes_stamp(root)
        found = _inspect(root)
        if not found.damages and not found.notes:
            return found
        if not journal.changed_since(root, mark) and index.episodes_stamp(root) == stamp:
            return found
    raise StoreError(f"{root} is being written to; verify it when that is done")


def _inspect(root: Path) -> Inspection:
    damages: list[Damage] = []

    def add(path: Path, check: Callable[[], str | None], episode: int | None = None) -> bool:
        what = _attempt(check)
        if what:
            what = what.removeprefix(f"{path}: ")
            if what.startswith(f"{path} "):
                what = f"it {what.removeprefix(f'{path} ')}"
            damages.append(Damage(path=path, episode_index=episode, what=what))
        return not what

    info: dict = {}
    table: list[index.Row] = []
    layout: StoreLayout | None = None

    def read_info() -> None:
        nonlocal layout
        info.update(index.read_info(root))
        layout = StoreLayout.from_info(info, str(root / INFO_PATH))

    if not add(root / INFO_PATH, read_info) or layout is None:
        return Inspection(episodes=0, damages=damages, notes=[])
    counted = info.get("total_episodes", 0)
    # Without the rows nothing can be said of single episodes, nor of what is named by none.
    if add(root / "meta/episodes", lambda: table.extend(index.read_rows(root, layout))):
        add(root / "meta/episodes", partial(_check_counts, root, len(table), counted))
        add(root / TASKS_PATH, partial(_check_tasks, root, table))
        add(root / "meta/episodes", partial(_check_columns, root, layout))
        if (root / STATS_PATH).exists():  # a killed writer has not come to write it
            add(root / STATS_PATH, lambda: read_json(root / STATS_PATH) and None)
        _check_episodes(root, layout, table, add)
        _check_spans(root, layout, table, add)
        notes = _check_unnamed(root, layout, table, add)
    else:
        notes = []
    return Inspection(episodes=len(table), damages=damages, notes=notes)


def _attempt(check: Callable[[], str | None]) -> str | None:
    try:
        return check()
    # Here alone every exception is an answer: what is looked at may be damaged in any way.
    except Exception as error:
        return " ".join(str(error).split()) or f"it cannot be read ({type(error).__name__})"


def _check_counts(root: Path, found: int, counted: int) -> str | None:
    if found < counted:
        return (
            f"the index names {found} episodes, {INFO_PATH} counts {counted}: a part of it is "
            f"lost; {index.remedy(root)}"
        )
    if found > counted + 1:  # one more is what a kill between the two leaves
        return (
            f"the index names {found} episodes, {INFO_PATH} counts {counted}; `worldeval store "
            f"repair {root}` counts again"
        )
    return None


def _check_tasks(root: Path, table: Sequence[index.Row]) -> str | None:
    tasks = set(index.read_tasks(root))
    missing = [row for row in table if row["tasks"][0] not in tasks]
    if missing:
        return (
            f"it lacks the instruction {missing[0]['tasks'][0]!r} of episode "
            f"{missing[0]['episode_index']}; {index.remedy(root)}"
        )
    return None


def _check_columns(root: Path, layout: StoreLayout) -> str | None:
    index.has_checksums(root, layout)
    index.stats_of(index.read_whole(root, layout), layout)
    return None


def _check_episodes(
    root: Path, layout: StoreLayout, table: Sequence[index.Row], add: Callable[..., bool]
) -> None:
    keys: set[str] = set()
    times: dict[Path, np.ndarray] = {}
    frames_in: Counter[Path] = Counter()
    for row in table:
        for key in layout.video_keys:
            frames_in[root / index.video_of(row, key)] += row["length"]
    tasks: list[str] = []
    _attempt(lambda: tasks.extend(index.read_tasks(root)))  # its damage was reported already
    compared: set[Path] = set()
    next_row = 0
    for i, row in enumerate(table):
        add(root / "meta/episodes", partial(_check_row, row, keys, next_row), i)
        keys.add(row["worldeval.key"])
        next_row = row["dataset_to_index"]
        files = [("data", root / index.data_of(row), partial(_check_rows, layout, table, i, tasks))]
        for key in layout.video_keys:
            check = partial(_check_video, layout, row, key, frames_in, times)
            files.append((f"videos/{key}", root / index.video_of(row, key), check))
        for prefix, path, check in files:
            if not path.exists():
                add(path, lambda: "the file is missing", i)
                continue
            # The content first: it tells more than a checksum does.
            whole = add(path, partial(check, path), i)
            if path not in compared:
                compared.add(path)
                noted = row[f"worldeval.checksum/{prefix}"]
                if whole:
                    add(path, partial(check_unchanged, path, noted), i)


def _check_spans(
    root: Path, layout: StoreLayout, table: Sequence[index.Row], add: Callable[..., bool]
) -> None:
    """Two episodes that claim the same pictures: one of them would show those of the other."""
    for key in layout.video_keys:
        spans = {i: index.span_of(root, row, key) for i, row in enumerate(table)}
        for i, what in contradictions(spans, layout.fps).items():
            add(root / "meta/episodes", lambda what=what: f"{what}; {index.remedy(root)}", i)


def _check_row(row: index.Row, keys: set[str], next_row: int) -> str | None:
    index.extra_of(row)
    if row["worldeval.key"] in keys:
        return f"a second episode with key {row['worldeval.key']!r}"
    rows_counted = row["dataset_to_index"] - row["dataset_from_index"]
    if row["dataset_from_index"] != next_row or rows_counted != row["length"]:
        return "its rows are counted wrongly"
    return None


def _check_rows(
    layout: StoreLayout, table: Sequence[index.Row], i: int, tasks: Sequence[str], path: Path
) -> str | None:
    row, length = table[i], table[i]["length"]
    group = i - index.first_in_file(table, i)
    data = read_row_group(path, group, length, layout.data_schema())
    if set(data["episode_index"].to_pylist()) != {i}:
        return f"its rows belong to another episode than {i}"
    first = row["dataset_from_index"]
    if data["index"].to_pylist() != list(range(first, first + length)):
        return "its rows are not in order"
    frames = np.arange(length)
    if not np.array_equal(data["frame_index"].to_numpy(), frames):
        return f"its frames are not numbered from 0 to {length - 1}"
    # float32 holds a time of hours to a thousandth of a second
    if not np.allclose(data["timestamp"].to_numpy(), frames / layout.fps, atol=TOLERANCE_S):
        return f"its timestamps are not those of {layout.fps} frames per second"
    numbers = set(data["task_index"].to_pylist())
    if tasks and (len(numbers) > 1 or tasks[min(numbers)] != row["tasks"][0]):
        return f"its rows name other instructions than the index, {row['tasks'][0]!r}"
    what = _not_finite(data) or _other_facts(path, group, row, layout)
    if what is None and not layout.video_keys:
        rows.images(layout, data, layout.views, frames)
    return what


def _not_finite(data: pa.Table) -> str | None:
    names = {"observation.state": "poses", "action": "actions", "action.expert": "expert actions"}
    for field in data.schema:
        if not pa.types.is_fixed_size_list(field.type):
            continue
        values = data.column(field.name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values = values.reshape(len(data), -1)
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(broken):
            what = names.get(field.name, "joints")
            return f"its {what} hold NaN or infinity in {len(broken)} rows, first at {broken[0]}"
    return None


def _other_facts(path: Path, group: int, row: index.Row, layout: StoreLayout) -> str | None:
    """Where the file's own copy of the index disagrees with it."""
    with opened(path) as file:
        kept = facts.unpacked(file.metadata.metadata)
    if kept is None:  # written before there was a copy
        return None
    if layout.difference(StoreLayout.from_info(kept.info, str(path))):
        difference = layout.difference(StoreLayout.from_info(kept.info, str(path)))
        return f"it was written for another {INFO_PATH}: {difference}"
    mine = kept.rows[group] if group < len(kept.rows) else {}
    for name in ("key", "task", "success", "success_known", "extra"):
        if mine.get(f"worldeval.{name}") != row[f"worldeval.{name}"]:
            return (
                f"it was written with {name} {mine.get(f'worldeval.{name}')!r:.80}, the index says "
                f"{row[f'worldeval.{name}']!r:.80}"
            )
    return None


def _check_video(
    layout: StoreLayout,
    row: index.Row,
    key: str,
    frames_in: Mapping[Path, int],
    times: dict[Path, np.ndarray],
    path: Path,
) -> str | None:
    check_unchanged(path, None)
    if path not in times:
        times[path] = mp4_times(path)[0]
    if len(times[path]) != frames_in[path]:
        return f"it has {len(times[path])} frames, expected {frames_in[path]}"
    start = row[f"videos/{key}/from_timestamp"]
    wanted = start + np.arange(row["length"]) / layout.fps
    first = int(np.searchsorted(times[path], start - TOLERANCE_S))
    found = times[path][first : first + row["length"]]
    if len(found) != len(wanted) or np.abs(found - wanted).max() > TOLERANCE_S:
        return f"its frames do not lie at {start:.3f} s and after"
    read_mp4(path, start_s=start, count=row["length"], size=layout.image_size)
    return None


def _check_unnamed(
    root: Path, layout: StoreLayout, table: Sequence[index.Row], add: Callable[..., bool]
) -> list[str]:
    names = index.unnamed(contents.recordings_read(root), table, layout)
    if names and contents.left_by_a_killed_writer(names, index.next_slot(table, layout)):
        return [
            f"{', '.join(names)}: an episode that a killed writer could not name; `worldeval store "
            f"repair {root}` takes it in if it is whole, the next writer sets it aside"
        ]
    for name in names:
        add(root / name, lambda: "no episode of the index names it")
    return []
