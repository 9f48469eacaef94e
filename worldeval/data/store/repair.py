"""Rebuilding a store's ``meta/`` from its recordings.

Enters: a store whose index, info or tasks are lost, cut or behind. Leaves: a ``meta/`` that names
every whole recording, the old one beside it, and sentences that say what could not be known again.
What the index still says is kept; for the rest each data table holds a copy (``facts.py``); in
tables older than that copy, keys, tasks and success are lost and stay unknown. No recording is
changed, moved or deleted, but for the torn remains of a killed writer, which are set aside.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from worldeval.data.atomic import WriterLock, sync_file
from worldeval.data.store import contents, films, index, journal, survey
from worldeval.data.store.checksums import checksum
from worldeval.data.store.layout import (
    INFO_PATH,
    STATISTICS,
    STATS_PATH,
    TASKS_PATH,
    StoreLayout,
    chunk_and_file,
    episodes_path,
)
from worldeval.errors import DataError, StoreError

BACKUP = "meta-before-repair"
_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done: episodes in the new index, those of them whose row was rebuilt, and more.

    mended: sentences on what was wrong. lost: on what could not be known again. backup: the old
    ``meta/``; None where nothing was wrong, so that nothing was changed.
    """

    episodes: int
    rebuilt: list[int]
    mended: list[str]
    lost: list[str]
    backup: Path | None


