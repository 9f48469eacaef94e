"""Makes LeRobot datasets of any robot, as LeRobot itself lays them out, with real H.264.

Each picture carries its number and its view (``lerobot_made.picture``), and the action of row k is
a known function of k, so that what a reader brings together can be checked to the frame. Or it
shows arms that move as they are commanded, from which a world model can learn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.readers.lerobot_made import DATA, VIDEO, picture

SO101_JOINTS = tuple(
    f"{joint}.pos"
    for joint in (
        "shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper",
    )
)  # fmt: skip
ALOHA_JOINTS = tuple(
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in (
        "waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper",
    )
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Made:
    """A kind of dataset. names: as ``info.json`` has them, of any form."""

    robot_type: str
    joints: tuple[str, ...]
    views: tuple[str, ...]
    fps: int
    size: tuple[int, int] = (480, 640)
    names: Any = None


SO101 = Made(robot_type="so101_follower", joints=SO101_JOINTS, views=("front", "wrist"), fps=30)
ALOHA = Made(
    robot_type="aloha",
    joints=ALOHA_JOINTS,
    views=("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"),
    fps=50,
    names={"motors": list(ALOHA_JOINTS)},
)
TASKS = ("push the cube to the left", "push the cube to the right")


def actions_of(kind: Made, episode: float, rows: int) -> np.ndarray:
    """(N, A) float32: each joint swings by its own rate; no two rows are the same."""
    angles = np.arange(rows)[:, None] / kind.fps * (1 + np.arange(len(kind.joints))) + episode
    return (40 * np.sin(angles) + np.arange(len(kind.joints))).astype(np.float32)


def states_of(kind: Made, episode: float, rows: int) -> np.ndarray:
    """(N, A) float32: a little behind what is commanded."""
    return (0.98 * actions_of(kind, episode, rows) - 0.25).astype(np.float32)


def arm_picture(kind: Made, view: int, action: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: arms as chains of links that turn with their joints, seen from two sides.

    Each arm is the first three of its joints in a plane, its next two move the colour of the hand,
    and the last one opens it.
    """
    height, width = kind.size
    image = np.full((height, width, 3), (40, 44, 52), np.uint8)
    cv2.rectangle(image, (0, int(0.85 * height)), (width, height), (92, 78, 60), -1)
    arms = np.split(action, len(action) // 7 if len(action) > 7 else 1)
    for number, arm in enumerate(arms):
        place = np.array([width * (number + 1) / (len(arms) + 1), 0.85 * height])
        turn, sense = -np.pi / 2, 1 if view % 2 == 0 else -1
        for link, joint in enumerate(arm[:3]):
            turn += sense * 0.02 * float(joint)
            length = height * (0.30, 0.24, 0.16)[link]
            ahead = place + length * np.array([np.cos(turn), np.sin(turn)])
            ends = [tuple(int(x) for x in end) for end in (place, ahead)]
            colour = ((210, 90, 60), (80, 170, 90), (90, 120, 220))[link]
            cv2.line(image, *ends, colour, height // 16, cv2.LINE_AA)
            place = ahead
        shade = [int(np.clip(150 + 2 * float(joint), 0, 255)) for joint in arm[3:5]]
        radius = int(height * np.clip(0.06 + 0.0008 * float(arm[-1]), 0.02, 0.1))
        at = tuple(int(x) for x in place)
        cv2.circle(image, at, radius, (*shade, 230), -1, cv2.LINE_AA)
    return image


def make_robot_dataset(
    root: Path,
    kind: Made,
    version: str,
    lengths: Sequence[int],
    *,
    statistics: bool = True,
    moving: bool = False,
    first_phase: float = 0.0,
) -> Path:
    """A dataset of ``lengths`` rows an episode; tasks take turns.

    moving: pictures show arms that move as they are commanded (``arm_picture``) instead of numbers.
    first_phase: where the first episode begins to swing; a dataset of other phases has no motion in
    common with this one.
    """
    names = list(kind.joints) if kind.names is None else kind.names
    column = {"dtype": "float32", "shape": [len(kind.joints)], "names": names}
    features: dict[str, Any] = {"action": column, "observation.state": column}
    keys = [f"observation.images.{view}" for view in kind.views]
    for key in keys:
        features[key] = {
            "dtype": "video",
            "shape": [*kind.size, 3],
            "names": ["height", "width", "channels"],
        }
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    features["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": version, "robot_type": kind.robot_type, "fps": kind.fps,
        "total_episodes": len(lengths), "total_frames": sum(lengths), "chunks_size": 1000,
        "splits": {"train": f"0:{len(lengths)}"}, "data_path": DATA[version],
        "video_path": VIDEO[version], "features": features,
    }  # fmt: skip
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    entries, tables, films, first = [], {}, {}, 0
    for n, rows in enumerate(lengths):
        places = {"episode_chunk": 0, "episode_index": n, "chunk_index": 0, "file_index": 0}
        entry: dict[str, Any] = {
            "episode_index": n, "tasks": [TASKS[n % 2]], "length": rows,
            "data/chunk_index": 0, "data/file_index": 0,
            "dataset_from_index": first, "dataset_to_index": first + rows,
        }  # fmt: skip
        table = pa.table(
            {
                "action": list(actions_of(kind, first_phase + n, rows)),
                "observation.state": list(states_of(kind, first_phase + n, rows)),
                "timestamp": pa.array(np.arange(rows, dtype=np.float32) / np.float32(kind.fps)),
                "frame_index": np.arange(rows),
                "episode_index": np.full(rows, n),
                "index": np.arange(first, first + rows),
                "task_index": np.full(rows, n % 2),
                # Two solved, two not, and so on, so that both tasks have both; solved at the end.
                "next.success": (np.arange(rows) == rows - 1) & (n % 4 < 2),
            }
        )
        tables.setdefault(DATA[version].format(**places), []).append(table)
        for view, key in enumerate(keys):
            film = films.setdefault(VIDEO[version].format(video_key=key, **places), (view, []))
            start = len(film[1]) / kind.fps
            film[1].extend(range(first, first + rows))
            entry |= {
                f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": 0,
                f"videos/{key}/from_timestamp": start,
                f"videos/{key}/to_timestamp": start + rows / kind.fps,
            }  # fmt: skip
        entries.append(entry)
        first += rows
    for path, parts in tables.items():
        _write_table(root / path, pa.concat_tables(parts))
    for path, (view, numbers) in films.items():
        if moving:
            shown = np.concatenate(
                [actions_of(kind, first_phase + n, rows) for n, rows in enumerate(lengths)]
            )
            pictures = (arm_picture(kind, view, shown[number]) for number in numbers)
        else:
            pictures = (_enlarged(kind, picture(number, view)) for number in numbers)
        _write_film(root / path, kind, pictures)
    _write_meta(root, version, entries)
    if statistics:
        _write_statistics(root, kind, version, lengths, first_phase)
    return root


def _write_meta(root: Path, version: str, entries: list[dict[str, Any]]) -> None:
    tasks = [{"task_index": n, "task": text} for n, text in enumerate(TASKS)]
    if version == "v3.0":
        _write_table(
            root / "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(entries)
        )
        _write_table(root / "meta/tasks.parquet", pa.Table.from_pylist(tasks))
        return
    for name, rows in (("episodes", entries), ("tasks", tasks)):
        short = [{k: v for k, v in row.items() if "/" not in k} for row in rows]
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in short))


