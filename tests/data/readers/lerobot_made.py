"""Makes LeRobot datasets whose every value is known, and spoils them in known ways.

Each picture carries its number and its view in black and white blocks, each state its episode and
row, so whatever a reader brings together can be checked to the frame after H.264.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data.video import converted

VIEWS = ("exterior_1_left", "exterior_2_left", "wrist_left")
KEYS = tuple(f"observation.images.{view}" for view in VIEWS)
SIZE = (16, 96)
BITS, BLOCK = 12, 8
FPS, TICKS = 15, 3000
WIDTHS = {
    "observation.state.cartesian_position": 6,
    "observation.state.joint_position": 7,
    "observation.state.gripper_position": 1,
    "action.joint_position": 7,
    "action.joint_velocity": 7,
    "action.cartesian_position": 6,
    "action.cartesian_velocity": 6,
    "action.gripper_position": 1,
    "action.gripper_velocity": 1,
}
SUCCESS = "is_episode_successful"
DATA = {
    "v2.1": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3.0": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO = {
    "v2.1": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "v3.0": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}


@dataclass
class Film:
    """pictures: the number that each frame shows. times: of each frame, in s."""

    view: int
    pictures: list[int]
    times: list[float]
    turned: bool = False


@dataclass
class Dataset:
    """All that is written, still to be spoiled. tables: path -> columns."""

    version: str
    info: dict[str, Any]
    entries: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    films: dict[str, Film] = field(default_factory=dict)
    tasks: list[dict[str, Any]] = field(default_factory=list)


def picture(number: int, view: int) -> np.ndarray:
    """(16, 96, 3) uint8: nine bits of number, two of view, and a last block that is white."""
    code = number | view << 9 | 1 << 11
    bits = [255 * (code >> bit & 1) for bit in range(BITS)]
    row = np.repeat(np.asarray(bits, np.uint8), BLOCK)
    return np.broadcast_to(row[None, :, None], (*SIZE, 3)).copy()


def seen(frame: np.ndarray) -> tuple[int, int]:
    """(number, view) of a picture."""
    levels = frame.astype(float).mean(axis=(0, 2)).reshape(BITS, BLOCK)[:, 2:6].mean(axis=1)
    assert (np.abs(levels - 127.5) > 60).all() and levels[-1] > 200, levels
    code = sum(int(level > 127) << bit for bit, level in enumerate(levels))
    return code & 511, code >> 9 & 3


def make(version: str, lengths: Sequence[int], spread: int = 1) -> Dataset:
    """A sound dataset. spread: data files, and films a view, over which v3.0 puts its episodes."""
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": [width]} for name, width in WIDTHS.items()
    }
    features |= {key: {"dtype": "video", "shape": [*SIZE, 3]} for key in KEYS}
    info = {
        "codebase_version": version,
        "fps": FPS,
        "chunks_size": 1000,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": DATA[version],
        "video_path": VIDEO[version],
        "features": features,
    }
    made = Dataset(version=version, info=info)
    made.tasks = [{"task_index": n, "task": f"do {n}"} for n in range(len(lengths))]
    begun: dict[int, int] = {}
    for n, rows in enumerate(lengths):
        file = n % spread
        at = begun.get(file, 0)
        begun[file] = at + rows
        first = sum(lengths[:n])
        places = {"episode_chunk": 0, "episode_index": n, "chunk_index": 0, "file_index": file}
        entry: dict[str, Any] = {"episode_index": n, "tasks": [f"do {n}"], "length": rows}
        if version == "v3.0":
            entry |= {"data/chunk_index": 0, "data/file_index": file}
            entry |= {"dataset_from_index": first, "dataset_to_index": first + rows}
        table = made.tables.setdefault(DATA[version].format(**places), {})
        for name, values in _columns(n, rows, first).items():
            table.setdefault(name, []).extend(values)
        for view, key in enumerate(KEYS):
            path = VIDEO[version].format(video_key=key, **places)
            film = made.films.setdefault(path, Film(view, [], []))
            start = at / FPS if version == "v3.0" else 0.0
            film.pictures += range(first, first + rows)
            film.times += [start + k / FPS for k in range(rows)]
            if version == "v3.0":
                entry[f"videos/{key}/chunk_index"] = 0
                entry[f"videos/{key}/file_index"] = file
                entry[f"videos/{key}/from_timestamp"] = start
                entry[f"videos/{key}/to_timestamp"] = start + rows / FPS
        made.entries.append(entry)
    return made


def _columns(episode: int, rows: int, first: int) -> dict[str, list[Any]]:
    """State numbers are those of the pictures, over a thousand."""
    numbers = (first + np.arange(rows)) / 1000
    columns: dict[str, list[Any]] = {
        name: np.repeat(numbers[:, None] + place, width, axis=1).tolist()
        for place, (name, width) in enumerate(WIDTHS.items())
    }
    columns["observation.state.gripper_position"] = numbers.tolist()
    columns[SUCCESS] = [episode % 2 == 0] * rows
    columns["timestamp"] = [k / FPS for k in range(rows)]
    columns["frame_index"] = list(range(rows))
    columns["episode_index"] = [episode] * rows
    columns["index"] = list(range(first, first + rows))
    columns["task_index"] = [episode] * rows
    return columns


def write(made: Dataset, root: Path) -> None:
    """Put a dataset on the disk as it is now."""
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(made.info))
    if made.version == "v3.0":
        names = dict.fromkeys(name for entry in made.entries for name in entry)
        _write_table(
            root / "meta/episodes/chunk-000/file-000.parquet",
            {name: [entry.get(name) for entry in made.entries] for name in names},
        )
        if made.tasks:
            columns = {k: [task[k] for task in made.tasks] for k in ("task_index", "task")}
            _write_table(root / "meta/tasks.parquet", columns)
    else:
        for name, rows in (("episodes", made.entries), ("tasks", made.tasks)):
            if rows:
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                (root / f"meta/{name}.jsonl").write_text(lines)
    for path, table in made.tables.items():
        _write_table(root / path, table)
    for path, film in made.films.items():
        write_film(root / path, film)


def _write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # a column has one type: text takes all
            arrays[name] = pa.array([None if v is None else str(v) for v in values])
    pq.write_table(pa.table(arrays), path)


def write_film(path: Path, film: Film) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"video_track_timescale": str(TICKS), "use_editlist": "1"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        coding = {"crf": "12", "preset": "ultrafast", "bf": "0", "threads": "1"}
        stream = container.add_stream("libx264", rate=FPS, options=coding)
        stream.height, stream.width = SIZE[::-1] if film.turned else SIZE
        stream.pix_fmt, stream.gop_size = "yuv420p", 5
        stream.codec_context.time_base = Fraction(1, TICKS)
        for number, time in zip(film.pictures, film.times, strict=True):
            pixels = picture(number, film.view)
            pixels = np.rot90(pixels) if film.turned else pixels
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = converted(frame, format="yuv420p")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if film.turned:  # as a camera on its side does: the matrix by which players set it upright
        data = bytearray(path.read_bytes())
        at = data.find(b"tkhd") + 4 + 40
        data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
