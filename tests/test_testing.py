"""The public conformance checks: what keeps to the protocol passes, what does not is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldeval import testing
from worldeval.types import (
    ActionChunk,
    Episode,
    LimitedWorld,
    Outcome,
    RowsWorld,
    Verdict,
    WorldStep,
    frames_at_a_time,
)


class Judge:
    name = "mine"

    def __init__(self, probability: float | None = 0.5) -> None:
        self.probability = probability

    def judge(self, episodes):
        return [
            Verdict(
                key=e.key, outcome=Outcome.SUCCESS, probability=self.probability, judge=self.name
            )
            for e in episodes
        ]


def episode(key: str) -> Episode:
    return Episode(
        key=key,
        task="t",
        instruction="i",
        views=("top",),
        frames=np.zeros((2, 1, 8, 8, 3), np.uint8),
        poses=np.zeros((2, 4), np.float32),
        actions=np.zeros((1, 2, 4), np.float32),
    )


def check(policy: testing.ToyPolicy) -> None:
    start = testing.toy_starts(count=1)[0]
    frames = testing.ToyWorld().reset([start], [0]).frames[0, 0]
    images = dict(zip(testing.TOY_ROBOT.views, frames, strict=True))
    testing.check_policy(policy, testing.TOY_ROBOT, instruction=start.instruction, images=images)


def test_the_toys_conform() -> None:
    check(testing.ToyPolicy(robot=testing.TOY_ROBOT))
    testing.check_world(testing.ToyWorld(), testing.toy_starts(count=2))
    testing.check_judge(Judge(), [episode("a"), episode("b")])
    testing.check_judge(Judge(None), [episode("a")])


def test_a_policy_that_does_not_is_named() -> None:
    policy = testing.ToyPolicy(robot=testing.TOY_ROBOT)
    policy.spec = replace(policy.spec, action_dim=7)
    with pytest.raises(testing.ConformanceError, match="action_dim is 7, expected 4"):
        check(policy)

    class Moody(testing.ToyPolicy):
        calls = 0.0

        def act(self, observations):
            Moody.calls += 0.1
            return super().act(observations) * 0 + np.float32(Moody.calls)

    with pytest.raises(testing.ConformanceError, match="other actions for the same"):
        check(Moody(robot=testing.TOY_ROBOT))


def test_a_world_that_does_not_is_named() -> None:
    class Short(testing.ToyWorld):
        def step(self, chunk: ActionChunk, rows) -> WorldStep:
            step = super().step(chunk, rows)
            return replace(step, frames=step.frames[:, :1])

    with pytest.raises(testing.ConformanceError, match="shape of frames of world.step"):
        testing.check_world(Short(), testing.toy_starts(count=1))


def test_a_judge_that_does_not_is_named() -> None:
    with pytest.raises(testing.ConformanceError, match=r"probability 1\.5, expected 0 to 1"):
        testing.check_judge(Judge(1.5), [episode("a")])


def test_it_is_reached_by_the_package() -> None:
    import worldeval as we

    assert we.testing.check_policy is testing.check_policy


def test_what_some_worlds_also_have_is_stated() -> None:
    limited = testing.ToyWorld(frames_per_step=2)
    assert isinstance(limited, LimitedWorld) and isinstance(limited, RowsWorld)
    assert frames_at_a_time(limited) == 2
    assert frames_at_a_time(testing.ToyWorld()) is None
    testing.check_world(limited, testing.toy_starts(count=1))
    with pytest.raises(testing.ConformanceError, match="frames_per_step is 0, expected 1 or more"):
        testing.check_world(testing.ToyWorld(frames_per_step=0), testing.toy_starts(count=1))


def test_a_world_without_them_is_a_world_too() -> None:
    class Plain:
        name, robot = "plain", testing.TOY_ROBOT
        reset = step = close = print

    assert not isinstance(Plain(), LimitedWorld | RowsWorld)
    assert frames_at_a_time(Plain()) is None  # type: ignore[arg-type]
