"""Whatever a kill leaves behind is a readable store with at most one episode less."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from worldeval.data import atomic
from worldeval.data.store import journal
from worldeval.data.store.episodes import EpisodeStore

WRITER = """
import os, sys
import numpy as np
os.fsync = lambda descriptor: None  # for power cuts only, and slow
from worldeval.data.store.episodes import EpisodeStore
from worldeval.types import Episode

store = EpisodeStore.open(sys.argv[1])
views, (h, w) = store.layout.views, store.layout.image_size
for i in range(len(store), 10**6):
    store.append(Episode(
        key=f"k{i}", task="t", instruction="go", views=views,
        frames=np.full((4, len(views), h, w, 3), i % 250, np.uint8),
        poses=np.full((4, 3), i, np.float32), actions=np.full((3, 2, 3), i, np.float32)))
    print(i, flush=True)
"""


def test_a_killed_writer_loses_at_most_the_episode_under_way(store, episode) -> None:
    rng = np.random.default_rng(0)
    said = -1
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.root)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer.stdout as lines:
            said = int(lines.readline())
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(writer.pid, signal.SIGKILL)
            said = max([said, *(int(line) for line in lines if line.endswith("\n"))])
        assert writer.wait() == -signal.SIGKILL
        again = EpisodeStore.open(store.root)
        assert len(again) in (said + 1, said + 2)  # committed, perhaps before it could say so
        assert again.verify() == []
        assert again.trajectory(said).poses[0, 0] == said
    with EpisodeStore.open(store.root) as again:
        count = len(again)
        assert again.append(episode(0)) == count
    assert EpisodeStore.open(store.root).verify() == []
    files = {p.relative_to(store.root).as_posix() for p in (store.root / "data").rglob("*.*")}
    assert len(files) == count + 1  # nothing is left of the killed ones


@pytest.fixture
def snapshots(store, tmp_path, monkeypatch):
    """Copies of the store before each change of a name or deletion: what a kill would leave."""
    taken: list[Path] = []

    def watch(function):
        def watched(*args, **kwargs):
            copy = tmp_path / f"snapshot-{len(taken)}"
            taken.append(shutil.copytree(store.root, copy))
            return function(*args, **kwargs)

        return watched

    monkeypatch.setattr(os, "replace", watch(os.replace))
    monkeypatch.setattr(Path, "unlink", watch(Path.unlink))
    yield taken


def test_a_kill_between_any_two_steps_of_an_append(store, episode, snapshots) -> None:
    store.append(episode(0))
    snapshots.clear()
    for copy in store.root.parent.glob("snapshot-*"):
        shutil.rmtree(copy)
    store.append(episode(1))
    store.close()
    assert len(snapshots) >= 4
    lengths = []
    for copy in list(snapshots):
        with EpisodeStore.open(copy) as left:
            lengths.append(len(left))
            assert left.verify() == []
            left.append(episode(7))
        assert EpisodeStore.open(copy).verify() == []
    assert lengths == sorted(lengths) and set(lengths) == {1, 2}


def test_a_kill_between_any_two_steps_of_a_compaction(
    store, episode, snapshots, assert_same
) -> None:
    for i in range(3):
        store.append(episode(i))
    store.close()
    before = [store.episode(i) for i in range(3)]
    for copy in store.root.parent.glob("snapshot-*"):
        shutil.rmtree(copy)
    snapshots.clear()
    store.compact()
    assert len(snapshots) >= 5
    interrupted = 0
    for number, copy in enumerate(list(snapshots)):
        interrupted += journal.interrupted(copy)
        with EpisodeStore.open(copy) as left:
            assert left.verify() == []
            for mine, theirs in zip(left, before, strict=True):
                assert_same(mine, theirs)
            if number % 4:  # the longer way for a part of them saves seconds
                continue
            left.append(episode(7))
            left.compact()
        again = EpisodeStore.open(copy)
        assert len(again) == 4 and again.verify() == []
        assert len(list((copy / "data").rglob("*.parquet"))) == 1
        assert not (copy / journal.STAGING).exists()
    assert interrupted >= 2  # the journal was there in some: it was carried out to the end


def test_a_journal_names_only_files_of_the_store(store, episode) -> None:
    from worldeval.errors import StoreError

    outside = store.root.parent / "precious"
    outside.write_text("mine")
    plan = {"moves": [], "deletions": ["data/../../precious"]}
    (store.root / journal.JOURNAL).write_text(json.dumps(plan))
    with pytest.raises(StoreError, match="no file of a store"):
        EpisodeStore.open(store.root)
    assert outside.read_text() == "mine"


def test_a_failed_write_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        atomic.write_atomically(path, half)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
