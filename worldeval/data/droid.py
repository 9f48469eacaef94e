"""DROID as a LeRobot dataset, v2.1 (and v2.0) or v3.0: a file an episode, or many in one file.

Enters: a folder with ``meta/info.json`` and a key map (``droid_keys.py``). Leaves: ``RawEpisode``.
Everything is at 15 Hz; the frames of an episode are 0..N-1 of its own video (v2.1) or begin at
``from_timestamp`` of a longer one (v3.0), and every third of them is ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data.droid_keys import Column, KeyMap, choose_key_map, known_key_maps, read_key_map
from worldeval.data.footage import CONTROL_HZ, Footage, ImageColumn, VideoFile
from worldeval.data.raw import STEPS, RawEpisode, array_of
from worldeval.errors import DataError
from worldeval.motion.panda import VIEWS


class LeRobotDroid:
    """The episodes of one split of a LeRobot dataset of DROID, by index (as text)."""

    def __init__(
        self, root: str | Path, split: str = "train", key_map: str | Path | None = None
    ) -> None:
        """key_map: a file of your own; None tries those that come with worldeval."""
        self.root, self.split = Path(root), split
        self._info_path = self.root / "meta/info.json"
        self.info = _json(self._info_path)
        self.version = str(self.info.get("codebase_version"))
        if self.version not in ("v2.0", "v2.1", "v3.0"):
            raise DataError(
                f"{self._info_path} has codebase_version {self.version!r}, expected v2.0, v2.1 or "
                "v3.0; convert it with LeRobot"
            )
        features = self.info.get("features")
        if not isinstance(features, dict):
            raise DataError(f"{self._info_path} has no features; fetch it again")
        self.features: dict[str, Any] = features
        maps = known_key_maps() if key_map is None else [read_key_map(key_map)]
        self.key_map: KeyMap = choose_key_map(self.features, maps, self._info_path)
        self.hz = float(self.key_map.control_hz or self.info.get("fps") or 0)
        if abs(self.hz - CONTROL_HZ) > 0.02 * CONTROL_HZ:
            raise DataError(
                f"{self._info_path} says {self.hz:g} frames a second, expected {CONTROL_HZ:g}; if "
                "it was recorded at that rate all the same, say control_hz in a key map"
            )
        self._rows = self._episode_rows()
        self.ids: tuple[str, ...] = tuple(str(i) for i in self._of_split())

    def __len__(self) -> int:
        return len(self.ids)

    def episode(self, identity: str) -> RawEpisode:
        """The episode of that index. Raises DataError naming the file missing or damaged."""
        number = int(identity) if identity.isdecimal() else -1
        if number not in self._rows:
            raise DataError(f"{self.root} has no episode {identity!r}, only 0..{len(self._rows)}")
        row = self._rows[number]
        path = self.root / self._place(row, "data_path", "data")
        columns = self._read(path, number)
        length = len(next(iter(columns.values())))
        if length != int(row["length"]):
            raise DataError(
                f"{path} has {length} rows of episode {number}, expected {row['length']}; fetch "
                "it again"
            )
        keys = self.key_map
        joints = self._values(columns, keys.joint_position, path)
        cartesian = self._values(columns, keys.cartesian_position, path)
        if cartesian is None and joints is not None:
            cartesian = _hand_poses(joints)
        gripper = self._values(columns, keys.gripper, path)
        if cartesian is None or gripper is None:  # KeyMap promises one of each
            raise DataError(f"{path} lacks the columns of key map {keys.name!r}")
        return RawEpisode(
            id=identity,
            split=self.split,
            described_in=path,
            instructions=self._texts(row, columns),
            success=self._success(columns),
            footage=tuple(self._footage(row, number, keys.views[view], path) for view in VIEWS),
            frames=math.ceil(length / STEPS),
            state_hz=CONTROL_HZ,
            cartesian_position=cartesian,
            gripper=gripper[:, 0],
            joint_position=joints,
            actions={
                name: values
                for name, column in keys.actions.items()
                if (values := self._values(columns, column, path)) is not None
            },
        )

    def _episode_rows(self) -> dict[int, dict[str, Any]]:
        """episode_index -> what the index of the dataset says of it."""
        if self.version == "v3.0":
            files = sorted((self.root / "meta/episodes").glob("chunk-*/file-*.parquet"))
            rows = [row for file in files for row in _episode_table(file)]
        else:
            rows = _json_lines(self.root / "meta/episodes.jsonl")
        if not rows:
            raise DataError(f"{self.root}/meta lists no episodes; fetch the dataset again")
        try:
            return {int(row["episode_index"]): row for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.root}/meta has an episode without {error}") from error

    def _of_split(self) -> list[int]:
        """Indices of the split; ``splits`` of info.json has "first:end" for each."""
        splits = self.info.get("splits") or {"train": f"0:{len(self._rows)}"}
        if self.split not in splits:
            raise DataError(
                f"{self._info_path} has no split {self.split!r}, only {', '.join(splits)}"
            )
        try:
            first, end = (int(part) for part in str(splits[self.split]).split(":"))
        except ValueError:
            raise DataError(
                f"{self._info_path}: split {self.split!r} is {splits[self.split]!r}, expected "
                "'first:end'"
            ) from None
        return [number for number in sorted(self._rows) if first <= number < end]

    def _place(self, row: Mapping[str, Any], template: str, prefix: str, view: str = "") -> str:
        """A path out of the templates of info.json."""
        pattern = self.info.get(template)
        number = int(row["episode_index"])
        try:
            return str(pattern).format(
                episode_index=number,
                episode_chunk=number // int(self.info.get("chunks_size", 1000)),
                video_key=view,
                chunk_index=row.get(f"{prefix}/chunk_index"),
                file_index=row.get(f"{prefix}/file_index"),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{self._info_path}: {template} {pattern!r} cannot be filled in for episode "
                f"{number} ({error})"
            ) from error

    def _read(self, path: Path, number: int) -> dict[str, list[Any]]:
        """The columns of one episode that the key map names, without images."""
        keys = self.key_map
        wanted = {keys.gripper.name, "episode_index", *keys.instructions}
        wanted |= {column.name for column in keys.actions.values()}
        for column in (keys.joint_position, keys.cartesian_position):
            wanted |= {column.name} if column else set()
        wanted |= {keys.success} if keys.success else set()
        try:
            present = set(pq.read_schema(path).names)
            table = pq.read_table(
                path,
                columns=sorted(wanted & present),
                filters=[("episode_index", "=", number)],
                partitioning=None,
            )
        except FileNotFoundError:
            raise DataError(f"{path} is missing; fetch it again") from None
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}; fetch it again") from error
        return table.to_pydict()

    def _values(
        self, columns: Mapping[str, list[Any]], column: Column | None, path: Path
    ) -> np.ndarray | None:
        """(N, last - first) float64."""
        if column is None:
            return None
        if column.name not in columns:
            raise DataError(f"{path} has no column {column.name!r}, which info.json promises")
        values = array_of(columns[column.name], column.name, path)
        values = values.reshape(len(values), -1)
        if values.shape[1] != column.width:
            raise DataError(
                f"{path}: {column.name!r} has {values.shape[1]} numbers a row, expected "
                f"{column.width}"
            )
        return values[:, column.first : column.last]

    def _footage(self, row: Mapping[str, Any], number: int, view: str, data: Path) -> Footage:
        length = int(row["length"])
        if self.features[view].get("dtype") == "image":
            return ImageColumn(path=data, column=view, episode_index=number, length=length)
        prefix = f"videos/{view}"
        return VideoFile(
            path=self.root / self._place(row, "video_path", prefix, view),
            start_s=float(row.get(f"{prefix}/from_timestamp") or 0.0),
            length=length if self.version == "v3.0" else None,
            rate_hz=self.hz,
        )

    def _texts(self, row: Mapping[str, Any], columns: Mapping[str, list[Any]]) -> tuple[str, ...]:
        """Different instructions, LeRobot's task first where it is not empty."""
        texts = [str(text) for text in row.get("tasks") or []]
        for name in self.key_map.instructions:
            texts += [str(text) for text in columns.get(name, [])[:1] if text is not None]
        return tuple(dict.fromkeys(text for text in texts if text)) or ("",)

    def _success(self, columns: Mapping[str, list[Any]]) -> bool | None:
        name = self.key_map.success
        values = columns.get(name, []) if name else []
        known = [value for value in values if value is not None]
        return bool(np.ravel(known[-1])[0]) if known else None


def _hand_poses(joints: np.ndarray) -> np.ndarray:
    """(N, 7) joints in rad -> (N, 6) hand poses."""
    from worldeval.motion.panda import forward_pose

    return forward_pose(joints)


def _episode_table(path: Path) -> list[dict[str, Any]]:
    try:
        names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        return pq.read_table(path, columns=names, partitioning=None).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch it again") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing; give the folder of a LeRobot dataset") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object; fetch it again")
    return content


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path} is missing; fetch the dataset again") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch it again") from error
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} has a line that is not a JSON object; fetch it again")
    return rows
