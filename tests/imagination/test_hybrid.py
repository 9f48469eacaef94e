"""The hybrid world: what acts is the simulator, what is seen is imagined, and nothing is mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worldeval import testing
from worldeval.errors import ConfigError, MismatchError
from worldeval.evaluation.opening import ImaginationOptions, open_imagination, open_world
from worldeval.imagination.hybrid import Hybrid
from worldeval.types import ActionChunk, StartState

OPTIONS = ImaginationOptions(sampler_steps=1, device="cpu")


@pytest.mark.weights
@pytest.mark.sim
def test_poses_and_success_are_the_simulators_and_pictures_the_models() -> None:
    world: Any = open_world("hybrid", OPTIONS)
    imagined, true = open_imagination(OPTIONS), open_world("metaworld")
    starts: list[StartState] = [s for s in imagined.start_states() if s.task == "reach"][:1]
    begun = [one.reset(starts, [3]) for one in (world, imagined, true)]
    assert np.array_equal(begun[0].frames, begun[1].frames)
    assert begun[0].success is not None and begun[0].success.tolist() == begun[2].success.tolist()
    actions = np.random.default_rng(1).uniform(-1, 1, (1, 12, 4)).astype(np.float32)
    poses = world.robot.integrate(begun[0].poses[:, 0], actions)
    chunk = ActionChunk(actions=actions, poses=poses)
    mixed, drawn, done = (one.step(chunk, [0]) for one in (world, imagined, true))
    assert np.array_equal(mixed.frames, drawn.frames)
    assert not np.array_equal(mixed.frames, done.frames)
    assert np.array_equal(mixed.poses, done.poses)
    assert np.array_equal(mixed.success, done.success)
    assert len(mixed.info[0]["psnr_db"]) == 4 and 10 < min(mixed.info[0]["psnr_db"]) < 60
    assert mixed.info[0]["goal_distance_m"] == done.info[0]["goal_distance_m"]
    with pytest.raises(MismatchError, match="world 'toy' has robot toy, the world model metaworld"):
        Hybrid(testing.ToyWorld(), imagined)
    world.close()
    true.close()


@pytest.mark.weights
def test_first_mistakes_are_told() -> None:
    with pytest.raises(MismatchError, match="a hybrid needs a simulator of the robot"):
        open_world("hybrid:toy", OPTIONS)
    with pytest.raises(ConfigError, match="no world 'nowhere'"):
        open_world("hybrid:nowhere", OPTIONS)
    with pytest.raises(ConfigError, match="did you mean 'hybrid'"):
        open_world("hybird", OPTIONS)
