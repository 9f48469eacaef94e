"""Whatever number of control steps a policy executes, it runs in every world, and alike.

Policies here replay one fixed sequence of commands, so that all of them command the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world_model.test_model import autoencoder, model
from tests.world_model.test_model import robot as imagined_robot
from tests.world_model.test_training import write_store
from worldeval.imagination.env import Imagination
from worldeval.imagination.replay import suite_of
from worldeval.robots import RobotSpec
from worldeval.rollout.engine import run
from worldeval.rollout.gathering import Gathered
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.types import Episode, Observation, PolicySpec, World
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.worlds.toy import ToyPolicy, ToyWorld, toy_robot, toy_starts

LENGTHS = (1, 8, 9, 10, 12, 50)
TOY = toy_robot(image_size=(16, 16), steps_per_frame=3, frames_per_chunk=4)


def commands_of(rollout: str, robot: RobotSpec, steps: int) -> np.ndarray:
    """One sequence (steps, A) per rollout, slow enough to stay within the robot's bounds."""
    rng = np.random.default_rng(sum(map(ord, rollout)))
    actions = rng.uniform(robot.action_low, robot.action_high, (steps, robot.action_dim))
    return (0.3 * actions).astype(np.float32)


class OpenLoop:
    """Answers the next ``chunk`` of its fixed commands, of which ``execute`` are carried out."""

    def __init__(self, robot: RobotSpec, chunk: int, execute: int | None = None, **spec: str):
        self.robot = robot
        self.asked: list[tuple[str, int]] = []
        self.spec = PolicySpec(
            **{"name": f"of-{chunk}", **spec},
            cameras=robot.views[:1],
            image_size=None,
            state_keys=(),
            action_space=robot.action_space,
            action_dim=robot.action_dim,
            chunk=chunk,
            execute=chunk if execute is None else execute,
            rate_hz=robot.control_hz,
        )

    def reset(self, ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]) -> None:
        """The commands are known."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        self.asked += [(o.rollout_id, o.step) for o in observations]
        return np.stack(
            [commands_of(o.rollout_id, self.robot, 400)[o.step :] for o in observations]
        )[:, : self.spec.chunk]

    def close(self) -> None:
        """Nothing is held."""


def rolled_out(
    world: World, policy: OpenLoop | ToyPolicy, suite: Suite, folder: Path, batch: int = 4
) -> dict[str, Episode]:
    """Episodes by start state."""
    store = open_rollouts(folder, world.robot, images="lossless")
    run(world, policy, suite, store, batch=batch, progress=False)
    return {str(e.extra["start_id"]): e for e in store}


def toy_suite(chunks: int = 5, count: int = 2) -> Suite:
    return Suite(name="s", robot="toy", chunks=chunks, starts=toy_starts(count=count))


@pytest.fixture
def imagination(tmp_path: Path) -> Imagination:
    return Imagination(
        FrameRollouts(model(), autoencoder()), imagined_robot(), write_store(tmp_path / "starts")
    )


def test_the_same_commands_come_to_the_same_episodes_however_they_are_chunked(
    tmp_path: Path,
) -> None:
    world, suite = ToyWorld(robot=TOY, jitter_m=0.01), toy_suite()
    expected = rolled_out(world, OpenLoop(TOY, 12), suite, tmp_path / "12")
    for length in LENGTHS:
        policy = OpenLoop(TOY, length, name="other")
        for start, episode in rolled_out(world, policy, suite, tmp_path / f"n{length}").items():
            assert np.array_equal(episode.actions, expected[start].actions)
            assert np.array_equal(episode.frames, expected[start].frames)
            assert np.allclose(episode.poses, expected[start].poses, atol=1e-6)
            assert np.array_equal(episode.success_at, expected[start].success_at)
            assert episode.extra["steps"] == expected[start].extra["steps"]


@pytest.mark.parametrize("length", LENGTHS)
def test_imagination_takes_any_chunk_and_lasts_as_long(
    imagination: Imagination, tmp_path: Path, length: int
) -> None:
    robot = imagination.robot
    suite = suite_of(imagination._starts, chunks=5, name="s")
    steps = 5 * robot.chunk_steps
    policy = OpenLoop(robot, length)
    for start, episode in rolled_out(imagination, policy, suite, tmp_path / "out").items():
        expected = commands_of(start, robot, steps)
        assert np.array_equal(episode.actions.reshape(steps, -1), expected)
        integrated = robot.integrate(episode.poses[0], expected)
        assert np.allclose(episode.poses[1:], integrated, atol=1e-6)
        assert [at for name, at in policy.asked if name == start] == list(range(0, steps, length))
        assert episode.length == steps // robot.steps_per_frame + 1


def test_whole_chunks_are_imagined_as_ever_and_shorter_ones_alike_in_any_batch(
    imagination: Imagination, tmp_path: Path
) -> None:
    robot, suite = imagination.robot, suite_of(imagination._starts, chunks=4, name="s")
    ours = rolled_out(imagination, OpenLoop(robot, 12), suite, tmp_path / "12")
    twice = rolled_out(imagination, OpenLoop(robot, 24), suite, tmp_path / "24")
    assert all(np.array_equal(ours[k].frames, twice[k].frames) for k in ours)
    together = rolled_out(imagination, OpenLoop(robot, 8), suite, tmp_path / "8", batch=3)
    alone = rolled_out(imagination, OpenLoop(robot, 8), suite, tmp_path / "8-alone", batch=1)
    for key in alone:
        apart = np.abs(together[key].frames.astype(int) - alone[key].frames)
        assert apart.max() <= 1  # rounding of a batched matrix product
        assert not np.array_equal(ours[key].frames, alone[key].frames)


def test_only_what_was_executed_is_remembered(imagination: Imagination) -> None:
    starts = suite_of(imagination._starts, chunks=1, name="s").starts
    poses = np.repeat(imagination.reset(starts, range(len(starts))).poses, 3, axis=1)
    frames, _ = imagination.frame_rollouts.step(poses, range(len(starts)))
    bank = imagination.frame_rollouts.rollouts.banks[0]
    assert frames.shape[1] == 3 and len(bank.poses) == 4
    assert np.array_equal(bank.poses[1:], poses[0])


def test_what_was_not_executed_changes_nothing(imagination: Imagination, tmp_path: Path) -> None:
    robot, suite = imagination.robot, suite_of(imagination._starts, chunks=2, name="s")
    short = rolled_out(imagination, OpenLoop(robot, 8), suite, tmp_path / "8")
    long = rolled_out(imagination, OpenLoop(robot, 50, execute=8), suite, tmp_path / "50")
    assert all(np.array_equal(short[k].frames, long[k].frames) for k in short)


@pytest.mark.parametrize("execute", [1, 2, 5, 8, 12, 50])
def test_a_success_is_shown_as_long_whatever_is_executed(tmp_path: Path, execute: int) -> None:
    """It touches at control step 1: the rest of this chunk of four frames and a whole one more."""

    class There(ToyWorld):
        def _show(self, poses, rows):  # type: ignore[no-untyped-def]
            seen = super()._show(poses, rows)
            assert seen.success is not None
            seen.success[:] = True
            return seen

    policy = OpenLoop(TOY, 50, execute=execute)
    ended = rolled_out(There(robot=TOY), policy, toy_suite(), tmp_path)
    assert {e.length for e in ended.values()} == {9}
    assert {e.success for e in ended.values()} == {True}


def test_a_policy_that_looks_often_solves_what_one_that_looks_seldom_does(tmp_path: Path) -> None:
    suite = toy_suite(chunks=6)
    for execute in (3, 7, 12):
        policy = ToyPolicy(robot=TOY, execute=execute)
        ended = rolled_out(ToyWorld(robot=TOY), policy, suite, tmp_path / f"n{execute}")
        assert {e.success for e in ended.values()} == {True}, execute


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5),
    st.lists(st.integers(1, 17), min_size=1, max_size=20),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_what_is_gathered_leaves_in_order_by_whole_frames(
    per_frame: int, lengths: list[int], most: int | None
) -> None:
    robot = toy_robot(steps_per_frame=per_frame)
    gathered = Gathered(robot, 2)
    commands = np.random.default_rng(0).normal(size=(2, sum(lengths), 4)).astype(np.float32)
    taken, begun = [], 0
    for length in lengths:
        gathered.add(commands[:, begun : begun + length])
        begun += length
        while gathered.frames:
            taken.append(gathered.take_frames(most))
            assert taken[-1].shape[1] % per_frame == 0
            assert most is None or taken[-1].shape[1] <= most * per_frame
    left = gathered.steps
    out = np.concatenate([*taken, commands[:, begun - left :]], axis=1)
    assert left < per_frame and np.array_equal(out, commands)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_recorded_actions_are_the_commanded_ones_in_order(
    tmp_path_factory: pytest.TempPathFactory, chunk: int, execute: int, truth: bool
) -> None:
    world = ToyWorld(robot=TOY, truth=truth, frames_per_step=4)
    policy = OpenLoop(TOY, max(chunk, execute), execute=execute)
    folder = tmp_path_factory.mktemp("rollouts")
    for start, e in rolled_out(world, policy, toy_suite(chunks=3, count=1), folder).items():
        recorded = e.actions.reshape(-1, e.actions.shape[-1])
        assert np.array_equal(recorded, commands_of(start, TOY, len(recorded)))
        assert len(recorded) == e.extra["steps"] and (truth or len(recorded) == 36)


@pytest.mark.sim
def test_the_simulator_gives_the_same_episode_however_commands_are_chunked(tmp_path: Path) -> None:
    pytest.importorskip("worldeval.worlds.mujoco_backend", exc_type=ImportError)
    from worldeval.worlds.metaworld import MetaWorld
    from worldeval.worlds.sawyer import ROBOT, start_state

    suite = Suite(
        name="s", robot=ROBOT.name, chunks=3, starts=(start_state("training", "push", 0),)
    )
    world = MetaWorld()
    try:
        episodes = {
            n: next(iter(rolled_out(world, OpenLoop(ROBOT, n), suite, tmp_path / str(n)).values()))
            for n in LENGTHS
        }
    finally:
        world.close()
    for episode in episodes.values():
        for name in ("frames", "poses", "actions", "success_at"):
            assert np.array_equal(getattr(episode, name), getattr(episodes[12], name))
        assert episode.extra["outcome"] == episodes[12].extra["outcome"]
