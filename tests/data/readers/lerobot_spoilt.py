"""What the world does to LeRobot datasets, one thing each, as public reports have it.

``HARMLESS`` leaves one right answer, which a reader must find; ``DOUBTFUL`` may leave none, and a
reader must find the right one or refuse. Each takes a dataset, an episode and a random generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.data.readers.lerobot_made import FPS, KEYS, SUCCESS, Dataset, Film

Change = Callable[[Dataset, int, random.Random], None]
NAN, INF = float("nan"), float("inf")
STRANGE: tuple[Any, ...] = (None, NAN, INF, -1, 2.5, "3", "", True, [1, 2], 10**12)


def table_of(made: Dataset, episode: int) -> dict[str, list[Any]]:
    """The table that has an episode's rows; KeyError if none has them any more."""
    for table in made.tables.values():
        if episode in table["episode_index"]:
            return table
    raise KeyError(episode)


def rows_of(table: dict[str, list[Any]], episode: int) -> list[int]:
    return [k for k, n in enumerate(table["episode_index"]) if n == episode]


def films_of(made: Dataset, view: int) -> list[Film]:
    return [film for film in made.films.values() if film.view == view]


def reorder(table: dict[str, list[Any]], rows: list[int]) -> None:
    for name, values in table.items():
        table[name] = [values[k] for k in rows]


def shuffled(made: Dataset, episode: int, rng: random.Random) -> None:
    table = table_of(made, episode)
    reorder(table, rng.sample(range(len(table["index"])), len(table["index"])))


def other_data_file(made: Dataset, episode: int, rng: random.Random) -> None:
    """Rows in another file, or in another chunk, than the index says."""
    table = table_of(made, episode)
    path = next(path for path, other in made.tables.items() if other is table)
    if made.version == "v3.0":
        made.entries[episode]["data/file_index"] = rng.choice((7, 1, 0))
    else:
        made.tables[path.replace("chunk-000", "chunk-004")] = made.tables.pop(path)


def data_in_parts(made: Dataset, episode: int, rng: random.Random) -> None:
    """Half of an episode's rows in another file."""
    if made.version == "v3.0":
        table = table_of(made, episode)
        cut = rng.randrange(1, len(table["index"]))
        made.tables["data/chunk-001/file-005.parquet"] = {n: v[cut:] for n, v in table.items()}
        reorder(table, list(range(cut)))


def no_tasks_column(made: Dataset, episode: int, rng: random.Random) -> None:
    for entry in made.entries:
        entry.pop("tasks", None)


def no_task_table(made: Dataset, episode: int, rng: random.Random) -> None:
    made.tasks = []


def one_text(made: Dataset, episode: int, rng: random.Random) -> None:
    if made.version == "v2.1":
        made.entries[episode]["tasks"] = f"do {episode}"


def jitter(made: Dataset, episode: int, rng: random.Random) -> None:
    for table in made.tables.values():
        table["timestamp"] = [t + rng.uniform(-0.1, 0.1) / FPS for t in table["timestamp"]]


def faster_film(made: Dataset, episode: int, rng: random.Random) -> None:
    """Every picture two or four times, at times that are right."""
    times = rng.choice((2, 4))
    for film in films_of(made, rng.randrange(3)):
        film.pictures = [number for number in film.pictures for _ in range(times)]
        film.times = [t + k / times / FPS for t in film.times for k in range(times)]


def film_jitters(made: Dataset, episode: int, rng: random.Random) -> None:
    for film in films_of(made, rng.randrange(3)):
        later = [t + rng.uniform(0, 0.12) / FPS for t in film.times[1:]]
        film.times = [film.times[0], *later]


def turned_film(made: Dataset, episode: int, rng: random.Random) -> None:
    for film in films_of(made, rng.randrange(3)):
        film.turned = True


def column_gone(name: str) -> Change:
    def change(made: Dataset, episode: int, rng: random.Random) -> None:
        for table in made.tables.values():
            table.pop(name, None)

    return change


def as_floats(made: Dataset, episode: int, rng: random.Random) -> None:
    """What a table with one hole becomes in pandas."""
    for table in made.tables.values():
        for name in ("frame_index", "task_index"):
            table[name] = [float(value) for value in table.get(name, ())] or table.pop(name, [])
    for entry in made.entries:
        entry["length"] = float(entry["length"])


HARMLESS: tuple[Change, ...] = (
    shuffled, other_data_file, data_in_parts, no_tasks_column, no_task_table, one_text, jitter,
    faster_film, film_jitters, turned_film, column_gone("timestamp"), column_gone("index"),
    column_gone("frame_index"), column_gone(SUCCESS), column_gone("task_index"), as_floats,
)  # fmt: skip
"""Alone, each leaves the right answer; two of them may take it away."""


def row_lost(made: Dataset, episode: int, rng: random.Random) -> None:
    table = table_of(made, episode)
    gone = rng.choice(rows_of(table, episode))
    reorder(table, [k for k in range(len(table["episode_index"])) if k != gone])
    if rng.random() < 0.7:
        made.entries[episode]["length"] -= 1


