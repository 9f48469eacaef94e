"""Readers that run while a store is compacted or appended to get the right episodes."""

import threading
import time

import numpy as np
import pytest

from worldeval.data.store import compaction, journal
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import StoreError


@pytest.fixture
def filled(store, episode) -> EpisodeStore:
    for i in range(6):  # of one length: the wrong one would fit as well
        store.append(episode(i))
    store.close()
    return store


def test_a_reader_from_before_a_compaction_goes_on(filled, assert_same, monkeypatch) -> None:
    reader, before = EpisodeStore.open(filled.root), list(filled)
    size = max(p.stat().st_size for p in (filled.root / "data").rglob("*.parquet"))
    monkeypatch.setattr(compaction, "BYTES_PER_MB", 1)
    filled.compact(data_mb=2 * size, video_mb=1)  # some old names are new files with other episodes
    for i in reversed(range(6)):
        assert_same(reader.episode(i), before[i])
    assert np.array_equal(reader.frames(4), before[4].frames)


def test_readers_wait_for_a_compaction_under_way(filled, assert_same, monkeypatch) -> None:
    reader, before = EpisodeStore.open(filled.root), list(filled)
    half, go_on = threading.Event(), threading.Event()
    sync = journal.sync_folder

    def slow(folder) -> None:
        half.set()
        go_on.wait(10)
        sync(folder)

    monkeypatch.setattr(journal, "sync_folder", slow)
    writer = threading.Thread(target=filled.compact)
    writer.start()
    assert half.wait(10)
    assert journal.interrupted(filled.root)
    threading.Timer(0.1, go_on.set).start()
    for i, mine in enumerate(reader):
        assert_same(mine, before[i])
    writer.join()
    assert EpisodeStore.open(filled.root).verify() == []


def test_a_compaction_that_takes_too_long_is_told(filled, monkeypatch) -> None:
    monkeypatch.setattr(journal, "MOST_SECONDS", 0.05)
    other = EpisodeStore.open(filled.root)
    other._begin_writing()
    (filled.root / journal.JOURNAL).write_text("{}")
    began = time.monotonic()
    with pytest.raises(StoreError, match="by another process; run this again"):
        EpisodeStore.open(filled.root)
    assert time.monotonic() - began < 5


def test_a_reader_is_not_disturbed_by_a_writer(filled, episode, assert_same) -> None:
    reader, before = EpisodeStore.open(filled.root), list(filled)
    for i in range(6):
        filled.append(episode(10 + i))
        assert_same(reader.episode(i), before[i])


def test_other_episodes_in_their_place_are_told(filled, episode) -> None:
    import shutil

    reader, layout = EpisodeStore.open(filled.root), vars(filled.layout)
    shutil.rmtree(filled.root)
    with EpisodeStore.create(filled.root, **layout) as other:
        for i in range(6):
            other.append(episode(20 + i))
    with pytest.raises(StoreError, match="replaced by other episodes"):
        reader.episode(3)
