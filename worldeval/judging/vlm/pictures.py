"""Which frames a vision-language model is shown, and as which pictures.

Enters: the frames of an episode, (T+1, V, H, W, C) uint8. Leaves: the numbers of the frames that
are looked at and the encoded pictures: one a moment with all views side by side, or all moments in
one grid, read row by row. The start and the end are always among them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from worldeval.data.video import encode_jpeg, encode_png, tile_views
from worldeval.errors import ConfigError

FRAMES = 8
"""How many frames are looked at where neither a count nor a stride is given."""
LAYOUTS = ("moments", "grid")
IMAGES = ("jpeg", "png")
GAP_PX = 4
"""Black between views and between moments, so that neighbours do not look like one scene."""


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """How a rollout is turned into pictures.

    frames: how many moments, evenly spaced from the start to the end. stride: every how many
    frames instead. layout: one picture a moment, or one ``grid`` of all of them (fewer tokens;
    for models that take a single picture). image: ``jpeg`` of ``quality`` 1..100, or ``png``.
    view_px: views whose shorter side is below this are enlarged to it, since most encoders see
    little in a picture of 64 px; 0 leaves all sizes alone.
    """

    frames: int | None = None
    stride: int | None = None
    layout: str = "moments"
    image: str = "jpeg"
    quality: int = 90
    view_px: int = 224

    def __post_init__(self) -> None:
        if self.frames is not None and self.stride is not None:
            raise ConfigError(
                f"frames is {self.frames!r} and stride is {self.stride!r}; give one of them"
            )
        for name, low, high in (
            ("frames", 2, 256), ("stride", 1, 10_000), ("quality", 1, 100), ("view_px", 0, 4096),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name in ("frames", "stride"):
                continue
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}, expected a whole number {low} to {high}")
        for name, known in (("layout", LAYOUTS), ("image", IMAGES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )

    def moments(self, length: int) -> tuple[int, ...]:
        """Numbers of the frames to look at in an episode of ``length`` frames, ascending."""
        last = length - 1
        if self.stride is not None:
            return tuple(sorted({*range(0, length, self.stride), last}))
        spaced = np.linspace(0, last, min(self.frames or FRAMES, length))
        return tuple(int(number) for number in np.unique(np.rint(spaced)))

    def pictures(self, frames: np.ndarray, moments: Sequence[int]) -> list[bytes]:
        """The encoded pictures of frames (T+1, V, H, W, C): one a moment, or one grid."""
        shown = _side_by_side(_enlarged(frames[list(moments)], self.view_px))
        if self.layout == "grid":
            shown = grid(shown)[None]
        if self.image == "png":
            return [encode_png(picture) for picture in shown]
        return [encode_jpeg(picture, self.quality) for picture in shown]

    def data_url(self, picture: bytes) -> str:
        """The picture as a ``data:`` URL (RFC 2397), the form that every server takes."""
        return f"data:image/{self.image};base64,{base64.b64encode(picture).decode('ascii')}"


def grid_columns(count: int, height: int, width: int) -> int:
    """Columns with which the longer side of a grid of ``count`` tiles is shortest."""
    return min(
        range(1, count + 1), key=lambda columns: max(columns * width, -(-count // columns) * height)
    )


def grid(tiles: np.ndarray) -> np.ndarray:
    """Tiles (n, H, W, C), in order of time, as one picture read row by row; black where none."""
    count, height, width, channels = tiles.shape
    columns = grid_columns(count, height, width)
    rows = -(-count // columns)
    picture = np.zeros(
        (rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, channels), np.uint8
    )
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (height + GAP_PX), column * (width + GAP_PX)
        picture[top : top + height, left : left + width] = tile
    return picture


def _side_by_side(frames: np.ndarray) -> np.ndarray:
    """(n, V, H, W, C) -> (n, H, V*W + gaps, C), the views in their order."""
    spaced = np.pad(frames, ((0, 0), (0, 0), (0, 0), (0, GAP_PX), (0, 0)))
    return tile_views(spaced)[:, :, :-GAP_PX]


def _enlarged(frames: np.ndarray, shorter_px: int) -> np.ndarray:
    """Frames (n, V, H, W, C) whose shorter side is at least ``shorter_px``."""
    count, views, height, width, channels = frames.shape
    factor = shorter_px / min(height, width)
    if factor <= 1:
        return frames
    size = (round(width * factor), round(height * factor))  # cv2 wants (W, H)
    flat = frames.reshape(-1, height, width, channels)
    large = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in flat]
    return np.stack(large).reshape(count, views, size[1], size[0], channels)
