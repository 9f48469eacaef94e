"""A recorded store as a world."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import MismatchError, StartStateError, WorldError
from worldeval.policies.scripted import ZeroPolicy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.types import ActionChunk, StartState
from worldeval.worlds.recorded import RecordedWorld
from worldeval.worlds.toy import ToyPolicy, ToyWorld, toy_robot, toy_starts

ROBOT = toy_robot(views=("top", "front"), image_size=(24, 32))
SUITE = Suite(name="s", robot="toy", chunks=4, starts=toy_starts(count=1))


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Two tasks by two policies, one that always succeeds and one that never does."""
    store = open_rollouts(tmp_path / "store", ROBOT, images="lossless")
    for name, mistakes in (("good", 0.0), ("bad", 1.0)):
        policy = ToyPolicy(robot=ROBOT, name=name, mistakes=mistakes)
        run(ToyWorld(robot=ROBOT), policy, SUITE, store, batch=2, progress=False)
    return store


def any_chunk(rows: int, frames: int = 3) -> ActionChunk:
    return ActionChunk(
        actions=np.ones((rows, 2 * frames, 4), np.float32),
        poses=np.ones((rows, frames, 4), np.float32),
    )


def test_it_shows_what_was_recorded_whatever_actions_come(store: EpisodeStore) -> None:
    world = RecordedWorld(store, ROBOT)
    suite = Suite(name="again", robot="toy", chunks=4, starts=world.start_states())
    replayed = open_rollouts(store.root.parent / "again", ROBOT, images="lossless")
    run(world, ZeroPolicy(ROBOT), suite, replayed, batch=3, progress=False)
    assert len(replayed) == 4
    for key in store.keys:
        true, shown = store.by_key(key), replayed.by_key(f"zero/{key}")
        assert np.array_equal(true.frames, shown.frames)
        assert np.array_equal(true.poses, shown.poses)
        assert np.array_equal(true.success_at, shown.success_at)
        assert (true.success, true.task, true.instruction) == (
            shown.success,
            shown.task,
            shown.instruction,
        )


def test_the_last_frame_stays(store: EpisodeStore) -> None:
    world = RecordedWorld(store, ROBOT, policy="good")
    episode = store.by_key(f"good/{SUITE.starts[0].start_id}")
    world.reset(SUITE.starts, [0, 0])
    held, last = 0, world.step(any_chunk(1), [0])
    for _ in range(5):
        last = world.step(any_chunk(1), [0])
        held += last.info[0]["held"]
    assert held == 6 * 3 - (episode.length - 1) > 0
    assert np.array_equal(last.frames[0, -1], episode.frames[-1])


def test_rows_have_their_own_time(store: EpisodeStore) -> None:
    world = RecordedWorld(store, ROBOT, policy="bad")
    episodes = [store.by_key(f"bad/{s.start_id}") for s in SUITE.starts]
    world.reset(SUITE.starts, [0, 0])
    world.step(any_chunk(1, frames=2), [1])
    seen = world.step(any_chunk(2), [0, 1])
    assert np.array_equal(seen.frames[0], episodes[0].frames[1:4])
    assert np.array_equal(seen.frames[1], episodes[1].frames[3:6])
    start = world.reset_rows([1], SUITE.starts[:1], [0])
    assert np.array_equal(start.frames[0, 0], episodes[0].frames[0])
    assert np.array_equal(world.step(any_chunk(1), [0]).frames[0], episodes[0].frames[4:7])


def test_start_states_that_do_not_exist_or_are_many(store: EpisodeStore) -> None:
    world = RecordedWorld(store, ROBOT)
    nowhere = dataclasses.replace(SUITE.starts[0], start_id="nowhere")
    with pytest.raises(StartStateError, match="'nowhere' is neither a key nor a start_id"):
        world.reset([nowhere], [0])
    with pytest.raises(StartStateError, match="has 2 recordings .* policy=NAME"):
        world.reset(SUITE.starts, [0, 0])
    with pytest.raises(MismatchError, match="no rollouts of policy 'best'"):
        RecordedWorld(store, ROBOT, policy="best")
    with pytest.raises(WorldError, match="row 0 was never reset"):
        fresh = RecordedWorld(store, ROBOT)
        fresh._episodes, fresh._time = [None], [0]
        fresh.step(any_chunk(1), [0])


def test_truth_can_be_hidden_and_must_exist(store: EpisodeStore, tmp_path: Path) -> None:
    hidden = RecordedWorld(store, ROBOT, truth=False)
    assert hidden.reset(hidden.start_states(), [0] * 4).success is None
    unknown = open_rollouts(tmp_path / "unknown", ROBOT, images="lossless")
    run(
        ToyWorld(robot=ROBOT, truth=False),
        ToyPolicy(robot=ROBOT),
        SUITE,
        unknown,
        batch=2,
        progress=False,
    )
    assert RecordedWorld(unknown, ROBOT).reset(SUITE.starts, [0, 0]).success is None
    with pytest.raises(WorldError, match="has no success flags; make the world with truth=False"):
        RecordedWorld(unknown, ROBOT, truth=True).reset(SUITE.starts, [0, 0])


def test_start_states_of_a_store(store: EpisodeStore) -> None:
    start = RecordedWorld(store.root, ROBOT).start_states()[0]
    assert start == StartState(
        start_id="good/touch-red/evaluation/0000",
        task="touch-red",
        seed=2,
        split="evaluation",
        instruction="move to the red disc",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "has robot 'toy', robot 'other' has 'other'"),
        ({"image_size": (32, 32)}, r"has image size \(24, 32\)"),
        ({"steps_per_frame": 1}, "has control steps per frame 2"),
        ({"control_hz": 40.0}, "has frames per second 10.0"),
        ({"pose_names": ("a", "b", "c", "d")}, "has pose names"),
    ],
)
def test_another_robot_is_refused(store: EpisodeStore, change: dict, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        RecordedWorld(store, dataclasses.replace(ROBOT, **change))


def test_a_store_is_a_world_by_name(tmp_path: Path) -> None:
    from worldeval import cli, testing
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.errors import ConfigError, StoreError
    from worldeval.worlds.loading import load_world

    robot = testing.TOY_ROBOT
    suite = Suite(name="s", robot=robot.name, chunks=2, starts=testing.toy_starts(count=1))
    with open_rollouts(tmp_path / "a", robot, images="lossless") as made:
        run(testing.ToyWorld(), testing.ToyPolicy(), suite, made, batch=2, progress=False)
    name = f"recorded:{tmp_path / 'a'}?policy=toy"
    said = {e.extra["policy"] for e in EpisodeStore.open(tmp_path / "a")}
    name = name.replace("=toy", f"={said.pop()}")
    words = ["rollout", "--world", name, "--policy", "zero", "--out", str(tmp_path / "b")]
    assert cli.main(words) == 0
    a, b = EpisodeStore.open(tmp_path / "a"), EpisodeStore.open(tmp_path / "b")
    assert len(a.keys) == len(b.keys) == len(suite.starts)
    for one, other in zip(a, b, strict=True):
        assert np.array_equal(one.poses[: other.length], other.poses)
        assert one.success == other.success
    with pytest.raises(ConfigError, match="no argument 'polcy', did you mean 'policy'"):
        load_world(f"recorded:{tmp_path / 'a'}?polcy=x")
    with pytest.raises(ConfigError, match="names no store"):
        load_world("recorded:")
    with pytest.raises((StoreError, ConfigError), match="nowhere"):
        load_world(f"recorded:{tmp_path / 'nowhere'}")
