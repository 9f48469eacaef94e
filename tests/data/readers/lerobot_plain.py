"""A slow, plain reader of LeRobot datasets, as a measure for the real one.

It shares no code with it. It goes by what the format says: rows belong where ``episode_index`` and
``frame_index`` put them, a picture to the row at whose time the film shows it, a text to its
``task_index``. Where two of these contradict each other, or one is missing, it answers None.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tests.data.readers import lerobot_made as made

QUARTER = 0.25 / made.FPS


@dataclass
class Plain:
    """Of one episode: numbers of the states and of the pictures (one list a view), every row."""

    states: list[float]
    pictures: list[list[int]]
    texts: list[str]
    success: bool | None


def episodes(root: Path) -> dict[int, dict[str, Any]]:
    """The entries of the index, by number, but those that name none or contradict another."""
    if (root / "meta/episodes.jsonl").exists():
        entries = [json.loads(x) for x in (root / "meta/episodes.jsonl").read_text().splitlines()]
    else:
        entries = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    found: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        number = whole(entry.get("episode_index"))
        if number is not None and entry not in found.setdefault(number, []):
            found[number].append(entry)
    return {number: same[0] for number, same in found.items() if len(same) == 1}


def whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value >= 0 and value == int(value) else None


def read(root: Path, number: int) -> Plain | None:
    info = json.loads((root / "meta/info.json").read_text())
    v3 = info["codebase_version"] == "v3.0"
    entry = episodes(root)[number]
    length = whole(entry.get("length"))
    if not length:
        return None
    rows = _rows(root, info, entry, number, length)
    if rows is None or not _numeric(rows, made.WIDTHS):
        return None
    times = [k / made.FPS for k in range(length)]
    if "timestamp" in rows:
        times = list(rows["timestamp"])
        if any(not _is_number(t) or abs(t - k / made.FPS) > QUARTER for k, t in enumerate(times)):
            return None
    pictures = []
    for view, key in enumerate(made.KEYS):
        begin = _begin(root, info, number, key) if v3 else 0.0
        path = _path(root, info, entry, "video_path", f"videos/{key}", key)
        if begin is None or path is None or not path.is_file():
            return None
        found = _pictures(path, view, [begin + t for t in times], whole_film=not v3)
        if found is None:
            return None
        pictures.append(found)
    texts = _texts(root, entry, rows)
    judged = _success(rows)
    if texts is None or judged == "?":
        return None
    grip = [float(np.ravel(value)[0]) for value in rows["observation.state.gripper_position"]]
    return Plain(grip, pictures, texts, judged)


def _path(
    root: Path, info: dict[str, Any], entry: dict[str, Any], name: str, prefix: str, key: str = ""
) -> Path | None:
    number = whole(entry["episode_index"])
    places = {"episode_index": number, "episode_chunk": number // info["chunks_size"]}
    places["chunk_index"] = whole(entry.get(f"{prefix}/chunk_index"))
    places["file_index"] = whole(entry.get(f"{prefix}/file_index"))
    wanted = [part for part in places if "{" + part in info[name]]
    if any(places[part] is None for part in wanted):
        return None
    return root / info[name].format(video_key=key, **{part: places[part] for part in wanted})


def _rows(
    root: Path, info: dict[str, Any], entry: dict[str, Any], number: int, length: int
) -> pd.DataFrame | None:
    """The rows in order of time, from the file of the index or from wherever they are."""
    pointed = _path(root, info, entry, "data_path", "data")
    found = {}
    for path in sorted(root.glob("data/**/*.parquet")):
        table = pd.read_parquet(path)
        if "episode_index" in table and table["episode_index"].dtype.kind in "iu":
            found[path] = table[table["episode_index"] == number]
    promised = [entry.get("dataset_from_index"), entry.get("dataset_to_index")]
    rows = found.get(pointed)
    counted = rows is not None and len(rows) and "index" in rows and None not in promised
    if counted and [rows["index"].min(), rows["index"].max() + 1] != promised:
        rows = None
    if rows is None or len(rows) != length:
        rows = pd.concat(found.values()) if found else None
    if rows is None or len(rows) != length:
        return None
    if "frame_index" in rows:
        order = list(rows["frame_index"])
        if any(whole(k) is None for k in order) or sorted(order) != list(range(length)):
            return None
        return rows.sort_values("frame_index")
    if "timestamp" in rows:
        return rows.sort_values("timestamp")
    if "index" in rows:
        rows = rows.sort_values("index")
        return rows if (rows["index"].diff().iloc[1:] == 1).all() else None
    return rows


def _is_number(value: Any) -> bool:
    kinds = int | float | np.integer | np.floating
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _numeric(rows: pd.DataFrame, widths: dict[str, int]) -> bool:
    """Whether each state is as many numbers as promised."""
    for name, width in widths.items():
        if name not in rows:
            return False
        for cell in rows[name]:
            values = list(cell) if isinstance(cell, np.ndarray | list) else [cell]
            if len(values) != width or not all(_is_number(value) for value in values):
                return False
    return True


def _begin(root: Path, info: dict[str, Any], number: int, key: str) -> float | None:
    """Where the episode begins in its film, if its span neither contradicts nor overlaps."""
    spans = {}
    for other, entry in episodes(root).items():
        length, start = whole(entry.get("length")), entry.get(f"videos/{key}/from_timestamp")
        path = _path(root, info, entry, "video_path", f"videos/{key}", key)
        if length and _is_number(start) and path is not None:
            spans[other] = (path, start, start + length / made.FPS)
    if number not in spans or spans[number][1] < 0:
        return None
    path, start, end = spans[number]
    told = episodes(root)[number].get(f"videos/{key}/to_timestamp")
    if told is not None and not math.isnan(told) and not abs(told - end) <= 0.5 / made.FPS:
        return None
    for other, (elsewhere, begin, until) in spans.items():
        shared = min(end, until) - max(start, begin)
        if other != number and elsewhere == path and shared > 0.5 / made.FPS:
            return None
    return start


def _pictures(path: Path, view: int, times: list[float], whole_film: bool) -> list[int] | None:
    """The number that the film shows at each time."""
    shown = []
    with av.open(str(path)) as film:
        for frame in film.decode(film.streams.video[0]):
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            number, of_view = made.seen(pixels)
            if of_view != view:
                return None
            shown.append((frame.time, number))
    if whole_film and shown[-1][0] > times[-1] + 0.95 / made.FPS:
        return None
    found = []
    for time in times:
        nearest = min(shown, key=lambda item: abs(item[0] - time))
        if abs(nearest[0] - time) > QUARTER:
            return None
        found.append(nearest[1])
    return found


def _texts(root: Path, entry: dict[str, Any], rows: pd.DataFrame) -> list[str] | None:
    """Texts of the index and of task_index; None where they contradict each other."""
    listed = entry.get("tasks")
    listed = listed if isinstance(listed, list) else [listed]
    texts = [t for t in listed if isinstance(t, str) and t not in ("", "nan", "None", "0")]
    table = {}
    if (root / "meta/tasks.jsonl").exists():
        lines = map(json.loads, (root / "meta/tasks.jsonl").read_text().splitlines())
        table = {line["task_index"]: line["task"] for line in lines}
    elif (root / "meta/tasks.parquet").exists():
        tasks = pd.read_parquet(root / "meta/tasks.parquet")
        table = dict(zip(tasks["task_index"], tasks["task"], strict=True))
    named = []
    for value in rows.get("task_index", []):
        if _is_number(value) and value in table and table[value] not in named:
            named.append(table[value])
    if texts and any(words not in texts for words in named):
        return None
    return list(dict.fromkeys(texts + named))


def _success(rows: pd.DataFrame) -> Any:
    """True, False or None; "?" where a value means nothing."""
    meanings = {
        "True": True, "False": False, "1": True, "0": False, "yes": True, "no": False,
        "success": True, "failure": False, "1.0": True, "0.0": False,
        "-1": None, "-1.0": None, "": None, "nan": None, "None": None, "NaN": None,
    }  # fmt: skip
    found = None
    for value in rows.get(made.SUCCESS, []):
        word = str(np.ravel(value)[0] if isinstance(value, list | np.ndarray) else value)
        if word not in meanings:
            return "?"
        if found is True and meanings[word] is False:
            return "?"
        found = found if meanings[word] is None else meanings[word]
    return found
