"""One episode as rows of the data parquet, and back.

Row t holds frame t, pose t, the world's flag at frame t, and the control steps that lead to frame
t+1. The last row has no such steps: it repeats standing still (zeros, with the last gripper
command), because LeRobot wants an action in every row; reading drops it again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data.store import statistics
from worldeval.data.store.coding import CodedViews
from worldeval.data.store.layout import ACTION, EXPERT, JOINTS, STATE, SUCCESS, StoreLayout
from worldeval.data.video import decode_png, encode_png
from worldeval.errors import DataError
from worldeval.types import Episode


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """An episode without its frames; the shapes are those of ``worldeval.types.Episode``."""

    poses: np.ndarray
    actions: np.ndarray
    success_at: np.ndarray
    expert_actions: np.ndarray | None
    joints: np.ndarray | None = None


def encode(
    layout: StoreLayout,
    episode: Episode,
    *,
    index: int,
    first_row: int,
    task_index: int,
    coded: CodedViews | None = None,
) -> tuple[pa.Table, dict[str, dict[str, np.ndarray]]]:
    """The rows of an episode and the statistics of each feature.

    index: of the episode. first_row: index of its first row in the whole dataset.
    coded: its frames, where they were coded and measured elsewhere.
    """
    length = episode.length
    rows = np.arange(length, dtype=np.int64)
    flags = np.zeros(length, bool) if episode.success_at is None else episode.success_at
    values: dict[str, np.ndarray] = {
        STATE: np.asarray(episode.poses, np.float32),
        ACTION: _with_standstill(episode.actions),
        SUCCESS: np.asarray(flags, bool),
        "timestamp": (rows / layout.fps).astype(np.float32),
        "frame_index": rows,
        "episode_index": np.full(length, index, np.int64),
        "index": first_row + rows,
        "task_index": np.full(length, task_index, np.int64),
    }
    if episode.expert_actions is not None:
        values[EXPERT] = _with_standstill(episode.expert_actions)
    if episode.joints is not None:
        values[JOINTS] = np.asarray(episode.joints, np.float32)
    measured = {name: statistics.of_values(value) for name, value in values.items()}
    schema = layout.data_schema()
    columns: dict[str, pa.Array] = {
        name: _column(schema.field(name).type, value) for name, value in values.items()
    }
    for number, key in enumerate(layout.image_keys):
        frames = episode.frames[:, number]
        measured[key] = coded.statistics[number] if coded else statistics.of_frames(frames)
        if layout.images == "lossless":
            pngs = pa.array([encode_png(frame) for frame in frames], pa.binary())
            names = pa.array([f"frame-{row:06d}.png" for row in rows], pa.string())
            columns[key] = pa.StructArray.from_arrays([pngs, names], names=["bytes", "path"])
    return pa.table([columns[name] for name in schema.names], schema=schema), measured


def write_parquet(
    tables: Iterable[pa.Table], path: Path, *, schema: pa.Schema, metadata: Mapping[str, str]
) -> None:
    """One row group a table; images are compressed already, so only the rest is."""
    with pq.ParquetWriter(path, schema, **parquet_options(schema)) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=len(table))
        writer.add_key_value_metadata(dict(metadata))


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Checksums let a flipped bit be told from a strange picture."""
    images = {field.name for field in schema if pa.types.is_struct(field.type)}
    leaves = [part for name in images for part in (f"{name}.bytes", f"{name}.path")]
    plain = [name for name in schema.names if name not in images]
    compression = {name: "snappy" for name in plain} | {leaf: "none" for leaf in leaves}
    return {
        "compression": compression,
        "use_dictionary": False,
        "write_statistics": plain,
        "write_page_checksum": True,
    }


def trajectory(layout: StoreLayout, table: pa.Table) -> Trajectory:
    """Poses and control steps from the rows of one episode."""
    steps = (len(table) - 1, layout.steps_per_frame, len(layout.action_names))
    return Trajectory(
        poses=numbers(table, STATE).reshape(len(table), layout.pose_dim),
        actions=numbers(table, ACTION).reshape(len(table), -1)[:-1].reshape(steps),
        success_at=numbers(table, SUCCESS),
        expert_actions=numbers(table, EXPERT).reshape(len(table), -1)[:-1].reshape(steps)
        if layout.expert_actions
        else None,
        joints=numbers(table, JOINTS).reshape(len(table), len(layout.joint_names))
        if layout.joint_names
        else None,
    )


def trajectory_columns(layout: StoreLayout) -> list[str]:
    """The columns that ``trajectory`` needs."""
    optional = {EXPERT: layout.expert_actions, JOINTS: bool(layout.joint_names)}
    return [STATE, ACTION, SUCCESS, *(name for name, there in optional.items() if there)]


def images(
    layout: StoreLayout, table: pa.Table, views: Sequence[str], times: np.ndarray
) -> np.ndarray:
    """Frames (T, V, H, W, 3) of ``views`` at the rows ``times`` out of PNG columns."""
    frames = np.empty((len(times), len(views), *layout.image_size, 3), np.uint8)
    for number, view in enumerate(views):
        pngs = table.column(layout.image_key(view)).combine_chunks().field("bytes")
        for place, time in enumerate(times):
            png = pngs[int(time)].as_py() or b""
            # A PNG says its size in front: it is asked before room is made for it.
            size = struct.unpack(">II", png[16:24])[::-1] if len(png) >= 24 else layout.image_size
            frame = decode_png(png) if size == layout.image_size else None
            if frame is None or frame.shape != frames.shape[2:]:
                raise DataError(
                    f"an image of view {view!r} is {size[0]}x{size[1]} px, expected "
                    f"{layout.image_size[0]}x{layout.image_size[1]}; it was not written by this "
                    "store"
                )
            frames[place, number] = frame
    return frames


def _with_standstill(actions: np.ndarray) -> np.ndarray:
    """(T, S, A) -> (T + 1, S * A)."""
    steps = np.asarray(actions, np.float32)
    still = np.zeros_like(steps, shape=(1, *steps.shape[1:]))
    if len(steps):
        still[0, :, -1] = steps[-1, -1, -1]
    return np.concatenate([steps, still]).reshape(len(steps) + 1, -1)


def _column(kind: pa.DataType, values: np.ndarray) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(values.ravel(), kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind.value_type), type=kind)


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """All numbers of a column, flat."""
    column = table.column(name).combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    return np.array(column.to_numpy(zero_copy_only=False))  # a copy: parquet buffers are read-only
