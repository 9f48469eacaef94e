"""Compaction changes where episodes lie and nothing of what they are."""

import pyarrow.parquet as pq
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import mp4_times
from worldeval.errors import StoreError


def count(store: EpisodeStore, suffix: str) -> int:
    return len(list(store.root.rglob(f"*.{suffix}")))


def test_equal_content_in_fewer_files(store, episode, assert_same) -> None:
    lengths = [5, 1, 9, 4]
    for i, length in enumerate(lengths):
        store.append(episode(i, length=length))
    before, table = list(store), store.metadata()
    stats = store.root / "meta/stats.json"
    store.close()
    statistics = stats.read_text()
    store.compact()
    for reader in (store, EpisodeStore.open(store.root)):
        for mine, theirs in zip(reader, before, strict=True):
            assert_same(mine, theirs)
        assert reader.metadata().equals(table)
        assert reader.verify() == []
    assert stats.read_text() == statistics
    assert count(store, "parquet") == 3  # data, episodes, tasks
    data = pq.ParquetFile(store.root / "data/chunk-000/file-000.parquet")
    assert [data.metadata.row_group(g).num_rows for g in range(4)] == lengths
    data.close()
    if store.layout.images == "video":
        assert count(store, "mp4") == 2  # one per view
        rows = pq.read_table(store.root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
        key = "videos/observation.images.wrist"
        assert [r[f"{key}/from_timestamp"] for r in rows] == pytest.approx([0, 0.5, 0.6, 1.5])
        assert [r[f"{key}/to_timestamp"] for r in rows] == pytest.approx([0.5, 0.6, 1.5, 1.9])
        times, _ = mp4_times(store.root / f"{key}/chunk-000/file-000.mp4")
        assert times == pytest.approx([i / 10 for i in range(19)])


def test_appending_and_compacting_go_on(store, episode, assert_same) -> None:
    for i in range(6):
        store.append(episode(i))
        if i % 2:
            store.compact()
    expected = EpisodeStore.open(store.root)
    assert len(expected) == 6 and expected.verify() == []
    lossy = store.layout.images == "video"
    for i, mine in enumerate(expected):
        assert_same(mine, episode(i), lossy)
    assert count(store, "parquet") == 3


def test_files_stay_below_their_size(store, episode, monkeypatch, assert_same) -> None:
    for i in range(6):
        store.append(episode(i))
    largest = max(p.stat().st_size for p in (store.root / "data").rglob("*.parquet"))
    before = list(store)
    # In units of one byte, so that small episodes fill files.
    monkeypatch.setattr("worldeval.data.store.compaction.BYTES_PER_MB", 1)
    store.compact(data_mb=3 * largest, video_mb=1)
    sizes = [p.stat().st_size for p in (store.root / "data").rglob("*.parquet")]
    assert 1 < len(sizes) < 6 and max(sizes) <= 3 * largest
    assert store.verify() == []
    for mine, theirs in zip(store, before, strict=True):
        assert_same(mine, theirs)


def test_videos_of_another_encoder_are_not_mixed(tmp_path, layout, episode, assert_same) -> None:
    import worldeval.data.store.episodes as episodes
    from worldeval.data.video import write_mp4

    store = EpisodeStore.create(tmp_path / "s", images="video", **layout)
    store.append(episode(0))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            episodes, "write_mp4", lambda path, frames, fps: write_mp4(path, frames, fps, crf=0)
        )
        store.append(episode(1))
    store.append(episode(2))
    before = list(store)
    store.compact()
    assert count(store, "mp4") == 2 * 3
    for mine, theirs in zip(store, before, strict=True):
        assert_same(mine, theirs)
    assert store.verify() == []


def test_a_damaged_store_is_not_compacted(store, episode) -> None:
    for i in range(3):
        store.append(episode(i))
    path = store.root / "data/chunk-000/file-001.parquet"
    path.write_bytes(path.read_bytes()[:100])
    files = sorted(p for p in store.root.rglob("file-*"))
    with pytest.raises(StoreError, match="cannot be compacted.*file-001"):
        store.compact()
    assert sorted(p for p in store.root.rglob("file-*") if ".compaction" not in str(p)) == files
    assert {d.episode_index for d in store.verify()} == {1}


def test_an_empty_store_can_be_compacted(store) -> None:
    store.compact()
    assert len(store) == 0 and store.verify() == []