def _write_statistics(
    root: Path, kind: Made, version: str, lengths: Sequence[int], first_phase: float
) -> None:
    """Of the whole dataset in v3.0, of each episode in v2.1."""
    each = []
    for n, rows in enumerate(lengths):
        values = {
            "action": actions_of(kind, first_phase + n, rows),
            "observation.state": states_of(kind, first_phase + n, rows),
        }
        each.append({k: (v.min(0).tolist(), v.max(0).tolist()) for k, v in values.items()})
    if version != "v3.0":
        lines = [
            {"episode_index": n, "stats": {k: {"min": v[0], "max": v[1]} for k, v in part.items()}}
            for n, part in enumerate(each)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / "meta/episodes_stats.jsonl").write_text(text)
        return
    whole = {
        name: {
            "min": np.min([part[name][0] for part in each], axis=0).tolist(),
            "max": np.max([part[name][1] for part in each], axis=0).tolist(),
        }
        for name in each[0]
    }
    (root / "meta/stats.json").write_text(json.dumps(whole))


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _enlarged(kind: Made, pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, kind.size[::-1], interpolation=cv2.INTER_NEAREST)


def _write_film(path: Path, kind: Made, pictures: Iterable[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = kind.size
    with av.open(str(path), "w", format="mp4") as container:
        coding = {"crf": "20", "preset": "ultrafast", "bf": "0", "threads": "1"}
        stream = container.add_stream("libx264", rate=kind.fps, options=coding)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", 5
        stream.codec_context.time_base = Fraction(1, kind.fps)
        for place, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, kind.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":  # python -m tests.data.readers.robot_made so101 FOLDER: for benchmarks
    kinds = {"so101": SO101, "aloha": ALOHA}
    made, place = kinds[sys.argv[1]], Path(sys.argv[2])
    rows = 4 * made.fps + 1
    make_robot_dataset(place / "training", made, "v3.0", (rows,) * 16, moving=True)
    other = {"moving": True, "first_phase": 0.5}
    make_robot_dataset(place / "validation", made, "v3.0", (rows,) * 4, **other)