@dataclass(kw_only=True)
class _State:
    """What a repair has found out so far."""

    root: Path
    info: dict[str, Any]
    layout: StoreLayout
    counted: int | None
    """Episodes in the old ``info.json``; None if that is lost."""
    tables: list[survey.Table]
    damaged: list[str] = field(default_factory=list)
    """Data tables of which nothing could be read."""
    found: dict[int, index.Row] = field(default_factory=dict)
    """Rows with their statistics, by episode."""
    rebuilt: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What is wrong with the old ``meta/``; nothing is written if it is nothing."""
    lost: list[str] = field(default_factory=list)


def repair(root: Path) -> Repair:
    """Rebuild ``meta/`` of the store at ``root`` as far as its recordings allow.

    Raises StoreError, with nothing changed, where a part of the store is a link, another process
    writes, or an episode is missing between others.
    """
    lock = WriterLock(root / ".writer.lock")
    if not index.holds_recordings(root) and not (root / INFO_PATH).exists():
        raise StoreError(f"there is no episode store at {root}; give the folder of one")
    contents.refuse_links(root)
    lock.acquire()
    try:
        journal.finish(root)
        return _repair(root)
    except OSError as error:
        raise index.write_error(root, error) from error
    finally:
        lock.release()


def _repair(root: Path) -> Repair:
    state = _begin(root)
    _keep_rows(state)
    _add_rows(state)
    order = _in_order(state)
    tasks = _tasks(state, order)
    state.lost += _tell_unnamed(state, order)
    if not state.wrong:
        return Repair(episodes=len(order), rebuilt=[], mended=[], lost=state.lost, backup=None)
    backup = _backup(root)
    _write(state, order, tasks)
    return Repair(
        episodes=len(order),
        rebuilt=state.rebuilt,
        mended=state.wrong,
        lost=state.lost,
        backup=backup,
    )


def _begin(root: Path) -> _State:
    """The data tables, and what the store is: as they say, else as ``info.json`` says."""
    tables, damaged = survey.tables_in(root)
    kept = next((table.kept.info for table in tables if table.kept), None)
    info, counted, wrong = None, None, []
    try:
        info = index.read_info(root)
        counted = info.get("total_episodes", 0)
        layout = StoreLayout.from_info(info, str(root / INFO_PATH))
    except StoreError as error:
        if kept is None:
            raise StoreError(
                f"{error}, and no data table of {root} keeps a copy of it (they are damaged or of "
                f"an earlier version): put the {INFO_PATH} of a store of the same robot there"
            ) from error
        info = None
        wrong.append(f"{root / INFO_PATH} was rebuilt")
    if kept is not None:
        known = StoreLayout.from_info(kept, f"{root}/data")
        if info is not None and known.difference(layout):
            wrong.append(f"{root / INFO_PATH} was wrong: {layout.difference(known)} as recorded")
        if info is None or wrong:
            info, layout = kept, known
    assert info is not None
    return _State(
        root=root,
        info=info,
        layout=layout,
        counted=counted,
        tables=tables,
        damaged=damaged,
        wrong=wrong,
        lost=[f"{sentence}; restore it from a copy" for sentence in damaged],
    )


def _keep_rows(state: _State) -> None:
    """What the index still says, one file after the other."""
    root, layout = state.root, state.layout
    recorded: dict[int, set[tuple[str, int, int]]] = {}
    for table in state.tables:
        for number, first, length in zip(
            table.episodes, table.first_rows, table.lengths, strict=True
        ):
            recorded.setdefault(number, set()).add((table.name, first, length))
    for path in index.episodes_files(root):
        try:
            plain = index.read_file(path, layout)
        except StoreError as error:
            state.wrong.append(str(error))
            continue
        try:
            full = index.read_file(path, layout, statistics=True)
        except StoreError as error:
            state.wrong.append(f"{error}; the statistics were measured again")
            full = plain
        for row in full:
            number = row["episode_index"]
            found = (index.data_of(row), row["dataset_from_index"], row["length"])
            if found not in recorded.get(number, {found}):
                state.wrong.append(f"{path} says of episode {number} what its data table does not")
                continue
            if number in state.found and state.found[number] != row:
                state.wrong.append(f"{path} names episode {number} a second time")
            state.found.setdefault(number, row)


def _add_rows(state: _State) -> None:
    """Rows for the episodes that the index does not name."""
    layout = state.layout
    named = {index.data_of(row) for row in state.found.values()}
    places = None
    unknown = []
    for table in state.tables:
        for group, number in enumerate(table.episodes):
            if number in state.found:
                if table.name not in named:
                    state.lost.append(
                        f"{state.root / table.name} claims to be episode {number}, which the index "
                        "has elsewhere; it stays where it is, named by nothing"
                    )
                continue
            slot = contents.slot_of(table.name) or 0
            chunk, file = chunk_and_file(slot)
            row: index.Row = {
                "episode_index": number,
                "length": table.lengths[group],
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": table.first_rows[group],
                "dataset_to_index": table.first_rows[group] + table.lengths[group],
                "worldeval.checksum/data": None,
            }
            copy = table.copy_of(number)
            if copy is not None:
                row = copy | row
            else:
                if places is None:
                    places = films.places(state.root, layout, _lengths(state))
                row |= _unknown(state, table, number, table.tasks[group]) | places[number]
                unknown.append(number)
            state.found[number] = row
            state.rebuilt.append(number)
    if state.rebuilt:
        state.wrong.append(f"{len(state.rebuilt)} episodes were named by no row of the index")
    if unknown:
        names = ", ".join(str(state.found[number]["worldeval.key"]) for number in unknown)
        state.lost.append(
            f"the key, task, success and facts of {len(unknown)} episodes, which are now called "
            f"{names}"
        )


def _lengths(state: _State) -> dict[int, tuple[int, int]]:
    """Slot of the data file and length of each episode that has one."""
    return {
        number: (contents.slot_of(table.name) or 0, length)
        for table in state.tables
        for number, length in zip(table.episodes, table.lengths, strict=True)
    }


def _unknown(state: _State, table: survey.Table, number: int, task: int) -> index.Row:
    """What is left of an episode in whose table there is no copy of its row."""
    try:
        instruction = index.read_tasks(state.root)[task]
    except (StoreError, IndexError):
        known = [
            row["tasks"][0]
            for one in state.tables
            for n, other in zip(one.episodes, one.tasks, strict=True)
            if other == task and (row := state.found.get(n)) and row["tasks"]
        ]
        instruction = known[0] if known else f"{_UNKNOWN} {task}"
    return {
        "tasks": [instruction],
        "worldeval.key": f"recovered/{number:06d}",
        "worldeval.task": _UNKNOWN,
        "worldeval.success": None,
        # The flags are in the rows; whether the world had any is known only if one is set.
        "worldeval.success_known": survey.any_flag(state.root, state.layout, table, number),
        "worldeval.extra": '{"recovered": true}',
        **{name: None for name in state.layout.checksum_columns},
    }


def _in_order(state: _State) -> list[index.Row]:
    """All rows, from episode 0 on. Raises StoreError where one is missing between others."""
    order = [state.found[number] for number in sorted(state.found)]
    next_row = 0
    for place, row in enumerate(order):
        if row["episode_index"] != place or row["dataset_from_index"] != next_row:
            raise StoreError(
                f"{state.root} has lost episode {place} with its data table, and no index names "
                f"it: restore data/ or meta/ from a copy; nothing was changed"
                + "".join(f"; {sentence}" for sentence in state.lost)
            )
        next_row = row["dataset_to_index"]
    counted = len(order) if state.counted is None else state.counted
    if not order and (counted or state.damaged):
        raise StoreError(
            f"no episode of {state.root} can be told from its recordings: restore data/ or meta/ "
            "from a copy; nothing was changed" + "".join(f"; {said}" for said in state.lost)
        )
    if counted > len(order):
        state.lost.append(
            f"{counted - len(order)} of the {counted} episodes that {INFO_PATH} counted"
        )
    if counted != len(order):
        state.wrong.append(f"{INFO_PATH} counted {counted} episodes, not {len(order)}")
    keys = Counter(row["worldeval.key"] for row in order)
    state.lost += [f"{n} episodes have the key {key!r}" for key, n in keys.items() if n > 1]
    if order and not (state.root / STATS_PATH).exists():
        state.wrong.append(f"{state.root / STATS_PATH} was measured again")
    return order


def _tasks(state: _State, order: Sequence[index.Row]) -> list[str]:
    """The instructions by LeRobot's number, as the data tables use it."""
    tasks: dict[int, str] = {}
    try:
        tasks = dict(enumerate(index.read_tasks(state.root)))
    except StoreError:
        state.wrong.append(f"{state.root / TASKS_PATH} was rebuilt")
    for table in state.tables:
        for number, task in zip(table.episodes, table.tasks, strict=True):
            said = order[number]["tasks"][0]
            if tasks.setdefault(task, said) != said:
                state.lost.append(
                    f"episode {number} has instruction {said!r}, its rows name {tasks[task]!r}"
                )
    count = max(tasks, default=-1) + 1
    whole = [tasks.get(number, f"{_UNKNOWN} {number}") for number in range(count)]
    if state.info.get("total_tasks", 0) > len(whole) or len(tasks) < len(whole):
        state.lost.append("instructions that no episode uses")
    return whole


