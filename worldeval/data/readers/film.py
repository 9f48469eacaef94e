"""Films of others, read by their own clock and shown upright.

Enters: a film and the times at which something was recorded beside it. Leaves: the picture of each
of these times. A picture belongs to a moment because of its time, never because of its place among
others: films run at other rates than states, begin late, stall, and hold several episodes.

Cameras that are mounted on their side write how to turn the picture into the film (its display
matrix), and every player obeys; so do we.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.files import regular_file
from worldeval.data.video import av_errors, converted, mp4_times
from worldeval.errors import DataError

TOLERANCE = 0.25
"""Of the time between two rows, how far a picture may be from its row. Below one half the picture
that is nearest in time is also the one that counting finds, if film and rows run at one rate."""


@dataclass(frozen=True, kw_only=True)
class FilmFacts:
    """What a film's header says: frames and duration. rate_hz: their quotient."""

    frames: int
    duration_s: float

    @property
    def rate_hz(self) -> float:
        return self.frames / self.duration_s


def film_facts(path: Path) -> FilmFacts:
    """How long a film is, without decoding it. Raises DataError naming the file."""
    with _opened(path) as (_, stream):
        if stream.frames and stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
            return FilmFacts(frames=stream.frames, duration_s=seconds)
    times = np.sort(mp4_times(path)[0])  # a film in pieces, whose header knows nothing
    if len(times) < 2:
        raise DataError(f"{path} has {len(times)} frames with a time, expected a film")
    step = float(np.median(np.diff(times)))
    return FilmFacts(frames=len(times), duration_s=float(times[-1] - times[0]) + step)


def frames_of(path: Path, every: int = 1) -> np.ndarray:
    """Frames 0, every, 2 every, ... of a film, (N, H, W, 3) uint8 RGB, upright."""
    with _opened(path) as (container, stream):
        pictures = [
            _upright(frame, path)
            for number, (_, frame) in enumerate(_decoded(container, stream, path))
            if number % every == 0
        ]
    if not pictures:
        raise DataError(f"{path} has no frames, expected at least 1; fetch it again")
    return np.stack(pictures)


def frames_at(
    path: Path, times_s: np.ndarray, row_s: float, *, every: int = 1, whole: bool = False
) -> np.ndarray:
    """The pictures of rows 0, every, 2 every, ..., (N, H, W, 3) uint8 RGB, upright.

    times_s: (rows,) ascending, the time in the film of each row. row_s: from one row to the next.
    whole: the film shows these rows and nothing else, so it must end with them.
    Raises DataError naming the film and the first row that has no picture of its own time.
    """
    tolerance = TOLERANCE * row_s
    pictures: list[np.ndarray] = []
    row, before, before_s = 0, None, -np.inf
    with _opened(path) as (container, stream):
        start = times_s[0] - row_s
        if start > 0:  # to the key frame at or before
            container.seek(int(start / (stream.time_base or Fraction(1))), stream=stream)
        for time, frame in _decoded(container, stream, path):
            # Rows that lie nearer to the frame before than to this one.
            while row < len(times_s) and times_s[row] <= (before_s + time) / 2:
                row = _take(path, pictures, row, every, times_s, before, before_s, tolerance)
            before, before_s = frame, time
            if row == len(times_s) and (not whole or time > times_s[-1] + row_s):
                break
        while row < len(times_s):
            row = _take(path, pictures, row, every, times_s, before, before_s, tolerance)
    if whole and before_s > times_s[-1] + 0.95 * row_s:
        raise DataError(
            f"{path} goes on to {before_s:.3f} s and the last of the {len(times_s)} rows is at "
            f"{times_s[-1]:.3f} s; they are not of one recording"
        )
    return np.stack(pictures)


def _take(
    path: Path,
    pictures: list[np.ndarray],
    row: int,
    every: int,
    times_s: np.ndarray,
    frame: Any,
    frame_s: float,
    tolerance: float,
) -> int:
    """Put the picture of a row to the others, and go on to the next row."""
    if frame is None or not abs(times_s[row] - frame_s) <= tolerance:
        nearest = "no frame at all" if frame is None else f"none nearer than {frame_s:.3f} s"
        raise DataError(
            f"{path} has no frame at {times_s[row]:.3f} s, the time of row {row} of "
            f"{len(times_s)} ({nearest}{_rate_in_words(path)}); timestamps, rate or film are wrong"
        )
    if row % every == 0:
        pictures.append(_upright(frame, path))
    return row + 1


def _rate_in_words(path: Path) -> str:
    try:
        facts = film_facts(path)
    except DataError:
        return ""
    return f"; it has {facts.frames} frames in {facts.duration_s:.3f} s, {facts.rate_hz:.4g} Hz"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A film and its stream of pictures."""
    import av

    with av_errors(path, "read"), av.open(str(_existing(path))) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise DataError(f"{path} holds no pictures; fetch it again")
        yield container, stream


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} is missing; fetch it again, or leave the episode out")
    return regular_file(path, "film")


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[tuple[float, Any]]:
    """(time in s, frame), in the order of time."""
    # Refuse damaged pictures; FFmpeg would otherwise paint over them.
    stream.codec_context.options = {"err_detect": "explode"}
    stream.codec_context.thread_count = 1
    base, last = float(stream.time_base or 1), -np.inf
    for frame in container.decode(stream):
        time = -np.inf if frame.pts is None else frame.pts * base
        if not time > last:
            raise DataError(f"{path}: its frames have no times, or not in order; record it again")
        last = time
        yield time, frame


def _upright(frame: Any, path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned and mirrored as the display matrix says."""
    picture: np.ndarray = converted(frame, format="rgb24").to_ndarray()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    # x' = a x + c y and y' = b x + d y, in 1/65536.
    a, b, _, c, d = struct.unpack("=9i", bytes(matrix))[:5]
    if a and d and not b and not c:
        turned, right, down = picture, a, d
    elif b and c and not a and not d:
        turned, right, down = picture.transpose(1, 0, 2), c, b
    else:
        raise DataError(
            f"{path} is to be rotated by {frame.rotation} degrees when shown, expected a multiple "
            "of 90; write it upright"
        )
    turned = turned[:, ::-1] if right < 0 else turned
    return np.ascontiguousarray(turned[::-1] if down < 0 else turned)
