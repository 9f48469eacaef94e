from __future__ import annotations

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import PolicyError
from worldeval.policies.replay import ReplayPolicy, ShuffledReplayPolicy
from worldeval.robots import RobotSpec
from worldeval.types import Observation


def chunk_of(policy: ReplayPolicy, rollout: str, step: int) -> np.ndarray:
    return policy.act(
        [Observation(images={}, state={}, instruction="", rollout_id=rollout, step=step)]
    )[0]


@pytest.mark.parametrize(
    "rollout",
    [
        "right/03/expert",
        "right/training/03",
        "candidate/right/training/03",
    ],
)
def test_replay_gives_back_what_was_recorded(
    toy_store: EpisodeStore, toy_robot: RobotSpec, rollout: str
) -> None:
    policy = ReplayPolicy(toy_store.root, toy_robot)
    policy.reset([rollout], [""], [0])
    recorded = toy_store.by_key("right/03/expert").actions.reshape(-1, 4)
    np.testing.assert_array_equal(chunk_of(policy, rollout, 0), recorded[:6])
    end = chunk_of(policy, rollout, 6)  # 10 steps were recorded: 4 left, then stand still
    np.testing.assert_array_equal(end[:4], recorded[6:])
    np.testing.assert_array_equal(end[4:], [[0, 0, 0, 1]] * 2)
    np.testing.assert_array_equal(chunk_of(policy, rollout, 60), [[0, 0, 0, 1]] * 6)


def test_shuffled_replay_is_another_episode_each(
    toy_store: EpisodeStore, toy_robot: RobotSpec
) -> None:
    policy = ShuffledReplayPolicy(toy_store, toy_robot)
    table = toy_store.metadata()
    taken = [policy._other(int(i)) for i in table["episode_index"]]
    assert sorted(taken) == sorted(table["episode_index"])
    assert all(a != b for a, b in zip(taken, table["episode_index"], strict=True))
    assert policy.spec.name == "replay-shuffled"
    index = toy_store.index_of("left/00/expert")
    policy.reset(["left/00/expert"], [""], [0])
    other = toy_store.episode(policy._other(index)).actions.reshape(-1, 4)
    np.testing.assert_array_equal(chunk_of(policy, "left/00/expert", 0), other[:6])


def test_rollouts_without_a_recording_raise(toy_store: EpisodeStore, toy_robot: RobotSpec) -> None:
    policy = ReplayPolicy(toy_store, toy_robot)
    with pytest.raises(PolicyError, match="no recorded episode matches rollout 'up/training/00'"):
        policy.reset(["up/training/00"], [""], [0])
    with pytest.raises(PolicyError, match="call reset"):
        chunk_of(policy, "left/00/expert", 0)
    with pytest.raises(PolicyError, match="no column 'policy'"):
        ReplayPolicy(toy_store, toy_robot, policy="full")
