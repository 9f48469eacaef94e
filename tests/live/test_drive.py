"""Driving by hand: the same world as an evaluation's, exact branches, episodes with provenance."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.world_model.test_model import autoencoder, model, robot
from tests.world_model.test_training import write_store
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.imagination.env import Imagination
from worldeval.live.drive import Drive
from worldeval.policies.scripted import RandomPolicy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.testing import ToyPolicy, ToyWorld, toy_starts
from worldeval.world_model.latent_rollout import FrameRollouts


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Imagination:
    store = write_store(tmp_path_factory.mktemp("live") / "store")
    return Imagination(FrameRollouts(model(), autoencoder()), robot(), store)


@pytest.fixture
def drive(world) -> Drive:
    return Drive(world.beside(), world.start_states()[0], seed=3)


def toy(**options) -> Drive:
    return Drive(ToyWorld(**options), toy_starts(count=1)[0])


def test_keys_move_the_hand_as_they_say_and_the_gripper_stays(drive) -> None:
    before = drive.pose.copy()
    moment = drive.keys("ru")
    assert (drive.pose - before)[:3] == pytest.approx([0.06, 0, 0.06], abs=1e-6)
    assert moment.frames == 5 and moment.by == "keys" and moment.what == "ru"
    assert 0 < moment.seconds < 60
    drive.keys("c")
    drive.keys("l")
    assert drive.pose[3] == 1.0, "closed until told otherwise"
    assert drive.frames.shape == (13, 2, 16, 16, 3)


def test_a_policy_acts_as_in_an_evaluation(world, tmp_path) -> None:
    start = world.start_states()[1]
    policy = RandomPolicy(world.robot)
    policy.spec = replace(policy.spec, execute=7)  # not whole frames
    suite = Suite(name="s", robot=world.robot.name, chunks=3, starts=(start,), seed=3)
    store = open_rollouts(tmp_path, world.robot, images="lossless")
    run(world, policy, suite, store, batch=1, progress=False)
    evaluated = store.episode(0)
    drive = Drive(world.beside(), start, seed=3)
    while drive.now.frames < evaluated.length:
        drive.let(policy)
    count = evaluated.length
    assert np.array_equal(drive.poses[:count], evaluated.poses)
    # The evaluation ends with its third chunk, so of its last frames fewer were asked for.
    assert np.array_equal(drive.frames[: count - 3], evaluated.frames[: count - 3])
    kept = drive.episode("k").extra
    same = ("world", "start_id", "start_seed", "seed", "start_digest")
    assert {n: kept[n] for n in same} == {n: evaluated.extra[n] for n in same}


def test_a_toy_policy_follows_the_typed_instruction_and_control_is_taken_back() -> None:
    drive = toy()
    other = toy_starts(count=1)[1]
    policy = ToyPolicy()
    for _ in range(6):
        drive.let(policy, other.instruction)
    there = drive.pose[:3].copy()
    goal = Drive(ToyWorld(), other)
    for _ in range(6):
        goal.let(ToyPolicy())
    assert np.linalg.norm(there - goal.pose[:3]) < 0.03
    drive.keys("u")
    assert drive.pose[2] > there[2]
    with pytest.raises(PolicyError, match="does not understand"):
        drive.let(policy, "dance")
    assert drive.now.by == "keys", "what failed changed nothing"


@pytest.mark.parametrize("imagined", [True, False])
def test_from_a_past_moment_it_goes_on_to_the_bit(world, imagined) -> None:
    drive = Drive(world.beside(), world.start_states()[0]) if imagined else toy(jitter_m=0.01)
    drive.keys("r")
    there = drive.keys("u").number
    expected = drive.new_frames(drive.keys("f").number)
    drive.keys("d")
    drive.go(0)
    drive.keys("l")
    drive.go(there)
    again = drive.keys("f")
    assert np.array_equal(drive.new_frames(again.number), expected)
    assert again.parent == there and [m.parent for m in drive.moments][1:5] == [0, 1, 2, 3]
    drive.go(4)
    assert drive.now.frames == 1 + 4 * drive.robot.frames_per_chunk, "the other way is still there"


def test_it_branches_within_a_chunk_too(drive) -> None:
    drive.keys("r")
    seen = drive.frames
    moment = drive.go(1, frames=2)
    assert moment.frames == 3 and np.array_equal(drive.frames, seen[:3])
    drive.keys("l")
    assert drive.now.frames == 7 and np.array_equal(drive.frames[:3], seen[:3])
    with pytest.raises(ConfigError, match="has 4 frames, 9 were"):
        drive.go(1, frames=9)
    with pytest.raises(ConfigError, match="no moment 77"):
        drive.go(77)


def test_drives_of_one_model_do_not_touch_each_other(world) -> None:
    one, other = (Drive(world.beside(), start) for start in world.start_states()[:2])
    one.keys("r")
    alone = Drive(world.beside(), world.start_states()[0])
    other.keys("l")
    one.keys("u")
    alone.keys("r")
    alone.keys("u")
    assert np.array_equal(one.frames, alone.frames)


def test_an_episode_is_kept_with_who_moved_when(drive, tmp_path) -> None:
    with pytest.raises(ConfigError, match="nothing has been driven"):
        drive.episode("k")
    drive.keys("r")
    drive.let(RandomPolicy(drive.robot, name="chance"), "wave")
    drive.follow(np.repeat(drive.pose[None], 3, 0))
    store = open_rollouts(tmp_path, drive.robot, images="lossless")
    store.append(drive.episode("live/a/001"))
    store.close()
    episode = EpisodeStore.open(tmp_path).episode(0)
    assert np.array_equal(episode.frames, drive.frames)
    chunks = json.loads(episode.extra["chunks"])
    assert [c["by"] for c in chunks] == ["keys", "policy", "poses"]
    assert chunks[1]["what"] == "chance" and chunks[1]["instruction"] == "wave"
    assert [c["step"] for c in chunks] == [0, 12, 24] and "retrieved" in chunks[0]
    assert episode.extra["driven_by"] == "keys, policy, poses" and episode.extra["steps"] == 33
    assert drive.robot.integrate(episode.poses[0], episode.actions.reshape(-1, 4)) == pytest.approx(
        episode.poses[1:], abs=1e-5
    )


def test_poses_are_followed_and_what_is_too_fast_is_caught_up(drive) -> None:
    there = drive.pose.copy()
    there[0] += 0.1
    drive.follow(np.repeat(there[None], 2, 0))
    assert drive.pose[0] == pytest.approx(there[0] - 0.04), "6 cm in 2 frames at most"
    drive.follow(np.repeat(there[None], 2, 0))
    assert drive.pose[0] == pytest.approx(there[0])
    with pytest.raises(MismatchError, match="shape"):
        drive.follow(np.zeros((2, 3)))
    with pytest.raises(MismatchError, match="not finite"):
        drive.follow(np.full((2, 4), np.nan))


@pytest.mark.parametrize("typed", ["q", "x"])
def test_keys_without_a_meaning_are_told(drive, typed) -> None:
    with pytest.raises((ConfigError, PolicyError), match="no meaning"):
        drive.keys(typed)
    assert len(drive.moments) == 1
