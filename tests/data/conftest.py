"""Small episodes and stores for the tests of this room."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import encode_png, write_mp4
from worldeval.types import Episode

VIEWS = ("left", "wrist")
LAYOUT: dict[str, Any] = {
    "views": VIEWS,
    "image_size": (16, 24),
    "pose_names": ("x", "y", "gripper"),
    "action_names": ("dx", "dy", "gripper"),
    "steps_per_frame": 2,
    "fps": 10,
    "robot_type": "toy",
}


def make_episode(number: int, length: int = 5, **changes: Any) -> Episode:
    """An episode that differs from all others in every array."""
    rng = np.random.default_rng(number)
    # Blocks of 8 px: sharp pictures that H.264 keeps recognisable.
    blocks = rng.integers(0, 256, (length, 2, 2, 3, 3), np.uint8)
    fields: dict[str, Any] = {
        "key": f"episode-{number}",
        "task": "push",
        "instruction": f"push the block {number % 2}",
        "views": VIEWS,
        "frames": blocks.repeat(8, axis=2).repeat(8, axis=3),
        "poses": rng.normal(size=(length, 3)).astype(np.float32),
        "actions": rng.normal(size=(length - 1, 2, 3)).astype(np.float32),
        "success_at": rng.random(length) > 0.5,
        "success": [True, False, None][number % 3],
        "extra": {"seed": number, "policy": "expert"},
    }
    return Episode(**(fields | changes))


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    """Syncs guard against power cuts, which no test can make, and are slow on a busy disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def episode() -> Callable[..., Episode]:
    return make_episode


@pytest.fixture
def layout() -> dict[str, Any]:
    return dict(LAYOUT)


