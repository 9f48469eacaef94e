"""The rollout loop: rollouts are independent, resumable, and no error is lost or spreads."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, MismatchError, PolicyError, StartStateError, WorldError
from worldeval.rollout.engine import PATIENCE, run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite, rollout_seed
from worldeval.rollout.summary import ChunkEvent, RunInterrupted
from worldeval.rollout.table import chunk_table, rollout_table
from worldeval.types import ActionChunk, Episode, Observation, WorldStep
from worldeval.worlds.toy import ToyPolicy, ToyWorld, toy_robot, toy_starts

ROBOT = toy_robot(views=("top", "front"), image_size=(24, 32))
GUILTY = "touch-red/evaluation/0001"


def make_suite(count: int = 2, chunks: int = 4, **changes: Any) -> Suite:
    return Suite(name="s", robot="toy", chunks=chunks, starts=toy_starts(count=count), **changes)


def new_store(folder: Path) -> EpisodeStore:
    return open_rollouts(folder, ROBOT, images="lossless")


def same(a: Episode, b: Episode) -> bool:
    """Equal in all but the seconds."""
    logs = [
        [
            {k: v for k, v in chunk.items() if k != "seconds"}
            for chunk in json.loads(e.extra["chunks"])
        ]
        for e in (a, b)
    ]
    plain = [{k: v for k, v in e.extra.items() if k != "chunks"} for e in (a, b)]
    return (
        (a.key, a.task, a.success) == (b.key, b.task, b.success)
        and plain[0] == plain[1]
        and logs[0] == logs[1]
        and all(
            np.array_equal(getattr(a, f), getattr(b, f))
            for f in ("frames", "poses", "actions", "success_at")
        )
    )


def random_toy(**options: Any) -> tuple[ToyWorld, ToyPolicy]:
    """A world and a policy that both use chance."""
    return (
        ToyWorld(robot=ROBOT, jitter_m=0.01, **options),
        ToyPolicy(robot=ROBOT, clumsiness=1.0, mistakes=0.4),
    )


class Wrapped(ToyPolicy):
    """A toy policy that does something else at one moment."""

    def __init__(self, change: Callable[[Observation, np.ndarray], np.ndarray], **options: Any):
        super().__init__(robot=ROBOT, **{"clumsiness": 1.0, "mistakes": 0.4, **options})
        self._change = change
        self.seen: list[tuple[str, int]] = []

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        actions = super().act(observations)
        self.seen += [(o.rollout_id, o.step) for o in observations]
        return np.stack([self._change(o, a) for o, a in zip(observations, actions, strict=True)])


def test_a_batch_of_four_equals_four_of_one_in_any_order(tmp_path: Path) -> None:
    suite = make_suite()
    backwards = dataclasses.replace(suite, starts=suite.starts[::-1])
    stores = [new_store(tmp_path / name) for name in "abc"]
    for store, one, batch in zip(stores, (suite, suite, backwards), (4, 1, 3), strict=True):
        run(*random_toy(), one, store, batch=batch, progress=False)
    lengths = set()
    for key in stores[0].keys:
        episode = stores[0].by_key(key)
        lengths.add(episode.length)
        assert same(episode, stores[1].by_key(key))
        assert same(episode, stores[2].by_key(key))
    assert len(lengths) > 1  # some ended early, so rows did come and go


def test_the_seed_is_the_suites_unless_given(tmp_path: Path) -> None:
    stores = [new_store(tmp_path / name) for name in "abc"]
    run(*random_toy(), make_suite(seed=5), stores[0], batch=4, progress=False)
    run(*random_toy(), make_suite(), stores[1], batch=4, seed=5, progress=False)
    run(*random_toy(), make_suite(), stores[2], batch=4, progress=False)
    key = f"toy-expert/{GUILTY}"
    assert same(stores[0].by_key(key), stores[1].by_key(key))
    assert not same(stores[0].by_key(key), stores[2].by_key(key))
    assert stores[0].by_key(key).extra["seed"] == rollout_seed(5, GUILTY, "world")


def test_what_is_kept_of_a_rollout(tmp_path: Path) -> None:
    suite = make_suite(count=4)
    world, policy = ToyWorld(robot=ROBOT), ToyPolicy(robot=ROBOT, mistakes=0.5)
    store = new_store(tmp_path)
    report = run(world, policy, suite, store, batch=3, progress=False)
    assert set(store.keys) == {f"toy-expert/{s.start_id}" for s in suite.starts}
    assert report.outcomes["success"] > 0 and report.outcomes["failure"] > 0
    assert report.rollouts == 8 and report.outcomes["undecided"] == report.outcomes["error"] == 0
    assert report.frames == sum(e.length - 1 for e in store) and report.frames_per_s > 0
    assert set(report.seconds) == {"policy", "model", "decode", "write", "engine"}
    assert sum(report.seconds.values()) == pytest.approx(report.wall_s)
    assert min(report.seconds.values()) >= 0
    for episode in store:
        assert episode.success_at is not None
        assert episode.success is bool(episode.success_at.any())
        assert episode.extra["outcome"] == ("success" if episode.success else "failure")
        assert episode.extra["steps"] == 2 * (episode.length - 1)
        # Ends one chunk after that of the first success, at most after 4 chunks of 3 frames.
        assert (episode.length - 1) % 3 == 0
        first = np.argmax(episode.success_at) if episode.success else 3 * 4
        assert episode.length == 1 + 3 * min(4, 1 - (-first // 3))
        # The poses are what the actions command, from the start pose on.
        assert np.allclose(
            episode.poses[1:],
            ROBOT.integrate(episode.poses[0], episode.actions.reshape(-1, 4)),
            atol=1e-6,
        )


def test_worlds_without_truth_leave_it_undecided(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    report = run(*random_toy(truth=False), make_suite(), store, batch=4, progress=False)
    assert report.outcomes == {"success": 0, "failure": 0, "undecided": 4, "error": 0}
    assert {(e.length, e.success, e.success_at is None) for e in store} == {(13, None, True)}


def test_only_going_rollouts_are_asked_and_see_what_they_named(tmp_path: Path) -> None:
    shown: list[Observation] = []

    def look(observation: Observation, actions: np.ndarray) -> np.ndarray:
        shown.append(observation)
        return actions

    policy = Wrapped(look, clumsiness=0.0)
    store = new_store(tmp_path)
    run(ToyWorld(robot=ROBOT), policy, make_suite(count=4), store, batch=8, progress=False)
    asked = {e.extra["start_id"]: list(range(0, e.extra["steps"], 6)) for e in store}
    for start_id, steps in asked.items():
        assert [step for i, step in policy.seen if i == start_id] == steps
    assert set(shown[0].images) == {"top", "front"} and set(shown[0].state) == {"pose"}
    assert shown[0].images["top"].shape == (24, 32, 3)


def test_images_are_made_smaller_by_area(tmp_path: Path) -> None:
    shown: list[Observation] = []

    def look(observation: Observation, actions: np.ndarray) -> np.ndarray:
        shown.append(observation)
        return actions

    policy = Wrapped(look)
    policy.spec = dataclasses.replace(policy.spec, image_size=(12, 16))
    store = new_store(tmp_path)
    run(ToyWorld(robot=ROBOT), policy, make_suite(count=1), store, batch=2, progress=False)
    frame = store.by_key("toy-expert/touch-red/evaluation/0000").frames[0, 0]
    mean = frame.reshape(12, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(shown[0].images["top"] - mean).max() <= 0.5


def fail_for_guilty(observation: Observation, actions: np.ndarray) -> np.ndarray:
    if observation.rollout_id == GUILTY and observation.step >= 6:
        raise RuntimeError("out of cheese")
    return actions


def nan_for_guilty(observation: Observation, actions: np.ndarray) -> np.ndarray:
    if observation.rollout_id == GUILTY and observation.step >= 6:
        actions = actions.copy()
        actions[2, 1] = np.nan
    return actions


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (fail_for_guilty, "policy 'toy-expert' raised RuntimeError: out of cheese"),
        (nan_for_guilty, "answered nan for 'dy'"),
    ],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_only_the_guilty_rollout_is_an_error(
    tmp_path: Path, change: Callable[..., np.ndarray], text: str, batch: int
) -> None:
    suite = make_suite(seed=1)
    world = ToyWorld(robot=ROBOT, jitter_m=0.01)
    good, store = new_store(tmp_path / "good"), new_store(tmp_path / "bad")
    options = {"mistakes": 1.0}  # nobody ends before the error
    run(world, Wrapped(lambda o, a: a, **options), suite, good, batch=batch, progress=False)
    report = run(world, Wrapped(change, **options), suite, store, batch=batch, progress=False)
    assert report.outcomes == {"success": 0, "failure": 3, "undecided": 0, "error": 1}
    for key in good.keys - {f"toy-expert/{GUILTY}"}:
        assert same(good.by_key(key), store.by_key(key))
    wrong, right = (s.by_key(f"toy-expert/{GUILTY}") for s in (store, good))
    assert wrong.extra["outcome"] == "error" and text in wrong.extra["error"]
    assert wrong.success is None and wrong.length == 4
    assert np.array_equal(wrong.frames, right.frames[:4])


def test_a_failing_world_is_an_error_of_its_rollout(tmp_path: Path) -> None:
    class Falling(ToyWorld):
        def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
            if any(self._starts[row].start_id == GUILTY for row in rows):
                raise ZeroDivisionError("unstable")
            return super().step(chunk, rows)

    store = new_store(tmp_path)
    report = run(
        Falling(robot=ROBOT), ToyPolicy(robot=ROBOT), make_suite(), store, batch=4, progress=False
    )
    assert report.outcomes["error"] == 1 and report.outcomes["success"] == 3
    bad = store.by_key(f"toy-expert/{GUILTY}")
    assert "world 'toy' raised ZeroDivisionError: unstable" in bad.extra["error"]
    assert bad.length == 1 and bad.extra["steps"] == 0


def test_a_rollout_that_cannot_even_begin_is_counted(tmp_path: Path) -> None:
    class Stuck(ToyWorld):
        def reset(self, starts: Any, seeds: Any) -> WorldStep:
            if any(start.start_id == GUILTY for start in starts):
                raise WorldError("the drawer is stuck")
            return super().reset(starts, seeds)

    store = new_store(tmp_path)
    report = run(
        Stuck(robot=ROBOT), ToyPolicy(robot=ROBOT), make_suite(), store, batch=4, progress=False
    )
    assert report.outcomes["error"] == 1 and report.outcomes["success"] == 3
    bad = store.by_key(f"toy-expert/{GUILTY}")
    assert bad.extra["error"] == "the drawer is stuck" and not bad.frames.any()


def test_a_world_that_breaks_its_promise(tmp_path: Path) -> None:
    class Short(ToyWorld):
        def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
            seen = super().step(chunk, rows)
            return dataclasses.replace(seen, frames=seen.frames[:, :1])

    with pytest.raises(WorldError, match=r"frames of shape \(1, 1, 2, 24, 32, 3\), expected"):
        run(
            Short(robot=ROBOT),
            ToyPolicy(robot=ROBOT),
            make_suite(),
            new_store(tmp_path),
            batch=1,
            progress=False,
        )


@pytest.mark.parametrize(("batch", "tried"), [(1, PATIENCE), (3, PATIENCE), (8, PATIENCE)])
def test_a_policy_that_never_works_stops_the_run(tmp_path: Path, batch: int, tried: int) -> None:
    policy = Wrapped(lambda o, a: a[:3])
    store = new_store(tmp_path)
    with pytest.raises(PolicyError, match=rf"shape .*expected .*all {tried} rollouts"):
        run(ToyWorld(robot=ROBOT), policy, make_suite(count=4), store, batch=batch, progress=False)
    assert len(store) == 0  # so that a mended policy is tried again


@pytest.mark.parametrize("place", [0, 3])
def test_the_first_and_the_last_rollout_may_fail(tmp_path: Path, place: int) -> None:
    suite = make_suite()
    guilty = suite.starts[place].start_id

    def fail(observation: Observation, actions: np.ndarray) -> np.ndarray:
        if observation.rollout_id == guilty:
            raise ValueError("not this one")
        return actions

    store = new_store(tmp_path)
    report = run(ToyWorld(robot=ROBOT), Wrapped(fail), suite, store, batch=1, progress=False)
    assert report.outcomes["error"] == 1 and len(store) == 4


def test_a_proven_policy_may_fail_in_all_that_is_left(tmp_path: Path) -> None:
    suite, store = make_suite(), new_store(tmp_path)
    reds = dataclasses.replace(suite, starts=suite.starts[:2])
    run(ToyWorld(robot=ROBOT), ToyPolicy(robot=ROBOT), reds, store, batch=2, progress=False)
    report = run(
        ToyWorld(robot=ROBOT),
        Wrapped(lambda o, a: a * np.nan),
        suite,
        store,
        batch=2,
        progress=False,
    )
    assert (report.resumed, report.outcomes["error"], len(store)) == (2, 2, 4)


def test_a_start_state_that_does_not_exist_stops_the_run(tmp_path: Path) -> None:
    suite = make_suite()
    starts = (*suite.starts[:3], dataclasses.replace(suite.starts[3], task="fly"))
    store = new_store(tmp_path)
    with pytest.raises(StartStateError, match="task 'fly' does not exist"):
        run(
            *random_toy(), dataclasses.replace(suite, starts=starts), store, batch=3, progress=False
        )
    assert len(store) == 3  # what was finished before stays


def test_interrupted_and_continued_equals_uninterrupted(tmp_path: Path) -> None:
    suite = make_suite(count=3)
    whole, parts = new_store(tmp_path / "whole"), new_store(tmp_path / "parts")
    run(*random_toy(), suite, whole, batch=4, progress=False)

    def stop(event: ChunkEvent) -> None:
        if event.starts[0] in suite.starts[4:]:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted, match="4 of 6 rollouts of 'toy-expert' are kept") as caught:
        run(*random_toy(), suite, parts, batch=2, progress=False, on_chunk=stop)
    assert caught.value.report.rollouts == 4 and isinstance(caught.value, KeyboardInterrupt)
    parts.close()
    parts = new_store(tmp_path / "parts")
    report = run(*random_toy(), suite, parts, batch=4, progress=False)
    assert (report.resumed, report.rollouts) == (4, 2)
    assert parts.keys == whole.keys
    assert all(same(parts.by_key(key), whole.by_key(key)) for key in whole.keys)
    again = run(*random_toy(), suite, parts, batch=4, progress=False)
    assert (again.resumed, again.rollouts) == (6, 0)


def test_policies_share_a_store_and_the_worlds_chance(tmp_path: Path) -> None:
    store, world = new_store(tmp_path), ToyWorld(robot=ROBOT, jitter_m=0.02)
    for name in ("a", "b"):
        run(world, ToyPolicy(robot=ROBOT, name=name), make_suite(), store, batch=4, progress=False)
    assert len(store) == 8
    assert np.array_equal(store.by_key(f"a/{GUILTY}").frames, store.by_key(f"b/{GUILTY}").frames)


def test_executing_less_than_a_chunk_lasts_as_long(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    policy = Wrapped(lambda o, a: a, mistakes=1.0, execute=4)
    run(ToyWorld(robot=ROBOT), policy, make_suite(chunks=3), store, batch=4, progress=False)
    assert {e.extra["steps"] for e in store} == {18}
    assert [step for i, step in policy.seen if i == GUILTY] == [0, 4, 8, 12, 16]


def test_disagreements_are_found_before_the_first_step(tmp_path: Path) -> None:
    store, world, policy = new_store(tmp_path), ToyWorld(robot=ROBOT), ToyPolicy(robot=ROBOT)
    suite = make_suite()
    with pytest.raises(MismatchError, match="for robot 'other', world 'toy' has 'toy'"):
        run(world, policy, dataclasses.replace(suite, robot="other"), store, batch=1)
    with pytest.raises(MismatchError, match="camera 'wrist'"):
        policy.spec = dataclasses.replace(policy.spec, cameras=("wrist",))
        run(world, policy, suite, store, batch=1)
    with pytest.raises(ConfigError, match="batch is 0"):
        run(world, ToyPolicy(robot=ROBOT), suite, store, batch=0)
    assert len(store) == 0


class Imagined(ToyWorld):
    """Says where its time goes, as imagination does."""

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        seen = super().step(chunk, rows)
        info = [
            {"retrieved": np.array([0, 3]), "nfe": 5, "decode_s": 1e-6, "model_s": 2e-6}
            for _ in rows
        ]
        return dataclasses.replace(seen, info=info)


def test_each_chunk_keeps_its_log(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    world = Imagined(robot=ROBOT, truth=False)
    report = run(
        world, ToyPolicy(robot=ROBOT), make_suite(chunks=2), store, batch=4, progress=False
    )
    log = json.loads(store.episode(0).extra["chunks"])
    assert [(c["step"], c["retrieved"], c["nfe"]) for c in log] == [(0, [0, 3], 5), (6, [0, 3], 5)]
    assert log[0]["seconds"]["decode"] == 1e-6
    # What the world does not name itself counts as model.
    assert log[0]["seconds"]["model"] >= 2e-6 and "decode_s" not in log[0]
    assert set(log[0]["seconds"]) == {"policy", "model", "decode", "write"}
    assert report.seconds["decode"] == pytest.approx(8e-6)
    table = chunk_table(store)
    assert list(table["chunk"]) == [0, 1] * 4 and list(table["nfe"]) == [5] * 8
    assert table["seconds_decode"].sum() == pytest.approx(8e-6)


def test_memory_does_not_grow_while_a_rollout_goes_on(tmp_path: Path) -> None:
    held: list[int] = []

    def measure(event: ChunkEvent) -> None:
        held.append(tracemalloc.get_traced_memory()[0])

    world, policy = ToyWorld(robot=ROBOT, truth=False), ToyPolicy(robot=ROBOT)
    store = new_store(tmp_path)
    run(world, policy, make_suite(count=1, chunks=1), store, batch=1, progress=False)  # imports
    suite = make_suite(count=2, chunks=50, seed=1).subset(["touch-green"])
    suite = dataclasses.replace(suite, starts=suite.starts[1:])
    tracemalloc.start()
    try:
        run(world, policy, suite, store, batch=1, progress=False, on_chunk=measure)
    finally:
        tracemalloc.stop()
    frames_of_one_chunk = 3 * 2 * 24 * 32 * 3
    # What is noted of each chunk (1.7 kB) is kept until the rollout ends, its frames are not.
    assert len(held) == 50 and held[-1] - held[4] < 45 * frames_of_one_chunk / 5


def test_the_truth_as_a_verdict_table(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert list(rollout_table(store).columns[:8]) == [
        "key",
        "policy",
        "task",
        "start_id",
        "world",
        "judge",
        "outcome",
        "probability",
    ]
    run(ToyWorld(robot=ROBOT), ToyPolicy(robot=ROBOT), make_suite(), store, batch=4, progress=False)
    table = rollout_table(store)
    assert set(table["start_id"]) == {s.start_id for s in make_suite().starts}
    assert set(table["outcome"]) == {"success"} and set(table["judge"]) == {"world"}
    assert table["probability"].isna().all() and set(table["policy"]) == {"toy-expert"}
