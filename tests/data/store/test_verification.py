"""Every kind of damage is named with its file and its episode."""

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import write_mp4
from worldeval.errors import StoreError


@pytest.fixture
def filled(store, episode) -> EpisodeStore:
    for i in range(4):
        store.append(episode(i, length=20))
    store.close()
    assert store.verify() == []
    return store


def one(store: EpisodeStore, suffix: str) -> tuple[int, str]:
    (damage,) = EpisodeStore.open(store.root).verify()
    assert damage.path.name.endswith(suffix) and damage.path.is_relative_to(store.root)
    return damage.episode_index, damage.what


def test_truncated_and_missing_rows(filled) -> None:
    path = filled.root / "data/chunk-000/file-002.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    index, what = one(filled, "file-002.parquet")
    assert index == 2 and "cannot be read" in what
    with pytest.raises(StoreError, match=r"episode 2 of .* is damaged.*file-002"):
        filled.episode(2)
    filled.episode(1)  # the others are still there
    path.unlink()
    assert one(filled, "file-002.parquet") == (2, "the file is missing")


def test_rows_of_another_episode(filled) -> None:
    folder = filled.root / "data/chunk-000"
    (folder / "file-001.parquet").write_bytes((folder / "file-003.parquet").read_bytes())
    index, what = one(filled, "file-001.parquet")
    assert index == 1 and "another episode" in what


def test_a_flipped_byte_in_the_rows(filled) -> None:
    path = filled.root / "data/chunk-000/file-000.parquet"
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(bytes(data))
    assert one(filled, "file-000.parquet")[0] == 0


@pytest.fixture
def filled_with_videos(tmp_path, layout, episode) -> EpisodeStore:
    store = EpisodeStore.create(tmp_path / "videos", images="video", **layout)
    for i in range(3):
        store.append(episode(i, length=20))
    store.close()
    return store


@pytest.fixture
def video(filled_with_videos):
    return filled_with_videos.root / "videos/observation.images.wrist/chunk-000/file-001.mp4"


def test_a_missing_video(filled_with_videos, video) -> None:
    video.unlink()
    assert one(filled_with_videos, "file-001.mp4") == (1, "the file is missing")
    with pytest.raises(StoreError, match=r"episode 1 of .*observation.images.wrist"):
        filled_with_videos.frames(1)
    assert filled_with_videos.frames(1, views=["left"]).shape == (20, 1, 16, 24, 3)


def test_a_truncated_video(filled_with_videos, video) -> None:
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 2 // 3])
    assert one(filled_with_videos, "file-001.mp4")[0] == 1


def test_a_wrong_number_of_frames(filled_with_videos, video) -> None:
    for count in (19, 21):
        write_mp4(video, np.zeros((count, 16, 24, 3), np.uint8), 10)
        index, what = one(filled_with_videos, "file-001.mp4")
        assert index == 1 and f"{count} frames, expected 20" in what


def test_a_wrong_size(filled_with_videos, video) -> None:
    write_mp4(video, np.zeros((20, 32, 24, 3), np.uint8), 10)
    assert one(filled_with_videos, "file-001.mp4") == (1, "it has 32x24 px, expected 16x24 px")
