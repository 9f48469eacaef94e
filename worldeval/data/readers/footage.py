"""What cameras saw, as files of others, read at their own rate and in their own size.

Enters: paths of videos, or of parquet files with images. Leaves: uint8 frames (N, H, W, 3), and how
many there are without decoding them. Every error names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from worldeval.data.readers import film
from worldeval.data.video import decode_png, mp4_times
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

    def read(self, every: int = 1) -> np.ndarray:
        """Frames 0, every, 2 every, ... (N, H, W, 3) uint8 RGB. DataError names the file."""
        ...


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video that shows one episode from its first frame to its last."""

    path: Path

    @property
    def hz(self) -> float:
        times = self._times()
        if len(times) < 2:
            return FRAME_HZ  # a single frame has no rate and needs none
        return float(1 / np.median(np.diff(times)))

    def count(self) -> int:
        return len(self._times())

    def read(self, every: int = 1) -> np.ndarray:
        times = self._times()
        steps = np.diff(times)
        if len(steps) and not np.abs(steps / np.median(steps) - 1).max() < 0.5:
            row = int(np.argmax(np.abs(steps / np.median(steps) - 1)))
            raise DataError(
                f"{self.path}: {steps[row]:.3f} s pass between frames {row} and {row + 1}, and "
                f"{np.median(steps):.3f} s between others; frames are missing, or its rate varies"
            )
        return film.frames_of(self.path, every)

    def _times(self) -> np.ndarray:
        _must_exist(self.path)
        return np.sort(mp4_times(self.path)[0])


@dataclass(frozen=True, kw_only=True)
class FilmPart:
    """What a film shows at the times of rows, whatever its own rate.

    times_s: (N,) in the film, at ``hz`` by the robot's clock, ``row_s`` apart by the film's.
    whole: it shows nothing else. claimed_s: up to where the episodes of a longer film claim it.
    """

    path: Path
    times_s: np.ndarray
    row_s: float
    whole: bool
    claimed_s: float = 0.0
    hz: float = CONTROL_HZ

    def count(self) -> int:
        return len(self.times_s)  # that there is a frame for each is seen when it is read

    def read(self, every: int = 1) -> np.ndarray:
        if self.claimed_s:
            facts = film.film_facts(self.path)
            # The frames of all rows at twice the rate would be found, at half of their times.
            if facts.duration_s + self.row_s < self.claimed_s and facts.rate_hz * self.row_s > 1.5:
                raise DataError(
                    f"{self.path} lasts {facts.duration_s:.3f} s ({facts.frames} frames at "
                    f"{facts.rate_hz:.4g} Hz), and its episodes up to {self.claimed_s:.3f} s at "
                    f"{1 / self.row_s:.4g} Hz; its rate or the timestamps of the index are wrong"
                )
        return film.frames_at(self.path, self.times_s, self.row_s, every=every, whole=self.whole)


@dataclass(frozen=True, kw_only=True)
class ImageColumn:
    """Images inside parquet files: a column of encoded pictures, one row per frame.

    order: row k of the episode is the order[k]-th of those found. root: of paths in the column.
    """

    files: tuple[Path, ...]
    column: str
    episode_index: int
    order: np.ndarray
    root: Path
    hz: float = CONTROL_HZ

    @property
    def path(self) -> Path:
        return self.files[0]

    def count(self) -> int:
        return len(self.order)

    def read(self, every: int = 1) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        cells: list[Any] = []
        for path in self.files:
            _must_exist(path)
            try:
                table = pq.read_table(
                    path,
                    columns=[self.column],
                    filters=[("episode_index", "=", self.episode_index)],
                    partitioning=None,
                )
                cells += table.column(self.column).to_pylist()
            except KeyError:
                raise DataError(
                    f"{path} has no column {self.column!r}, which info.json promises as images"
                ) from None
            except (pa.ArrowException, OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read: {error}; fetch it again") from error
        if len(cells) != len(self.order):
            raise DataError(
                f"{self.path}: column {self.column!r} has {len(cells)} images for episode "
                f"{self.episode_index}, expected {len(self.order)}"
            )
        frames = [self._picture(int(row), cells[row]) for row in self.order[::every]]
        if len({frame.shape for frame in frames}) > 1:
            raise DataError(
                f"{self.path}: column {self.column!r} has images of different sizes in episode "
                f"{self.episode_index}, expected one size"
            )
        return np.stack(frames)

    def _picture(self, row: int, cell: Any) -> np.ndarray:
        """A cell is the bytes of an encoded picture, or LeRobot's struct of bytes and path."""
        where = f"{self.path}: image {row} of {self.column!r}"
        found = f"{type(cell).__name__}"
        if isinstance(cell, dict):
            found = f"a struct of {', '.join(f'{k} ({type(v).__name__})' for k, v in cell.items())}"
            name = cell.get("path")
            cell = cell.get("bytes")
            beside = self.root / name if isinstance(name, str) and name else None
            if cell is None and beside is not None and beside.is_file():
                cell = beside.read_bytes()
        if not isinstance(cell, bytes):
            raise DataError(f"{where} is {found}, expected the bytes of a PNG or JPEG picture")
        try:
            return decode_png(cell)
        except DataError as error:
            raise DataError(f"{where} is not readable: {error}") from error


def frame_stride(footage: Footage) -> int:
    """Frames of a recording to one of ours."""
    for hz in (FRAME_HZ, CONTROL_HZ):
        if abs(footage.hz - hz) < 0.02 * hz:
            return round(hz / FRAME_HZ)
    raise DataError(
        f"{footage.path} has {footage.hz:.4g} frames per second, expected {FRAME_HZ:g} or "
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
