"""Pixels: exact where they are kept exactly, close and in place where they are not."""

import av
import numpy as np
import pytest

from worldeval.data import video
from worldeval.data.video import (
    decode_png,
    encode_png,
    join_mp4,
    mp4_times,
    read_mp4,
    tile_views,
    to_frames,
    to_model,
    write_mp4,
)
from worldeval.errors import ConfigError, DataError


def bit_coded(count: int, first: int = 0) -> np.ndarray:
    """Frames whose number can be read from black and white squares after any lossy coding."""
    frames = np.zeros((count, 64, 64, 3), np.uint8)
    for t in range(count):
        for bit in range(8):
            if (t + first) >> bit & 1:
                frames[t, 16:48, 8 * bit : 8 * bit + 8] = 255
    return frames


def numbers_in(frames: np.ndarray) -> list[int]:
    bits = frames[:, 20:44, 4::8].mean((1, 3)) > 127
    return (bits @ (1 << np.arange(8))).tolist()


def test_every_level_survives_the_way_into_a_model_and_back() -> None:
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    video = to_model(frames)
    assert video.dtype == np.float32 and video.shape == (1, 3, 16, 16)
    assert video.min() == -1.0 and video.max() == 1.0
    assert np.array_equal(to_frames(video), frames)


def test_to_frames_rounds_and_clips() -> None:
    video = np.array([-3.0, 2 * 100.4 / 255 - 1, 2 * 100.6 / 255 - 1, 1.7]).reshape(1, 2, 2)
    assert to_frames(video).ravel().tolist() == [0, 100, 101, 255]


def test_pixels_of_a_wrong_kind_are_refused() -> None:
    with pytest.raises(DataError, match="float64, expected uint8"):
        to_model(np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match="NaN"):
        to_frames(np.full((3, 4, 4), np.nan))


def test_png_keeps_every_bit_and_the_order_of_colours() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    frame[0, 0] = (255, 0, 1)
    data = encode_png(frame)
    assert data.startswith(b"\x89PNG") and np.array_equal(decode_png(data), frame)
    with pytest.raises(DataError, match="not a readable PNG"):
        decode_png(b"")


def test_views_are_tiled_from_left_to_right() -> None:
    frames = np.stack([np.full((2, 4, 6, 3), value, np.uint8) for value in (1, 2, 3)], axis=1)
    tiled = tile_views(frames)
    assert tiled.shape == (2, 4, 18, 3)
    assert tiled[0, 0, ::6, 0].tolist() == [1, 2, 3]


def test_mp4_keeps_number_order_times_and_colours(tmp_path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, bit_coded(23), 10)
    assert numbers_in(read_mp4(path)) == list(range(23))
    assert np.allclose(mp4_times(path)[0], np.arange(23) / 10, atol=1e-9)
    flat = np.empty((5, 32, 48, 3), np.uint8)
    flat[:] = (200, 40, 90)
    write_mp4(path, flat, 10)
    assert np.abs(read_mp4(path).astype(int) - flat).max() <= 4


def test_pyav_of_lerobot_which_has_no_word_for_threads(tmp_path, monkeypatch) -> None:
    class Old:
        def __init__(self, *size) -> None:
            self.size = size

        def reformat(self, format=None):  # as in PyAV 15
            return self

    write_mp4(tmp_path / "new.mp4", bit_coded(5), 10)
    assert video._takes_threads()
    with monkeypatch.context() as patch:
        patch.setattr(av, "VideoFrame", Old)
        video._takes_threads.cache_clear()
        assert not video._takes_threads()
    write_mp4(tmp_path / "old.mp4", bit_coded(5), 10)
    video._takes_threads.cache_clear()
    assert (tmp_path / "new.mp4").read_bytes() == (tmp_path / "old.mp4").read_bytes()


def test_an_mp4_is_one_that_browsers_play(tmp_path) -> None:
    import av

    path = tmp_path / "a.mp4"
    write_mp4(path, bit_coded(5), 30 / 7)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.profile == "High"
        assert stream.codec_context.pix_fmt == "yuv420p" and not stream.codec_context.has_b_frames
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playable before all of it has arrived


@pytest.mark.parametrize("size", [32, 48, 50, 64])
def test_the_same_frames_are_coded_to_the_same_bytes(tmp_path, size) -> None:
    pixels = np.random.default_rng(0).integers(0, 64, (7, size, size, 3), np.uint8)
    pixels[:, 8:20, 8:20] += (20 * np.arange(7, dtype=np.uint8))[:, None, None, None]
    found = set()
    for _ in range(60):
        video.write_mp4(tmp_path / "a.mp4", pixels, 5)
        found.add((tmp_path / "a.mp4").read_bytes())
    (film,) = found
    # Of small films some hundreds would be needed; their coder says how it was set.
    assert (b"mbtree=0" in film) == (size <= 48)


def test_part_of_an_mp4(tmp_path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, bit_coded(40), 10)
    assert numbers_in(read_mp4(path, start_s=1.7, count=5)) == [17, 18, 19, 20, 21]
    with pytest.raises(DataError, match="has 3 frames from 3.700 s on, expected 9"):
        read_mp4(path, start_s=3.7, count=9)


@pytest.mark.parametrize("fps", [10, 29.97, 30 / 7])
def test_joined_mp4s_decode_to_the_same_pixels(tmp_path, fps) -> None:
    rng = np.random.default_rng(1)
    parts = []
    for number, count in enumerate([9, 1, 14]):
        noise = rng.integers(0, 40, (count, 64, 64, 3), np.uint8)
        path = tmp_path / f"{number}.mp4"
        write_mp4(path, bit_coded(count, first=50 * number) // 2 + noise, fps)
        parts.append(path)
    assert len({mp4_times(path)[1] for path in parts}) == 1
    join_mp4(parts, tmp_path / "all.mp4", fps)
    assert np.array_equal(
        read_mp4(tmp_path / "all.mp4"), np.concatenate([read_mp4(path) for path in parts])
    )
    assert np.allclose(mp4_times(tmp_path / "all.mp4")[0], np.arange(24) / fps, atol=1e-4)
    last = read_mp4(tmp_path / "all.mp4", start_s=10 / fps, count=14)
    assert np.array_equal(last, read_mp4(parts[2]))


def test_a_damaged_or_missing_mp4_is_named(tmp_path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), np.uint8), 10)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.mp4"):
        read_mp4(path)
    path.write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"a\.mp4 cannot be read as video"):
        read_mp4(path)
    with pytest.raises(DataError, match=r"there is no film at .*b\.mp4"):
        read_mp4(tmp_path / "b.mp4")


def test_unusable_settings_are_quoted(tmp_path) -> None:
    frames = bit_coded(2)
    with pytest.raises(DataError, match="63x64 px"):
        write_mp4(tmp_path / "a.mp4", frames[:, :63], 10)
    with pytest.raises(ConfigError, match="crf is 99"):
        write_mp4(tmp_path / "a.mp4", frames, 10, crf=99)
    with pytest.raises(ConfigError, match="fps is 0"):
        write_mp4(tmp_path / "a.mp4", frames, 0)
    with pytest.raises(DataError, match="float64"):
        write_mp4(tmp_path / "a.mp4", frames.astype(float), 10)
    with pytest.raises(OSError):
        write_mp4(tmp_path / "no" / "a.mp4", frames, 10)