def _tell_unnamed(state: _State, order: Sequence[index.Row]) -> list[str]:
    """What no row names; the torn episode of a killed writer is moved out of the way.

    Where tables are damaged or episodes were counted that lie nowhere, it may be theirs: it stays.
    """
    names = index.unnamed(contents.recordings(state.root), order, state.layout)
    slot = index.next_slot(order, state.layout)
    complete = not state.damaged and (state.counted or 0) <= len(order)
    if names and complete and contents.left_by_a_killed_writer(names, slot):
        folder = contents.set_aside(state.root, names)
        return [f"{', '.join(names)} are no whole episode, kept in {folder}"]
    return [
        f"{state.root / name} belongs to no episode that can be told; it stays where it is, move "
        "it out of the store if you do not need it"
        for name in names
    ]


def _backup(root: Path) -> Path:
    number = 0
    while (root / f"{BACKUP}-{number}").exists():
        number += 1
    backup = root / f"{BACKUP}-{number}"
    if (root / "meta").is_dir():
        shutil.copytree(root / "meta", backup)
    return backup


def _write(state: _State, order: Sequence[index.Row], tasks: Sequence[str]) -> None:
    """Stage the new ``meta/`` and put it in the place of the old."""
    root, layout = state.root, state.layout
    schema = layout.episodes_schema()
    for row in order:
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        if f"stats/action/{STATISTICS[0]}" not in row:
            row |= _measured(state, row)
    noted: dict[str, str | None] = {}
    for number in state.rebuilt:
        name = index.data_of(order[number])
        if name not in noted:
            noted[name] = checksum(root / name)
        order[number]["worldeval.checksum/data"] = noted[name]
    table = pa.Table.from_pylist([{n: row.get(n) for n in schema.names} for row in order], schema)
    old = {path.relative_to(root).as_posix() for path in index.episodes_files(root)}
    staging = journal.begin(root)
    target = staging / episodes_path(0, 0)
    target.parent.mkdir(parents=True)
    index.write_episodes(table, target)
    sync_file(target)
    index.write_tasks(staging, tasks)
    sizes = tuple(state.info.get(f"{kind}_files_size_in_mb", size) for kind, size in index.SIZES_MB)
    info = layout.info(
        episodes=len(order),
        frames=order[-1]["dataset_to_index"] if order else 0,
        tasks=len(tasks),
        sizes_mb=sizes,
        extra=state.info["worldeval"].get("extra", {}),
    )
    index.write_json(staging / INFO_PATH, info)
    if len(table):
        index.write_json(staging / STATS_PATH, index.stats_of(table, layout))
    journal.decide(root, old)
    journal.finish(root)


def _measured(state: _State, row: index.Row) -> dict[str, Any]:
    """The statistics of an episode; none if it is damaged, which is reported."""
    number = row["episode_index"]
    try:
        table = next(table for table in state.tables if number in table.episodes)
        return survey.measured(state.root, state.layout, table, row)
    except (DataError, StopIteration, OSError) as error:
        state.lost.append(f"episode {number} is damaged: {error}; its statistics are left out")
        return {f"stats/action/{STATISTICS[0]}": None}
