"""The layout of a LeRobotDataset v3.0 as ``EpisodeStore`` writes it: names, features, schemas.

Enters: what a store holds (``StoreLayout``). Leaves: ``info.json``, parquet schemas and paths as
LeRobot 0.4 and later read them (facts read in lerobot's ``datasets/utils.py``). Columns that
LeRobot does not know are allowed in the episodes parquet only; ours begin with ``worldeval.``.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from worldeval.errors import ConfigError, DataError, MismatchError, StoreError
from worldeval.types import Episode

CODEBASE_VERSION = "v3.0"
FORMAT = "worldeval-store-1"
FILES_PER_CHUNK = 1000
# Far beyond any robot: what lies above is damage, and would be allocated before it is noticed.
MOST_NAMES, MOST_VIEWS, MOST_STEPS, MOST_SIDE, MOST_FPS = 1024, 64, 1000, 16384, 10_000
MOST_ACTIONS, MOST_PX = 16384, 2**27
DATA_FILES_SIZE_IN_MB = 100
VIDEO_FILES_SIZE_IN_MB = 200
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
STATE, ACTION, EXPERT, SUCCESS = "observation.state", "action", "action.expert", "success"
JOINTS = "observation.state.joint_position"
STATISTICS = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
_COUNTERS = ("frame_index", "episode_index", "index", "task_index")
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def chunk_and_file(slot: int) -> tuple[int, int]:
    """The slot-th file is this (chunk, file)."""
    return divmod(slot, FILES_PER_CHUNK)


def data_path(chunk: int, file: int) -> str:
    return f"data/chunk-{chunk:03d}/file-{file:03d}.parquet"


def video_path(key: str, chunk: int, file: int) -> str:
    return f"videos/{key}/chunk-{chunk:03d}/file-{file:03d}.mp4"


def episodes_path(chunk: int, file: int) -> str:
    return f"meta/episodes/chunk-{chunk:03d}/file-{file:03d}.parquet"


@dataclass(frozen=True, kw_only=True)
class StoreLayout:
    """What every episode of a store has in common.

    image_size: (H, W) in px. fps: frames, not control steps, a second.
    images: "lossless" keeps PNG bytes in the data parquet, "video" H.264 beside it.
    expert_actions: whether episodes also carry what an expert would have done.
    joint_names: joints whose positions episodes also carry; () for none.
    """

    views: tuple[str, ...]
    image_size: tuple[int, int]
    pose_names: tuple[str, ...]
    action_names: tuple[str, ...]
    steps_per_frame: int
    fps: float
    robot_type: str
    images: str = "video"
    expert_actions: bool = False
    joint_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("views", "pose_names", "action_names", "joint_names"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        size = self.image_size
        whole = isinstance(size, Sequence) and all(_is_whole(side) for side in size)
        if not whole or len(size) != 2 or not all(1 <= side <= MOST_SIDE for side in size):
            raise ConfigError(
                f"image_size is {_short(size)}, expected (height, width) in px, at most {MOST_SIDE}"
            )
        object.__setattr__(self, "image_size", tuple(int(side) for side in size))
        if self.images not in ("video", "lossless"):
            raise ConfigError(f"images is {self.images!r}, expected 'video' or 'lossless'")
        if not self.views or len(set(self.views)) < len(self.views):
            raise ConfigError(
                f"views are {_short(self.views)}, expected one or more different names"
            )
        if len(self.views) > MOST_VIEWS:
            raise ConfigError(f"there are {len(self.views)} views, expected at most {MOST_VIEWS}")
        for view in self.views:  # a view becomes a folder and part of a column's name
            if not view.replace("_", "").replace("-", "").isalnum():
                raise ConfigError(
                    f"view {view!r}: use letters, digits, '_' and '-' only; of a dataset, give the "
                    "camera another name in the robot's file, and say by a key map what it is "
                    'called there (--key-map FILE: {"views": {"NAME": "' + view + '"}})'
                )
        if not self.pose_names or not self.action_names:
            raise ConfigError("pose_names and action_names need at least one name each")
        if self.images == "video" and any(side % 2 for side in self.image_size):
            raise ConfigError(
                f"image_size is {self.image_size!r}: H.264 needs even sizes; use even ones or "
                "images='lossless'"
            )
        if not _is_whole(self.steps_per_frame) or not 1 <= self.steps_per_frame <= MOST_STEPS:
            raise ConfigError(
                f"steps_per_frame is {_short(self.steps_per_frame)}, expected a whole number, 1 to "
                f"{MOST_STEPS}"
            )
        if not isinstance(self.fps, numbers.Real) or not 0 < self.fps <= MOST_FPS:
            raise ConfigError(
                f"fps is {_short(self.fps)}, expected a positive number, at most {MOST_FPS}"
            )
        for what, count, most in (
            (
                "action numbers per frame",
                self.steps_per_frame * len(self.action_names),
                MOST_ACTIONS,
            ),
            (
                "pixels per frame",
                len(self.views) * self.image_size[0] * self.image_size[1],
                MOST_PX,
            ),
        ):
            if count > most:
                raise ConfigError(f"there are {count} {what}, expected at most {most}")
        if not isinstance(self.robot_type, str) or not isinstance(self.expert_actions, bool):
            raise ConfigError(
                f"robot_type is {_short(self.robot_type)} and expert_actions "
                f"{_short(self.expert_actions)}, expected a name and true or false"
            )
        if self.fps == int(self.fps):  # LeRobot's own datasets have whole numbers
            object.__setattr__(self, "fps", int(self.fps))

    @property
    def pose_dim(self) -> int:
        return len(self.pose_names)

    def image_key(self, view: str) -> str:
        return f"observation.images.{view}"

    @property
    def image_keys(self) -> tuple[str, ...]:
        return tuple(self.image_key(view) for view in self.views)

    @property
    def video_keys(self) -> tuple[str, ...]:
        return self.image_keys if self.images == "video" else ()

    def features(self) -> dict[str, dict[str, Any]]:
        """The ``features`` of ``info.json``, in the order of the columns."""
        height, width = self.image_size
        steps = range(self.steps_per_frame)
        action_names = [f"{name}.{step}" for step in steps for name in self.action_names]
        features: dict[str, dict[str, Any]] = {
            STATE: _vector("float32", self.pose_names),
            ACTION: _vector("float32", action_names),
        }
        if self.expert_actions:
            features[EXPERT] = _vector("float32", action_names)
        if self.joint_names:
            features[JOINTS] = _vector("float32", self.joint_names)
        features[SUCCESS] = _vector("bool", None)
        for key in self.image_keys:
            features[key] = {
                "dtype": "video" if self.images == "video" else "image",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
            }
            if self.images == "video":
                features[key]["info"] = {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "h264",
                    "video.pix_fmt": "yuv420p",
                    "video.fps": self.fps,
                    "video.channels": 3,
                    "video.is_depth_map": False,
                    "has_audio": False,
                }
        features["timestamp"] = _vector("float32", None)
        features |= {name: _vector("int64", None) for name in _COUNTERS}
        return features

    def data_schema(self) -> pa.Schema:
        """Columns of the data parquet: every feature that is not video."""
        return _data_schema(self)

    def episodes_schema(self, *, checksums: bool = True) -> pa.Schema:
        """Columns of the episodes parquet, equal in all its files (readers concatenate them).

        checksums: False for stores that were begun before there were any.
        """
        columns: list[tuple[str, pa.DataType]] = [
            ("episode_index", pa.int64()),
            ("tasks", pa.list_(pa.string())),
            ("length", pa.int64()),
            ("data/chunk_index", pa.int64()),
            ("data/file_index", pa.int64()),
            ("dataset_from_index", pa.int64()),
            ("dataset_to_index", pa.int64()),
        ]
        for key in self.video_keys:
            columns += [
                (f"videos/{key}/chunk_index", pa.int64()),
                (f"videos/{key}/file_index", pa.int64()),
                (f"videos/{key}/from_timestamp", pa.float64()),
                (f"videos/{key}/to_timestamp", pa.float64()),
            ]
        for name in self.features():
            numbers: pa.DataType = pa.list_(pa.float64())
            if name in self.image_keys:
                numbers = pa.list_(pa.list_(numbers))
            columns += [
                (
                    f"stats/{name}/{statistic}",
                    pa.list_(pa.int64()) if statistic == "count" else numbers,
                )
                for statistic in STATISTICS
            ]
        columns += [
            ("meta/episodes/chunk_index", pa.int64()),
            ("meta/episodes/file_index", pa.int64()),
            ("worldeval.key", pa.string()),
            ("worldeval.task", pa.string()),
            ("worldeval.success", pa.bool_()),
            ("worldeval.success_known", pa.bool_()),
            ("worldeval.extra", pa.string()),
        ]
        if checksums:
            columns += [(name, pa.string()) for name in self.checksum_columns]
        return pa.schema(columns)

    @property
    def checksum_columns(self) -> tuple[str, ...]:
        """Columns with the checksums of an episode's data file, then of each of its videos."""
        prefixes = ("data", *(f"videos/{key}" for key in self.video_keys))
        return tuple(f"worldeval.checksum/{prefix}" for prefix in prefixes)

    def info(
        self,
        *,
        episodes: int,
        frames: int,
        tasks: int,
        sizes_mb: tuple[int, int],
        extra: Mapping[str, Any],
    ) -> dict[str, Any]:
        """``info.json``. LeRobot ignores the last entry, from which ``from_info`` reads back."""
        layout = asdict(self)
        if not self.joint_names:  # as stores were before joints: a store without them is the same
            del layout["joint_names"]
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": self.robot_type,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": tasks,
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": sizes_mb[0],
            "video_files_size_in_mb": sizes_mb[1],
            "fps": self.fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
            if self.video_keys
            else None,
            "features": self.features(),
            "worldeval": {"format": FORMAT, "layout": layout, "extra": dict(extra)},
        }

    @classmethod
    def from_info(cls, info: Mapping[str, Any], where: str) -> StoreLayout:
        """The layout that ``info`` wrote. Raises StoreError if it can be none."""
        try:
            return cls(**info["worldeval"]["layout"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{where} has an unusable layout: {error}") from error

    def difference(self, other: StoreLayout) -> str | None:
        """The first field in which two layouts disagree, in words; None if they are equal."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                return f"{field.name} is {mine!r} in the store and {theirs!r} here"
        return None

    def check(self, episode: Episode) -> None:
        """Raise MismatchError or DataError unless the episode fits into this store."""
        what = f"episode {episode.key!r}"
        if tuple(episode.views) != self.views:
            raise MismatchError(
                f"{what} has views {tuple(episode.views)!r}, the store has {self.views!r}; "
                "give the same views in the same order"
            )
        if not isinstance(episode.key, str) or not episode.key:
            raise DataError(f"an episode's key is {episode.key!r}, expected a text that names it")
        frames, actions = len(episode.frames), len(episode.frames) - 1
        if frames < 1:
            raise DataError(f"{what} has no frames, expected at least the start frame")
        if np.asarray(episode.frames).dtype != np.uint8:
            raise MismatchError(f"{what} has {episode.frames.dtype} frames, expected uint8 RGB")
        steps = (actions, self.steps_per_frame, len(self.action_names))
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {
            "frames": (episode.frames, (frames, len(self.views), *self.image_size, 3)),
            "poses": (episode.poses, (frames, self.pose_dim)),
            "actions": (episode.actions, steps),
        }
        if self.expert_actions:
            expected["expert_actions"] = (episode.expert_actions, steps)
        elif episode.expert_actions is not None:
            raise MismatchError(
                f"{what} has expert_actions, the store was created without them; create it with "
                "expert_actions=True"
            )
        if self.joint_names:
            expected["joints"] = (episode.joints, (frames, len(self.joint_names)))
        elif episode.joints is not None:
            raise MismatchError(
                f"{what} has joints, the store was created without them; create it with joint_names"
            )
        if episode.success_at is not None:
            expected["success_at"] = (episode.success_at, (frames,))
        for name, (array, shape) in expected.items():
            if array is None or np.shape(array) != shape:
                given = None if array is None else np.shape(array)
                raise MismatchError(f"{what} has {name} of shape {given}, expected {shape}")
            if name not in ("frames", "success_at") and not np.isfinite(array).all():
                raise DataError(f"{what} has NaN or infinity in its {name}; it was not stored")


@lru_cache(maxsize=64)  # asked for at every reading
def _data_schema(layout: StoreLayout) -> pa.Schema:
    columns = []
    for name, feature in layout.features().items():
        if feature["dtype"] == "image":
            columns.append((name, _IMAGE))
        elif feature["dtype"] != "video":
            scalar = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}[
                feature["dtype"]
            ]
            size = feature["shape"][0]
            columns.append((name, scalar if size == 1 else pa.list_(scalar, size)))
    return pa.schema(columns)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _names(what: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f"{what} are {_short(given)}, expected a list of names")
    if len(given) > MOST_NAMES:
        raise ConfigError(f"there are {len(given)} {what}, expected at most {MOST_NAMES}")
    if not all(isinstance(name, str) for name in given):
        raise ConfigError(f"{what} are {_short(given)}, expected texts only")
    return tuple(given)


def _short(value: Any) -> str:
    """A value as a sentence can hold it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _vector(dtype: str, names: Any) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [len(names) if names else 1],
        "names": list(names) if names else None,
    }
