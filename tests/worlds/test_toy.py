"""The toy world keeps the promises that types.py makes for every world."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import ConfigError, PolicyError, StartStateError, WorldError
from worldeval.policies.checking import check_policy, try_policy
from worldeval.types import ActionChunk, Observation, StartState
from worldeval.worlds.toy import (
    HALF_WIDTH_M,
    TASKS,
    TOY_ROBOT,
    ToyPolicy,
    ToyWorld,
    toy_robot,
    toy_starts,
)

ROBOT = toy_robot(views=("top", "front"), image_size=(24, 32))


def straight(world: ToyWorld, rows: int, velocity: tuple[float, float, float]) -> ActionChunk:
    actions = np.zeros((rows, world.robot.chunk_steps, 4), np.float32)
    actions[..., :3] = velocity
    return ActionChunk(
        actions=actions, poses=world.robot.integrate(np.zeros((rows, 4), np.float32), actions)
    )


def test_shapes_and_dtypes() -> None:
    world = ToyWorld(robot=ROBOT)
    seen = world.reset(toy_starts(count=2), range(4))
    assert seen.frames.shape == (4, 1, 2, 24, 32, 3) and seen.frames.dtype == np.uint8
    assert seen.poses.shape == (4, 1, 4) and seen.poses.dtype == np.float32
    assert seen.success is not None and not seen.success.any()
    seen = world.step(straight(world, 2, (1, 0, 0)), rows=[1, 3])
    assert seen.frames.shape == (2, 3, 2, 24, 32, 3)
    assert seen.success is not None and seen.success.shape == (2, 3)
    assert len(seen.info) == 2


def test_the_dot_is_where_the_hand_is() -> None:
    world = ToyWorld(robot=ROBOT)
    world.reset(toy_starts(count=1)[:1], [0])
    pose = np.array([[[0.15, -0.1, 0.05, 1.0]]], np.float32)
    frame = world.step(ActionChunk(actions=np.zeros((1, 2, 4), np.float32), poses=pose), [0]).frames
    for view, (right_m, up_m) in enumerate([(0.15, -0.1), (0.15, 0.05)]):
        rows, columns = np.nonzero((frame[0, 0, view] == 255).all(-1))
        assert (columns.mean() + 0.5) / 32 == pytest.approx(0.5 + right_m / 0.4, abs=0.02)
        assert (rows.mean() + 0.5) / 24 == pytest.approx(0.5 - up_m / 0.4, abs=0.03)


def test_tasks_share_a_scene_and_splits_do_not() -> None:
    red, green = toy_starts(count=1)
    world = ToyWorld()
    seen = world.reset([red, green], [5, 5])
    assert np.array_equal(seen.frames[0], seen.frames[1])
    assert red.instruction != green.instruction
    seeds = {s: {x.seed for x in toy_starts(count=9, split=s)} for s in ("training", "evaluation")}
    assert not seeds["training"] & seeds["evaluation"]


def test_rows_do_not_disturb_each_other_and_repeat_from_their_seeds() -> None:
    starts = toy_starts(count=2)
    together, alone = ToyWorld(jitter_m=0.02), ToyWorld(jitter_m=0.02)
    first = together.reset(starts, [1, 2, 3, 4])
    together.step(straight(together, 1, (0, 1, 0)), rows=[0])
    later = together.step(straight(together, 2, (1, 0, 0)), rows=[3, 1])
    start = alone.reset(starts[1:2], [2])
    assert np.array_equal(first.frames[1], start.frames[0])
    alone_later = alone.step(straight(alone, 1, (1, 0, 0)), rows=[0])
    assert np.array_equal(later.frames[1], alone_later.frames[0])


def test_reset_rows_leaves_the_others() -> None:
    world, other = ToyWorld(jitter_m=0.02), ToyWorld(jitter_m=0.02)
    starts = toy_starts(count=2)
    for w in (world, other):
        w.reset(starts[:2], [1, 2])
    world.reset_rows([0], [starts[3]], [7])
    after = world.step(straight(world, 2, (1, 0, 0)), [0, 1])
    untouched = other.step(straight(other, 2, (1, 0, 0)), [0, 1])
    assert np.array_equal(after.frames[1], untouched.frames[1])
    assert not np.array_equal(after.frames[0], untouched.frames[0])


def test_without_truth_and_with_steps_of_so_many_frames_it_looks_imagined() -> None:
    world = ToyWorld(truth=False, frames_per_step=3)
    assert world.reset(toy_starts(count=1), [0, 0]).success is None
    with pytest.raises(WorldError, match="stepped by 4 frames, it takes 3"):
        world.step(ActionChunk(actions=np.zeros((1, 8, 4)), poses=np.zeros((1, 4, 4))), [0])


def test_unknown_task() -> None:
    start = StartState(start_id="x", task="fly", seed=0, split="evaluation", instruction="fly")
    with pytest.raises(StartStateError, match="'fly' does not exist.*touch-red"):
        ToyWorld().reset([start], [0])


def test_the_policy_finds_the_disc_of_its_instruction() -> None:
    policy = ToyPolicy()
    check_policy(policy, TOY_ROBOT)
    world = ToyWorld()
    starts = toy_starts(count=1)
    seen = world.reset(starts, [0, 0])
    policy.reset([s.start_id for s in starts], [s.instruction for s in starts], [0, 0])
    actions = policy.act(
        [
            Observation(
                images=dict(zip(TOY_ROBOT.views, seen.frames[i, 0], strict=True)),
                state={"pose": seen.poses[i, 0]},
                instruction=s.instruction,
                rollout_id=s.start_id,
                step=0,
            )
            for i, s in enumerate(starts)
        ]
    )
    # One disc is to the left, the other to the right.
    assert np.sign(actions[0, 0, 0]) == -np.sign(actions[1, 0, 0]) != 0
    assert np.abs(actions).max() <= 1


def test_the_policy_refuses_what_it_does_not_understand() -> None:
    with pytest.raises(PolicyError, match="does not understand 'try this policy'"):
        try_policy(ToyPolicy(), TOY_ROBOT)
    with pytest.raises(ConfigError, match="mistakes is 1.5"):
        ToyPolicy(mistakes=1.5)


def test_scenes_stay_within_reach() -> None:
    world = ToyWorld()
    for start in toy_starts(count=20):
        world.reset([start], [0])
        goals = np.array([world._discs[0][task] for task in TASKS])
        assert np.abs(goals).max() < HALF_WIDTH_M
        assert np.abs(goals[0, 0] - goals[1, 0]) > 2 * 0.06
