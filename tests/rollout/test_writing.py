"""Episodes are written by another thread: in order, wholly, and what it meets is told."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import StoreError
from worldeval.rollout import writing as module
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.writing import Writing
from worldeval.types import Episode
from worldeval.worlds.toy import TOY_ROBOT


class Slow(EpisodeStore):
    """Writes only when it may, and refuses once asked to."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.may = threading.Event()
        self.refuses: set[str] = set()
        self.threads: set[int] = set()

    def _append(self, episode: Episode, *given: Any) -> int:
        assert self.may.wait(30)
        self.threads.add(threading.get_ident())
        if episode.key in self.refuses:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super()._append(episode, *given)


@pytest.fixture
def store(tmp_path: Path) -> Slow:
    open_rollouts(tmp_path / "s", TOY_ROBOT, images="lossless").close()
    return Slow(tmp_path / "s")


def episode(number: int) -> Episode:
    height, width = TOY_ROBOT.image_size
    return Episode(
        key=f"p/{number}",
        task="t",
        instruction="i",
        views=TOY_ROBOT.views,
        frames=np.full((2, len(TOY_ROBOT.views), height, width, 3), number, np.uint8),
        poses=np.zeros((2, TOY_ROBOT.pose_dim), np.float32),
        actions=np.zeros((1, TOY_ROBOT.steps_per_frame, TOY_ROBOT.action_dim), np.float32),
    )


def test_nobody_waits_until_the_end_and_the_order_is_kept(store: Slow) -> None:
    writing = Writing(store)
    for number in range(5):
        writing.put(episode(number))
    assert len(store) == 0  # all were handed over, none was written yet
    store.may.set()
    writing.finish()
    assert list(store.metadata()["key"]) == [f"p/{number}" for number in range(5)]
    assert threading.get_ident() not in store.threads
    writing.put(episode(5))  # and on it goes
    writing.finish()
    store.close()
    assert len(EpisodeStore.open(store.root)) == 6


def test_what_waits_takes_no_more_memory_than_it_may(
    store: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING_BYTES", 1)
    writing = Writing(store)
    writing.put(episode(0))  # a single one may be larger
    later = threading.Thread(target=writing.put, args=(episode(1),))
    later.start()
    later.join(0.2)
    assert later.is_alive()
    store.may.set()
    later.join(30)
    writing.finish()
    assert not later.is_alive() and len(store) == 2
    store.close()


def test_what_cannot_be_written_is_raised_and_none_after_it_is_written(store: Slow) -> None:
    store.may.set()
    store.refuses = {"p/1"}
    writing = Writing(store)
    with pytest.raises(StoreError, match="No space left"):
        for number in range(4):
            writing.put(episode(number))
        writing.finish()
    for again in (writing.finish, lambda: writing.put(episode(4))):
        with pytest.raises(StoreError, match="No space left"):
            again()
    assert list(store.metadata()["key"]) == ["p/0"]
    refused = writing.stop()  # there may be room for the others
    assert [one.key for one in refused] == ["p/1"] and "p/1" not in store.keys
    store.close()


def test_stopping_writes_what_waits_and_waits_for_no_space(store: Slow) -> None:
    store.may.set()
    store.refuses = {"p/1"}
    writing = Writing(store, disk_wait_s=1000)
    for number in range(3):
        writing.put(episode(number))
    assert [one.key for one in writing.stop()] == ["p/1"]
    assert list(store.metadata()["key"]) == ["p/0", "p/2"]
    store.close()


def test_who_presses_ctrl_c_again_leaves_no_half_of_a_film(
    store: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = Writing(store)
    writing.put(episode(0))
    join, pressed = threading.Thread.join, [1, 2]

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "writing" and pressed:
            pressed.pop()
            raise KeyboardInterrupt
        store.may.set()
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    assert writing.stop() == ()
    assert not pressed and list(store.metadata()["key"]) == ["p/0"]
    store.close()
