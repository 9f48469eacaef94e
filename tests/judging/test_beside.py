"""Judged while rollouts are written: the table is that of judging at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

import worldeval
from tests.judging.conftest import walk
from worldeval import shipped
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import read_parquet
from worldeval.errors import JudgeError
from worldeval.judging import beside
from worldeval.judging.beside import judging_beside
from worldeval.judging.loading import load_judge
from worldeval.judging.tables import judge_store, kept_path, kept_verdicts
from worldeval.types import Episode, Outcome, Verdict

MakeStore = Callable[..., EpisodeStore]
PATIENCE_S = 60.0


class Looking:
    """Says success of every rollout, with the number of its name as its probability."""

    beside = True

    def __init__(self, fails: bool = False, takes_s: float = 0.0) -> None:
        self.name, self.fails, self.takes_s = "looking", fails, takes_s
        self.asked: list[tuple[str, str]] = []  # (thread, key)

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        self.asked += [(threading.current_thread().name, episode.key) for episode in episodes]
        time.sleep(self.takes_s)
        if self.fails:
            raise JudgeError("it cannot look")
        return [
            Verdict(
                key=episode.key,
                outcome=Outcome.SUCCESS,
                probability=int(episode.key[-2:]) / 100,
                judge=self.name,
            )
            for episode in episodes
        ]

    @property
    def asked_beside(self) -> list[str]:
        return [key for thread, key in self.asked if thread == "judging"]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "EVERY_S", 0.01)


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.005)


def judging_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "judging"]


def append(store: EpisodeStore, first: int, end: int) -> None:
    for number in range(first, end):
        store.append(walk(f"far/{number:02d}", task="far", to="far", row=number % 5))


def test_what_is_judged_beside_is_what_is_judged_at_the_end(make_store: MakeStore) -> None:
    judge = Looking()
    with make_store("s", ()) as store, judging_beside(judge, store.root):
        for first in range(0, 24, 8):
            append(store, first, first + 8)
            until(lambda ready=first + 8: len(judge.asked) >= ready)
        append(store, 24, 27)  # too few to look at by themselves
    assert len(judge.asked_beside) == 24
    table = kept_verdicts(judge, EpisodeStore.open(store.root))
    assert len(judge.asked) == 27, "no rollout is judged twice"
    pd.testing.assert_frame_equal(table, judge_store(Looking(), store), check_exact=True)
    assert table.attrs == judge_store(Looking(), store).attrs


def test_a_store_may_come_later_and_the_working_folder_may_change(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Looking()
    monkeypatch.chdir(tmp_path)
    with judging_beside(judge, Path("s")):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        time.sleep(0.05)
        with make_store("s", ()) as store:
            append(store, 0, 8)
        until(lambda: len(judge.asked) == 8)
    assert store.root == tmp_path / "s"


def test_what_goes_wrong_is_raised_where_the_rest_is_judged(make_store: MakeStore) -> None:
    judge = Looking(fails=True)
    with make_store("s", ()) as store, judging_beside(judge, store.root):
        append(store, 0, 8)
        until(lambda: bool(judge.asked) and not judging_threads())
        append(store, 8, 16)  # the rollouts go on
    assert len(judge.asked) == 8
    with pytest.raises(JudgeError, match="it cannot look"):
        kept_verdicts(judge, store)


@pytest.mark.parametrize("stopped_by", [None, KeyboardInterrupt, ValueError])
def test_it_ends_with_the_rollouts_and_keeps_what_it_has(
    make_store: MakeStore, stopped_by: type[BaseException] | None
) -> None:
    judge = Looking(takes_s=0.4)
    with make_store("s", ()) as store:
        append(store, 0, 24)
    try:
        with judging_beside(judge, store.root):
            until(lambda: len(judge.asked) >= 8)
            if stopped_by is not None:
                raise stopped_by
    except (KeyboardInterrupt, ValueError):
        assert stopped_by is not None
    assert not judging_threads() and len(judge.asked) < 24
    kept = read_parquet(kept_path(judge.name, store.root))
    assert kept["key"].tolist() == [key for _, key in judge.asked]
    table = kept_verdicts(judge, store)
    pd.testing.assert_frame_equal(table, judge_store(Looking(), store), check_exact=True)


def test_only_judges_that_say_so_are_asked_in_another_thread(make_store: MakeStore) -> None:
    judge = Looking()
    judge.beside = False
    store = make_store("s", range(1, 5))
    for one in (judge, None):
        with judging_beside(one, store.root):
            assert not judging_threads()
            time.sleep(0.05)
    assert not judge.asked


@pytest.mark.weights
def test_an_evaluation_in_imagination_is_judged_beside_with_the_same_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []

    def seen(*given: object) -> pd.DataFrame:
        table = kept_verdicts(*given)  # type: ignore[arg-type]
        judged.append(len(table))
        return table

    monkeypatch.setattr(beside, "kept_verdicts", seen)
    run = worldeval.evaluate(
        ["random", "zero"], out=tmp_path / "run", chunks=1, per_task=1, batch=4, threads=1,
        trust=False, controls=False,
    )  # fmt: skip
    assert judged, "nothing was judged while rollouts went on"
    (place,) = run.stores
    judge = load_judge(shipped.path(shipped.JUDGE))
    at_the_end = judge_store(judge, EpisodeStore.open(place)).drop(columns="seconds")
    pd.testing.assert_frame_equal(
        run.verdicts.drop(columns="seconds"), at_the_end, check_exact=True
    )
