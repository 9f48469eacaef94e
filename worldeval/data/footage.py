"""What cameras saw, as files of others, read at their own rate and in their own size.

Enters: paths of videos, or of parquet files with images. Leaves: uint8 frames (N, H, W, 3), and how
many there are without decoding them. Every error names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from worldeval.data.video import decode_png, mp4_times, read_mp4
from worldeval.errors import DataError

CONTROL_HZ, FRAME_HZ = 15.0, 5.0
"""The two clocks, see ``raw.py``."""


class Footage(Protocol):
    """What one camera saw in one episode."""

    @property
    def path(self) -> Path: ...

    @property
    def hz(self) -> float: ...

    def count(self) -> int:
        """Frames in it, found without decoding."""
        ...

    def read(self) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB. Raises DataError naming the file."""
        ...


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video, or a part of one that holds several episodes.

    start_s: where the episode begins. length: its frames; None for all there are.
    rate_hz: of the recording, where the file's own clock is not to be believed.
    """

    path: Path
    start_s: float = 0.0
    length: int | None = None
    rate_hz: float | None = None

    @property
    def hz(self) -> float:
        if self.rate_hz is not None:
            return self.rate_hz
        times = self._times()
        if len(times) < 2:
            return FRAME_HZ  # a single frame has no rate and needs none
        return float(1 / np.median(np.diff(times)))

    def count(self) -> int:
        # A part of a long video is checked when it is read: its file may hold hundreds of others.
        return len(self._times()) if self.length is None else self.length

    def read(self) -> np.ndarray:
        _must_exist(self.path)
        return read_mp4(self.path, start_s=self.start_s, count=self.length)

    def _times(self) -> np.ndarray:
        _must_exist(self.path)
        return np.sort(mp4_times(self.path)[0])


@dataclass(frozen=True, kw_only=True)
class ImageColumn:
    """Images inside a parquet file: a column of structs with bytes, one row a frame."""

    path: Path
    column: str
    episode_index: int
    length: int
    rate_hz: float = CONTROL_HZ

    @property
    def hz(self) -> float:
        return self.rate_hz

    def count(self) -> int:
        return self.length

    def read(self) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        _must_exist(self.path)
        try:
            table = pq.read_table(
                self.path,
                columns=[self.column],
                filters=[("episode_index", "=", self.episode_index)],
                partitioning=None,
            )
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path} cannot be read: {error}; fetch it again") from error
        frames = []
        for row, cell in enumerate(table.column(self.column).to_pylist()):
            data = (cell or {}).get("bytes")
            try:
                frames.append(decode_png(data or b""))
            except DataError as error:
                raise DataError(
                    f"{self.path}: image {row} of {self.column!r} is not readable: {error}"
                ) from error
        if not frames or len({frame.shape for frame in frames}) > 1:
            raise DataError(
                f"{self.path}: column {self.column!r} has {len(frames)} images for episode "
                f"{self.episode_index}, expected {self.length} of one size"
            )
        return np.stack(frames)


def frame_stride(footage: Footage) -> int:
    """Frames of a recording to one of ours."""
    for hz in (FRAME_HZ, CONTROL_HZ):
        if abs(footage.hz - hz) < 0.02 * hz:
            return round(hz / FRAME_HZ)
    raise DataError(
        f"{footage.path} has {footage.hz:.4g} frames a second, expected {FRAME_HZ:g} or "
        f"{CONTROL_HZ:g}"
    )


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) -> (*size, 3): a smaller picture's pixel is the mean of the area that it covers.

    A larger one (DROID's 180 rows to 192) is interpolated between those means.
    """
    if frame.shape[:2] == tuple(size):
        return frame
    return cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing; fetch it again, or leave the episode out")
