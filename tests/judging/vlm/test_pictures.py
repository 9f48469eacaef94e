"""Which frames are shown, and that each arrives as what it is, where it is said to be."""

from __future__ import annotations

import numpy as np
import pytest

from tests.judging.vlm.server import picture_of
from worldeval.errors import ConfigError
from worldeval.judging.vlm.pictures import GAP_PX, PictureConfig, grid, grid_columns


@pytest.mark.parametrize(
    ("config", "length", "moments"),
    [
        ({"frames": 3}, 41, (0, 20, 40)),
        ({"frames": 8}, 4, (0, 1, 2, 3)),
        ({"frames": 2}, 100, (0, 99)),
        ({}, 8, tuple(range(8))),
        ({"stride": 10}, 35, (0, 10, 20, 30, 34)),
        ({"stride": 10}, 31, (0, 10, 20, 30)),
        ({"stride": 50}, 2, (0, 1)),
    ],
)
def test_start_and_end_are_always_looked_at(
    config: dict, length: int, moments: tuple[int, ...]
) -> None:
    assert PictureConfig(**config).moments(length) == moments


def test_moments_are_evenly_spaced_whatever_the_length() -> None:
    for length in range(2, 200):
        moments = PictureConfig(frames=8).moments(length)
        gaps = np.diff(moments)
        assert len(moments) == min(8, length) and moments[0] == 0 and moments[-1] == length - 1
        assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def frames(length: int = 5, views: int = 2, height: int = 6, width: int = 8) -> np.ndarray:
    """Frame t of view v is of one colour, (40 t, 100 v, 30)."""
    video = np.zeros((length, views, height, width, 3), np.uint8)
    video[..., 0] = 40 * np.arange(length)[:, None, None, None]
    video[..., 1] = 100 * np.arange(views)[None, :, None, None]
    video[..., 2] = 30
    return video


def test_one_picture_a_moment_with_the_views_side_by_side() -> None:
    config = PictureConfig(frames=3, image="png", view_px=0)
    sent = [picture_of(config.data_url(p)) for p in config.pictures(frames(), (0, 2, 4))]
    assert [picture.shape for picture in sent] == [(6, 16 + GAP_PX, 3)] * 3
    for picture, t in zip(sent, (0, 2, 4), strict=True):
        assert (picture[:, :8] == (40 * t, 0, 30)).all()
        assert not picture[:, 8:-8].any()
        assert (picture[:, -8:] == (40 * t, 100, 30)).all()


def test_a_jpeg_is_near_the_picture_and_smaller() -> None:
    rng = np.random.default_rng(0)
    video = np.clip(frames() + rng.integers(0, 9, frames().shape), 0, 255).astype(np.uint8)
    exact, near = PictureConfig(image="png"), PictureConfig(image="jpeg")
    (png,), (jpeg,) = (config.pictures(video, (3,)) for config in (exact, near))
    difference = picture_of(exact.data_url(png)).astype(int) - picture_of(near.data_url(jpeg))
    assert np.abs(difference).mean() < 3 and len(jpeg) < len(png)


def test_small_views_are_enlarged_and_large_ones_left_alone() -> None:
    (picture,) = PictureConfig(image="png", view_px=24).pictures(frames(), (4,))
    assert picture_of(PictureConfig(image="png").data_url(picture)).shape == (24, 64 + GAP_PX, 3)
    (picture,) = PictureConfig(image="png", view_px=6).pictures(frames(), (4,))
    assert picture_of(PictureConfig(image="png").data_url(picture)).shape == (6, 16 + GAP_PX, 3)


def test_a_grid_is_read_row_by_row_and_about_square() -> None:
    assert grid_columns(8, 6, 16) == 2 and grid_columns(9, 10, 10) == 3
    assert grid_columns(2, 10, 1000) == 1 and grid_columns(3, 1000, 10) == 3
    tiles = np.stack([np.full((5, 6, 3), 10 * (t + 1), np.uint8) for t in range(3)])
    picture = grid(tiles)
    assert picture.shape == (2 * 5 + GAP_PX, 2 * 6 + GAP_PX, 3)
    assert (picture[:5, :6] == 10).all() and (picture[:5, 6 + GAP_PX :] == 20).all()
    assert (picture[5 + GAP_PX :, :6] == 30).all()
    assert not picture[5 + GAP_PX :, 6:].any() and not picture[5 : 5 + GAP_PX].any()


def test_a_grid_is_one_picture() -> None:
    config = PictureConfig(layout="grid", image="png", view_px=0)
    (picture,) = config.pictures(frames(), (0, 4))
    assert (picture_of(config.data_url(picture))[-6:, :8] == (160, 0, 30)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 1}, {"frames": 2.5}, {"frames": True}, {"stride": 0}, {"frames": 4, "stride": 4},
        {"layout": "film"}, {"image": "gif"}, {"quality": 0}, {"view_px": -1}, {"quality": None},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_by_name_and_value(wrong: dict) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigError, match=f"{name} is {value!r}"):
        PictureConfig(**wrong)
