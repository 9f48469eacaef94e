"""What a long run survives: memory that runs out, a full disk, a server that is away."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import PolicyAwayError, PolicyGoneError, StoreError
from worldeval.rollout import pausing
from worldeval.rollout.engine import PATIENCE, run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.rollout.summary import RunInterrupted
from worldeval.types import Observation, StartState, WorldStep
from worldeval.worlds.toy import TOY_ROBOT, ToyPolicy, ToyWorld, toy_starts

SUITE = Suite(name="s", robot="toy", chunks=4, starts=toy_starts(count=4))
GUILTY = SUITE.starts[2].start_id


def rolled(
    folder: Path, world: ToyWorld | None = None, policy: ToyPolicy | None = None, **options: Any
) -> EpisodeStore:
    store = open_rollouts(folder, TOY_ROBOT, images="lossless")
    options = {"batch": 8, "progress": False, **options}
    with store:
        run(world or ToyWorld(), policy or expert(), SUITE, store, **options)
    return store


def expert() -> ToyPolicy:
    return ToyPolicy(robot=TOY_ROBOT, mistakes=0.4, clumsiness=1.0)


def listed(store: EpisodeStore) -> list[tuple[str, int, str]]:
    """Keys, lengths and outcomes, in the order of the store."""
    table = store.metadata()
    return list(zip(table["key"], table["length"], table["outcome"], strict=True))


@pytest.fixture
def plain(tmp_path: Path) -> list[tuple[str, int, str]]:
    return listed(rolled(tmp_path / "plain", batch=1))


@pytest.mark.parametrize("batch", [3, 8])
def test_a_store_has_one_order_whatever_the_batch(
    tmp_path: Path, plain: list[tuple[str, int, str]], batch: int
) -> None:
    assert len({length for _, length, _ in plain}) > 1  # they do not end together
    assert listed(rolled(tmp_path / "many", batch=batch)) == plain


class Small(ToyWorld):
    """Has memory for two rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        self.asked.append(len(starts))
        if len(starts) > 2:
            raise MemoryError("DefaultCPUAllocator: can't allocate memory")
        return super().reset(starts, seeds)


def test_memory_that_runs_out_halves_the_batch_for_good(
    tmp_path: Path, plain: list[tuple[str, int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    world = Small()
    assert listed(rolled(tmp_path / "small", world, batch=5)) == plain
    assert world.asked == [5, 3, 2, 1, 2, 2, 1]
    assert "memory ran out with a batch of 5: 3 from now" in capsys.readouterr().out


class Full(EpisodeStore):
    """On a disk that has no space for the next so many times."""

    refuses = 0

    def _append(self, *given: Any) -> int:
        if self.refuses:
            self.refuses -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return super()._append(*given)


def test_a_full_disk_is_waited_for(
    tmp_path: Path,
    plain: list[tuple[str, int, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pausing, "LOOK_AGAIN_S", 0.01)
    open_rollouts(tmp_path / "full", TOY_ROBOT, images="lossless").close()
    store = Full(tmp_path / "full")
    store.refuses = 3
    run(ToyWorld(), expert(), SUITE, store, batch=8, progress=False, disk_wait_s=60)
    store.close()
    assert listed(store) == plain
    told = capsys.readouterr().err
    assert told.count("paused:") == 1 and "No space left on device" in told
    assert "there is space again" in told


def test_a_disk_that_stays_full_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pausing, "LOOK_AGAIN_S", 0.01)
    open_rollouts(tmp_path / "full", TOY_ROBOT, images="lossless").close()
    store = Full(tmp_path / "full")
    store.refuses = 10**6
    with pytest.raises(StoreError, match="No space left on device.*free some space"):
        run(ToyWorld(), expert(), SUITE, store, batch=8, progress=False, disk_wait_s=0.05)


def test_who_interrupts_the_wait_for_space_does_not_wait_again(
    tmp_path: Path, plain: list[tuple[str, int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def interrupted(seconds: float) -> None:
        waits.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr("worldeval.rollout.pausing.time.sleep", interrupted)
    open_rollouts(tmp_path / "full", TOY_ROBOT, images="lossless").close()
    store = Full(tmp_path / "full")
    store.refuses = 10**6
    # The longest comes first: when it is to be written, others have ended too.
    long = sorted(zip(plain, SUITE.starts, strict=True), key=lambda one: -one[0][1])
    suite = replace(SUITE, starts=tuple(start for _, start in long))
    with pytest.raises(KeyboardInterrupt, match="0 of 8 rollouts") as stopped:
        run(ToyWorld(), expert(), suite, store, batch=8, progress=False, disk_wait_s=60)
    assert stopped.type is RunInterrupted and len(waits) == 1


class Unlucky(ToyPolicy):
    """Fails at one start state, so many times."""

    def __init__(self, times: int, error: type[Exception] = ValueError) -> None:
        super().__init__(robot=TOY_ROBOT, mistakes=0.4, clumsiness=1.0)
        self.times, self.error = times, error

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        if self.times and GUILTY in [one.rollout_id for one in observations]:
            self.times -= 1
            raise self.error("bad luck")
        return super().act(observations)


def test_an_error_is_tried_again_and_the_last_one_kept_with_its_traceback(
    tmp_path: Path, plain: list[tuple[str, int, str]]
) -> None:
    # Once in the batch, once alone, and once more.
    assert listed(rolled(tmp_path / "lucky", policy=Unlucky(2), retries=1)) == plain
    store = rolled(tmp_path / "unlucky", policy=Unlucky(3), retries=1)
    rows = store.metadata().set_index("start_id")
    assert list(rows["outcome"] == "error") == [start_id == GUILTY for start_id in rows.index]
    assert "ValueError: bad luck" in rows.loc[GUILTY, "error"]
    assert 'raise self.error("bad luck")' in rows.loc[GUILTY, "traceback"]


def test_a_server_that_stays_away_is_no_error_of_a_rollout(
    tmp_path: Path, plain: list[tuple[str, int, str]]
) -> None:
    away = Unlucky(1, PolicyAwayError)
    with pytest.raises(PolicyGoneError, match="bad luck.*run the same command again"):
        rolled(tmp_path / "away", policy=away, batch=2)
    assert listed(EpisodeStore.open(tmp_path / "away")) == plain[:2]
    assert listed(rolled(tmp_path / "away", policy=away, batch=2)) == plain


class OneOnly(ToyPolicy):
    """Solves one rollout, holds still in those beside it, and fails once that one is over."""

    def __init__(self, one: str) -> None:
        super().__init__(robot=TOY_ROBOT)
        self.one = one

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        ids = [one.rollout_id for one in observations]
        if self.one not in ids:
            raise ValueError("bad luck")
        actions = super().act(observations)
        actions[[name != self.one for name in ids]] = 0
        return actions


def test_a_rollout_that_ended_well_and_waits_for_its_turn_proves_the_policy(
    tmp_path: Path,
) -> None:
    suite = replace(SUITE, starts=SUITE.starts[: PATIENCE + 1])
    with open_rollouts(tmp_path / "one", TOY_ROBOT, images="lossless") as store:
        report = run(
            ToyWorld(), OneOnly(suite.starts[-1].start_id), suite, store, batch=8, progress=False
        )
    assert report.outcomes["error"] == PATIENCE
    assert [outcome for *_, outcome in listed(store)] == ["error"] * PATIENCE + ["success"]
