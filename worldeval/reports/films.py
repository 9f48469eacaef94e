"""Films and previews of one rollout for a player: all views in a row, of one size for the eye.

Enters: frames of an episode. Leaves: an H.264 film that browsers play untouched and seek to every
frame, a sheet of small pictures (JPEG) for previews, and what truly happened where it is shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldeval import shipped

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore

FILM_HEIGHT = 128
"""Views lower than that are enlarged, whole pixels at a time: chroma is halved when coded."""
MOST_FILM_HEIGHT = 480
MOST_PICTURES = 240


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Small pictures of frames, row by row in one image."""

    jpeg: bytes
    columns: int
    every: int
    """Frame n is picture n // every."""
    count: int
    size: tuple[int, int]
    """(H, W) of one picture in px, all views in it."""


def write_film(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write frames (T, V, H, W, 3) uint8 as one film, the views in a row."""
    from worldeval.data.video import tile_views, write_mp4

    height = frames.shape[2]
    times = max(1, -(-FILM_HEIGHT // height))
    less = max(1, -(-height // MOST_FILM_HEIGHT))
    tiled = tile_views(frames[:, :, ::less, ::less])
    tiled = tiled.repeat(times, axis=1).repeat(times, axis=2)
    odd = tiled.shape[1] % 2, tiled.shape[2] % 2
    if any(odd):
        tiled = np.pad(tiled, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    write_mp4(path, tiled, fps, crf=18)


def make_sheet(frames: np.ndarray, *, height: int = 64, most: int = MOST_PICTURES) -> Sheet:
    """A sheet of at most ``most`` of the frames (T, V, H, W, 3), evenly spread."""
    import cv2

    from worldeval.data.video import encode_jpeg, tile_views

    every = -(-len(frames) // most)
    tiled = tile_views(frames[::every])
    width = max(1, round(tiled.shape[2] * height / tiled.shape[1]))
    columns = min(10, len(tiled))
    rows = -(-len(tiled) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, picture in enumerate(tiled):
        y, x = divmod(number, columns)
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = small
    return Sheet(
        jpeg=encode_jpeg(sheet, quality=82),
        columns=columns,
        every=every,
        count=len(tiled),
        size=(height, width),
    )


@lru_cache(maxsize=1)
def shipped_truth() -> EpisodeStore | None:
    """What truly happened in the shipped suite's start states, by rollout key; None if lost."""
    from worldeval.data.store.episodes import EpisodeStore

    place = shipped.folder() / shipped.TRUTH_CLIPS
    return EpisodeStore.open(place) if (place / "meta" / "info.json").is_file() else None