@pytest.fixture(params=["lossless", "video"])
def store(tmp_path, request) -> EpisodeStore:
    return EpisodeStore.create(tmp_path / "store", images=request.param, **LAYOUT)


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Equal in all but frames, which are equal too unless ``lossy``."""

    def check(one: Episode, other: Episode, lossy: bool = False) -> None:
        for name in ("key", "task", "instruction", "views", "success", "extra"):
            assert getattr(one, name) == getattr(other, name), name
        for name in ("poses", "actions", "success_at", "expert_actions"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert (mine is None) == (theirs is None), name
            if mine is not None:
                assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), name
        assert one.frames.dtype == np.uint8 and one.frames.shape == other.frames.shape
        error = np.abs(one.frames.astype(int) - other.frames).mean()
        assert error == 0 or (lossy and error < 40), error

    return check


DROID = Path(__file__).parents[3] / "shared" / "droid"


@pytest.fixture
def droid() -> Path:
    """Real episodes that lie beside the checkout of whoever develops worldeval."""
    if not (DROID / "annotation").is_dir():
        pytest.skip(f"no recorded DROID episodes at {DROID}")
    return DROID


def motion(rows: int, seed: int) -> SimpleNamespace:
    """A made-up recording at 15 Hz: smooth, of six plus one plus seven numbers, roll across pi."""
    time = np.arange(rows)[:, None] / 15.0
    phase = np.random.default_rng(seed).uniform(0, 6, 14)
    wave = 0.3 * np.sin(time + phase)  # (rows, 14)
    cartesian = wave[:, :6] + [0.5, 0.0, 0.4, 3.1, 0.0, 0.0]
    cartesian[:, 3] = (cartesian[:, 3] + np.pi) % (2 * np.pi) - np.pi
    return SimpleNamespace(
        cartesian=cartesian,
        gripper=np.linspace(0, 1, rows),
        joints=wave[:, 7:] + [0, -0.5, 0, -2, 0, 1.5, 0],
        velocity=np.tile(np.arange(7) / 10, (rows, 1)),
    )


def footage(rows: int, view: int, size: tuple[int, int]) -> np.ndarray:
    """Flat frames whose brightness counts the rows of 15 Hz; each view has a tint of its own."""
    frames = np.zeros((rows, *size, 3), np.uint8)
    frames[...] = (40 + 4 * np.arange(rows))[:, None, None, None]
    frames[..., view] += 60
    return frames


@pytest.fixture
def row_of() -> Callable[[np.ndarray], np.ndarray]:
    """The rows of 15 Hz that frames (T, V, H, W, 3) of ``footage`` show, (T, V)."""

    def decode(frames: np.ndarray) -> np.ndarray:
        levels = frames.astype(float).mean(axis=(2, 3))  # (T, V, 3)
        return np.stack(
            [(levels[:, v, (v + 1) % 3] - 40) / 4 for v in range(levels.shape[1])], axis=1
        )

    return decode


@pytest.fixture
def record_ctrl_world(tmp_path) -> Callable[..., Path]:
    """Writes one episode in the layout of Ctrl-World: ``record(id, frames=7, ...)`` -> its root."""

    def record(
        identity: str,
        frames: int = 7,
        *,
        split: str = "train",
        second: bool = False,
        latents: bool = True,
        video_hz: int = 5,
        size: tuple[int, int] = (18, 32),
        **changes: Any,
    ) -> Path:
        root = tmp_path / "raw"
        rows = 3 * frames - 1
        recording = motion(rows, seed=sum(identity.encode()))
        states = np.concatenate([recording.cartesian, recording.gripper[:, None]], 1)[::3]
        notes: dict[str, Any] = {
            "texts": [f"do {identity}"],
            "success": 1,
            "video_length": frames,
            "states": states.tolist(),
        }
        if second:
            del notes["success"]
            joints = np.concatenate([recording.joints, recording.gripper[:, None]], 1)[::3]
            notes["joints"] = joints.tolist()
        else:
            notes |= {
                "observation.state.cartesian_position": recording.cartesian.tolist(),
                "observation.state.joint_position": recording.joints.tolist(),
                "observation.state.gripper_position": recording.gripper.tolist(),
                "action.joint_velocity": recording.velocity.tolist(),
            }
        notes |= changes
        for folder in ("annotation", "videos", "latent_videos"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        (root / "annotation" / split / f"{identity}.json").write_text(json.dumps(notes))
        for view in range(3):
            seen = footage(rows, view, size)
            path = root / "videos" / split / identity / f"{view}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_mp4(path, seen[:: 15 // video_hz], video_hz)
        if latents and not second:
            import torch

            for view in range(3):
                path = root / "latent_videos" / split / identity / f"{view}.pt"
                path.parent.mkdir(exist_ok=True)
                torch.save(torch.full((frames, 4, 3, 4), float(view + 1)), path)
        return root

    return record


@pytest.fixture
def record_lerobot(tmp_path) -> Callable[..., Path]:
    """Writes DROID as a LeRobot dataset: ``record("v3.0", lengths=(20, 23))`` -> its root."""

    def record(
        version: str,
        lengths: tuple[int, ...] = (20, 23),
        *,
        views: tuple[str, str, str] = (
            "observation.images.exterior_1_left",
            "observation.images.exterior_2_left",
            "observation.images.wrist_left",
        ),
        spelling: str = "droid_1_0_1",
        images: bool = False,
        fps: float = 15,
        size: tuple[int, int] = (18, 32),
    ) -> Path:
        root = tmp_path / f"lerobot-{version}"
        recordings = [motion(rows, seed=number) for number, rows in enumerate(lengths)]
        tables, shapes = [], {}
        for number, (rows, recording) in enumerate(zip(lengths, recordings, strict=True)):
            grip = recording.gripper[:, None]
            arrays = {
                "observation.state.cartesian_position": recording.cartesian,
                "observation.state.joint_position": recording.joints,
                "observation.state.gripper_position": grip,
                **{
                    f"action.{name}": np.full((rows, width), number, float)
                    for name, width in (
                        ("joint_position", 7),
                        ("cartesian_position", 6),
                        ("cartesian_velocity", 6),
                        ("gripper_position", 1),
                        ("gripper_velocity", 1),
                    )
                },
                "action.joint_velocity": recording.velocity,
            }
            if spelling == "droid_100":
                arrays = {"observation.state": np.concatenate([recording.joints, grip], 1)}
            if spelling == "droid_openpi":
                arrays = {
                    "joint_position": recording.joints,
                    "gripper_position": grip,
                    "actions": np.concatenate([recording.velocity, grip], 1),
                }
            columns = {name: pa.array(list(a.astype(np.float32))) for name, a in arrays.items()}
            columns["episode_index"] = pa.array([number] * rows, pa.int64())
            if spelling == "droid_1_0_1":
                columns["language_instruction_2"] = pa.array([f"again {number}"] * rows)
                columns["is_episode_successful"] = pa.array([number % 2 == 0] * rows)
            if images:
                for place, name in enumerate(views):
                    pngs = [encode_png(frame) for frame in footage(rows, place, size)]
                    columns[name] = pa.array([{"bytes": png, "path": None} for png in pngs])
            tables.append(pa.table(columns))
            shapes = {name: {"shape": [a.shape[1]]} for name, a in arrays.items()}
        kind = {"dtype": "image" if images else "video", "shape": [*size, 3]}
        info = {
            "codebase_version": version,
            "fps": fps,
            "chunks_size": 1000,
            "splits": {"train": f"0:{len(lengths)}"},
            "features": {**shapes, **{name: kind for name in views}},
        }
        (root / "meta").mkdir(parents=True)
        rows_of = [
            {"episode_index": n, "tasks": [f"task {n}"], "length": rows}
            for n, rows in enumerate(lengths)
        ]
        if version == "v3.0":
            info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
            info["video_path"] = (
                "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
            )
            (root / "data/chunk-000").mkdir(parents=True)
            pq.write_table(pa.concat_tables(tables), root / "data/chunk-000/file-000.parquet")
            starts = np.concatenate([[0], np.cumsum(lengths)])
            for row, start in zip(rows_of, starts, strict=False):
                row |= {"data/chunk_index": 0, "data/file_index": 0}
                for name in views:
                    row |= {f"videos/{name}/chunk_index": 0, f"videos/{name}/file_index": 0}
                    row[f"videos/{name}/from_timestamp"] = float(start / fps)
            (root / "meta/episodes/chunk-000").mkdir(parents=True)
            path = root / "meta/episodes/chunk-000/file-000.parquet"
            pq.write_table(pa.Table.from_pylist(rows_of), path)
            for place, name in enumerate(views if not images else ()):
                path = root / f"videos/{name}/chunk-000/file-000.mp4"
                path.parent.mkdir(parents=True)
                parts = [footage(rows, place, size) for rows in lengths]
                write_mp4(path, np.concatenate(parts), fps)
        else:
            info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
            info["video_path"] = (
                "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
            )
            (root / "data/chunk-000").mkdir(parents=True)
            for number, table in enumerate(tables):
                pq.write_table(table, root / f"data/chunk-000/episode_{number:06d}.parquet")
                for place, name in enumerate(views if not images else ()):
                    path = root / f"videos/chunk-000/{name}/episode_{number:06d}.mp4"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_mp4(path, footage(lengths[number], place, size), fps)
            lines = "".join(json.dumps(row) + "\n" for row in rows_of)
            (root / "meta/episodes.jsonl").write_text(lines)
        (root / "meta/info.json").write_text(json.dumps(info))
        return root

    return record