def row_doubled(made: Dataset, episode: int, rng: random.Random) -> None:
    table = table_of(made, episode)
    twice = rng.choice(rows_of(table, episode))
    reorder(table, sorted([*range(len(table["episode_index"])), twice]))
    if rng.random() < 0.7:
        made.entries[episode]["length"] += 1


def cell(*names: str, values: tuple[Any, ...] = STRANGE) -> Change:
    """One value of a column, or all, is strange."""

    def change(made: Dataset, episode: int, rng: random.Random) -> None:
        table, name = table_of(made, episode), rng.choice(names)
        if name in table:
            value = rng.choice(values)
            rows = rows_of(table, episode)
            for k in rows if rng.random() < 0.5 else rng.sample(rows, 1):
                table[name][k] = value

    return change


def entry(*names: str, values: tuple[Any, ...] = STRANGE) -> Change:
    """One value of the index is strange, or gone."""

    def change(made: Dataset, episode: int, rng: random.Random) -> None:
        view = rng.choice(KEYS)
        name = rng.choice(names).replace("VIEW", view)
        if name in made.entries[episode]:
            made.entries[episode][name] = rng.choice(values)
            if rng.random() < 0.2:
                del made.entries[episode][name]

    return change


def clock(made: Dataset, episode: int, rng: random.Random) -> None:
    """Timestamps that begin late, drift, or jump."""
    late, drift = rng.choice(((0.5, 1), (1e9, 1), (0, 1.5), (0, 1.02), (1 / FPS, 1), (0, 0.5)))
    for table in made.tables.values():
        if "timestamp" in table:
            table["timestamp"] = [t * drift + late for t in table["timestamp"]]


def film_clock(made: Dataset, episode: int, rng: random.Random) -> None:
    """A film of as many frames, at another rate or beginning late."""
    late, slower = rng.choice(((0.3, 1), (0, 0.5), (0, 2), (0, 3), (0, 1.1), (1 / FPS, 1)))
    for film in films_of(made, rng.randrange(3)):
        film.times = [t * slower + late for t in film.times]


def film_frames(made: Dataset, episode: int, rng: random.Random) -> None:
    """Frames lost at the begin, in the middle or at the end, or too many of them."""
    film = rng.choice(films_of(made, rng.randrange(3)))
    cut = rng.randrange(len(film.times))
    if rng.random() < 0.3:
        film.pictures.append(500)
        film.times.append(film.times[-1] + 1 / FPS)
    elif len(film.times) > 2:
        del film.pictures[cut]
        del film.times[cut if rng.random() < 0.5 else -1]


def wrong_film(made: Dataset, episode: int, rng: random.Random) -> None:
    """The film of another camera or episode in its place, or none."""
    path = rng.choice(sorted(made.films))
    if rng.random() < 0.3:
        del made.films[path]
    elif made.version == "v3.0":
        made.entries[episode][f"videos/{rng.choice(KEYS)}/file_index"] = rng.choice((0, 1, 9))


def twice_in_index(made: Dataset, episode: int, rng: random.Random) -> None:
    made.entries.append({**made.entries[episode], "length": 5})


def span(made: Dataset, episode: int, rng: random.Random) -> None:
    """from_timestamp and to_timestamp that overlap, or lie beside the frames."""
    by = rng.choice((0.4, -0.4, 0.5 / FPS, -2.0, 1e6, -1 / FPS, 1 / FPS))
    for view in rng.choice((KEYS, KEYS[:1])):
        for end in rng.choice((("from",), ("to",), ("from", "to"))):
            name = f"videos/{view}/{end}_timestamp"
            if isinstance(made.entries[episode].get(name), float):
                made.entries[episode][name] += by


WORDS: tuple[Any, ...] = (
    "False", "True", "0", "no", "yes", "failure", "success", "-1", -1, 0, 1, 1.0, 0.0, NAN, None,
    "", "nan", "None", "maybe", 2, 0.5, [True], [False], "1.0",
)  # fmt: skip
DOUBTFUL: tuple[Change, ...] = (
    row_lost, row_doubled, clock, film_clock, film_frames, wrong_film, twice_in_index, span,
    cell("frame_index", "timestamp", "episode_index"), cell("task_index", values=(9, *STRANGE)),
    cell(SUCCESS, values=WORDS), cell(SUCCESS, values=WORDS), entry("length", "episode_index"),
    cell(
        "observation.state.gripper_position", "observation.state.joint_position",
        values=(None, NAN, INF, "3", "", True, [1, 2]),
    ),
    entry("tasks", values=("nan", "", None, [], ["", "None"], ["0"], [3], ["other"], 0)),
    entry("data/file_index", "data/chunk_index", "videos/VIEW/file_index"),
    entry("videos/VIEW/from_timestamp", "videos/VIEW/to_timestamp"),
    column_gone("episode_index"), column_gone("observation.state.gripper_position"),
)  # fmt: skip
