"""Worlds as gymnasium environments, compared with gymnasium's own vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from worldeval.errors import ConfigError, MismatchError, StartStateError
from worldeval.rollout.suite import Suite
from worldeval.rollout.vector_env import WorldEnv, WorldVectorEnv
from worldeval.types import ActionChunk, Episode, Outcome, StartState, Verdict, WorldStep
from worldeval.worlds.toy import ToyWorld, toy_robot, toy_starts

ROBOT = toy_robot(views=("top", "front"), image_size=(24, 32))
SUITE = Suite(name="s", robot="toy", chunks=3, starts=toy_starts(count=3))


class WholeWorld:
    """A world that can only be reset as a whole, as the protocol asks."""

    def __init__(self, **options: Any) -> None:
        self._world = ToyWorld(robot=ROBOT, jitter_m=0.02, **options)
        self.name, self.robot = self._world.name, ROBOT
        self.resets = 0

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        self.resets += 1
        return self._world.reset(starts, seeds)

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        return self._world.step(chunk, rows)

    def close(self) -> None:
        self._world.close()


def towards(env: VectorEnv, number: int) -> np.ndarray:
    """Actions that drive some rows into a disc on the left and let others wander."""
    chance = np.random.default_rng(number)
    actions = chance.uniform(-1, 1, (env.num_envs, 6, 4)).astype(np.float32)
    actions[::2, :, 0] = -1
    return actions.reshape(env.num_envs, 24)


@pytest.fixture
def registered() -> Any:
    """The toy as a registered environment, so that gymnasium can make it anew for its checks."""
    name = "worldeval-test/Toy-v0"
    gymnasium.register(
        name,
        entry_point=lambda **options: WorldEnv(
            ToyWorld(robot=ROBOT, jitter_m=0.02), SUITE, **options
        ),
    )
    yield name
    del gymnasium.registry[name]


@pytest.mark.parametrize("flat", [True, False])
def test_one_rollout_passes_gymnasiums_checks(registered: str, flat: bool) -> None:
    env = gymnasium.make(registered, render_mode="rgb_array", flat_actions=flat)
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("world", [ToyWorld(robot=ROBOT, jitter_m=0.02), WholeWorld()])
def test_equals_gymnasiums_own_vector_of_single_rollouts(world: Any) -> None:
    """Spaces, values, dtypes and infos, over several autoresets, in either kind of world."""
    count = 3
    ours = WorldVectorEnv(world, SUITE, num_envs=count)
    theirs = SyncVectorEnv(
        [lambda: WorldEnv(ToyWorld(robot=ROBOT, jitter_m=0.02), SUITE, stride=count)] * count,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.single_action_space == theirs.single_action_space
    assert ours.metadata == theirs.metadata
    ended = []
    for seed in (4, 9):
        a, b = ours.reset(seed=seed), theirs.reset(seed=seed)
        assert a[0] in ours.observation_space
        assert data_equivalence(a, b, exact=True)
        for number in range(10):
            a, b = ours.step(towards(ours, number)), theirs.step(towards(theirs, number))
            assert a[0] in ours.observation_space
            assert data_equivalence(a, b, exact=True), number
            ended.append(tuple(a[2] | a[3]))
    assert (True, True, True) in ended and (False, False, False) in ended
    assert len(set(ended)) > 2  # single rows began again while others went on
    ours.close()
    theirs.close()


def test_a_whole_world_repeats_the_others_only_when_it_must() -> None:
    world = WholeWorld(truth=False)
    env = WorldVectorEnv(world, SUITE, num_envs=4)
    env.reset(seed=0)
    for number in range(6):
        env.step(towards(env, number))
    assert world.resets == 3  # the start, and twice all at once


def test_values_of_a_step() -> None:
    env = WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=2)
    assert isinstance(env, VectorEnv) and env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, info = env.reset(seed=0)
    assert observation["pixels"]["front"].shape == (2, 24, 32, 3)
    assert observation["pixels"]["front"].dtype == np.uint8
    assert observation["agent_pos"].shape == (2, 4)
    assert observation["agent_pos"].dtype == np.float32
    assert list(info["start_id"]) == ["touch-red/evaluation/0000", "touch-red/evaluation/0001"]
    still = np.zeros((2, 24), np.float32)
    for number in (1, 2, 3):
        observation, reward, terminated, truncated, info = env.step(still)
        assert reward.dtype == np.float64 and not reward.any()
        assert terminated.dtype == truncated.dtype == np.bool_ and not terminated.any()
        assert list(truncated) == [number == 3] * 2
        assert ("final_info" in info) == ("final_obs" in info) == (number == 3)
    assert list(info["final_info"]["is_success"]) == [False, False]
    assert list(info["final_info"]["outcome"]) == ["failure", "failure"]
    assert list(info["final_info"]["chunk"]) == [3, 3]
    # Strides of num_envs through the suite: every start state is visited.
    assert list(info["start_id"]) == ["touch-red/evaluation/0002", "touch-green/evaluation/0000"]


def test_success_terminates() -> None:
    env = WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=6)
    env.reset(seed=0)
    goals = np.stack(
        [
            env._rows.world._discs[i][s.task]  # type: ignore[attr-defined]
            for i, s in enumerate(SUITE.starts)
        ]
    )
    terminated = truncated = np.zeros(6, bool)
    while not (terminated | truncated).any():
        pose = np.stack([row.pose for row in env._rows.rows])
        actions = np.zeros((6, 6, 4), np.float32)
        actions[:3, :, :3] = np.clip((goals - pose[:, :3])[:3, None] / 0.02 / 6, -1, 1)
        _, reward, terminated, truncated, info = env.step(actions)
    assert terminated.any() and not truncated.any()
    assert list(reward) == list(terminated.astype(float)) and not terminated[3:].any()
    assert list(info["final_info"]["is_success"]) == list(terminated)


def test_a_judge_decides_at_the_end() -> None:
    judged: list[Episode] = []

    def judge(episodes: Sequence[Episode]) -> list[Verdict]:
        judged.extend(episodes)
        outcomes = (Outcome.SUCCESS, Outcome.UNDECIDED)
        return [
            Verdict(key=e.key, outcome=o, probability=None, judge="test")
            for e, o in zip(episodes, outcomes, strict=True)
        ]

    env = WorldVectorEnv(ToyWorld(robot=ROBOT, truth=False), SUITE, num_envs=2, judge=judge)
    env.reset(seed=0)
    answers = [env.step(np.full((2, 24), 0.2, np.float32)) for _ in range(3)]
    assert [list(a[1]) for a in answers] == [[0, 0], [0, 0], [1, 0]]
    assert list(answers[2][4]["final_info"]["is_success"]) == [True, False]
    assert list(answers[2][4]["final_info"]["outcome"]) == ["success", "undecided"]
    assert list(answers[2][3]) == [True, True]
    first, second = judged
    assert first.frames.shape == (10, 2, 24, 32, 3) and first.actions.shape == (9, 2, 4)
    assert np.array_equal(first.frames[-1, 0], answers[2][4]["final_obs"][0]["pixels"]["top"])
    assert first.instruction == second.instruction == "move to the red disc"


def test_start_states_by_name_and_seeds() -> None:
    env = WorldVectorEnv(ToyWorld(robot=ROBOT, jitter_m=0.02), SUITE, num_envs=2)
    names = ["touch-green/evaluation/0002", "touch-red/evaluation/0001"]
    a, info = env.reset(seed=3, options={"start_ids": names})
    assert list(info["start_id"]) == names
    b, _ = env.reset(seed=[3, 4], options={"start_ids": names})
    assert data_equivalence(a, b, exact=True)
    with pytest.raises(StartStateError, match="'nowhere' is not in suite 's'"):
        env.reset(options={"start_ids": ["nowhere", "nowhere"]})
    with pytest.raises(ConfigError, match="3 seeds were given for 2"):
        env.reset(seed=[1, 2, 3])


def test_one_option_under_two_names() -> None:
    names = ["touch-green/evaluation/0002", "touch-red/evaluation/0001"]
    env = WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=2)
    for chosen in (
        {"start_id": names},
        {"start_ids": tuple(names)},
        {"start_ids": np.array(names)},
    ):
        env.reset(seed=0)
        assert list(env.reset(options=chosen)[1]["start_id"]) == names
    assert list(env.reset(options={"start_id": names[0]})[1]["start_id"]) == names[:1] * 2
    env.reset(seed=0)
    assert list(env.reset(options={"start_ids": [None, names[0]]})[1]["start_id"]) == [
        "touch-red/evaluation/0002", names[0],
    ]  # fmt: skip
    one = WorldEnv(ToyWorld(robot=ROBOT), SUITE)
    for chosen in ({"start_id": names[0]}, {"start_ids": names[:1]}):
        assert one.reset(seed=0, options=chosen)[1]["start_id"] == names[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_id": ["touch-red/evaluation/0001"]}, "start_id of reset is .* for 2 rollouts"),
        ({"start_ids": []}, "for 2 rollouts, expected the name"),
        ({"start_ids": [3, 4]}, "for 2 rollouts, expected the name"),
        ({"start_ids": 3}, "start_ids of reset is 3, expected the names"),
        ({"start_id": "a", "start_ids": "b"}, "start_id and start_ids, expected one"),
        ({"start_idx": 1}, r"'start_idx' \(did you mean 'start_id'\?\), expected one of"),
        ({"seed": 1}, r"option 'seed', expected one of \['start_id', 'start_ids', 'reset_mask'\]"),
        ({"reset_mask": np.array([1, 0])}, "reset_mask is .*expected 2 of True and False"),
        ({"reset_mask": np.array([True])}, "reset_mask is .*expected 2 of True and False"),
        ({"reset_mask": np.array([False, False])}, "at least one"),
        (["start_id"], "options of reset are a list"),
    ],
)
def test_options_that_are_not_known_change_nothing(options: Any, message: str) -> None:
    env = WorldVectorEnv(ToyWorld(robot=ROBOT, jitter_m=0.02), SUITE, num_envs=2)
    same = WorldVectorEnv(ToyWorld(robot=ROBOT, jitter_m=0.02), SUITE, num_envs=2)
    env.reset(seed=0)
    same.reset(seed=0)
    with pytest.raises(ConfigError, match=message):
        env.reset(options=options)
    assert data_equivalence(env.reset(), same.reset(), exact=True)


def test_options_of_one_rollout() -> None:
    env = WorldEnv(ToyWorld(robot=ROBOT), SUITE)
    with pytest.raises(ConfigError, match=r"'reset_mask', expected one of \['start_id', "):
        env.reset(options={"reset_mask": np.array([True])})
    with pytest.raises(ConfigError, match="for 1 rollout, expected"):
        env.reset(options={"start_ids": ["a", "b"]})
    with pytest.raises(ConfigError, match="before any rollout has begun"):
        WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=2).reset(
            options={"reset_mask": np.array([True, False])}
        )


@pytest.mark.parametrize("whole", [False, True])
def test_a_mask_begins_some_anew_as_gymnasium_does(whole: bool) -> None:
    count = 3
    world: Any = WholeWorld() if whole else ToyWorld(robot=ROBOT, jitter_m=0.02)
    ours = WorldVectorEnv(world, SUITE, num_envs=count)
    theirs = SyncVectorEnv(
        [lambda: WorldEnv(ToyWorld(robot=ROBOT, jitter_m=0.02), SUITE, stride=count)] * count,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    ours.reset(seed=5)
    theirs.reset(seed=5)
    masks = [[True, False, True], [False, True, False], [True, True, True]]
    for number, (mask, seed) in enumerate(zip(masks, (None, 7, [1, None, 2]), strict=True)):
        ours.step(towards(ours, number))
        theirs.step(towards(theirs, number))
        a = ours.reset(seed=seed, options={"reset_mask": np.array(mask)})
        b = theirs.reset(seed=seed, options={"reset_mask": np.array(mask)})
        assert data_equivalence(a, b, exact=True), number
        for _ in range(2):
            a, b = ours.step(towards(ours, number)), theirs.step(towards(theirs, number))
            assert data_equivalence(a, b, exact=True), number


def test_what_lerobot_asks_for() -> None:
    env = WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=2)
    assert env.call("_max_episode_steps") == (3, 3)
    env.reset(seed=2)
    assert env.call("task_description") == ("move to the red disc", "move to the green disc")
    assert env.get_attr("task") == ("touch-red", "touch-green")
    assert hasattr(env.envs[0], "task_description") and env.unwrapped.metadata["render_fps"] == 10
    with pytest.raises(AttributeError):
        env.get_attr("nothing")


def test_rendering_shows_the_views_side_by_side() -> None:
    env = WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=2, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    pictures = env.render()
    assert pictures is not None and pictures[1].shape == (24, 64, 3)
    assert np.array_equal(pictures[1][:, 32:], observation["pixels"]["front"][1])
    with pytest.raises(ConfigError, match="render_mode is 'human'"):
        WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=2, render_mode="human")


def test_wrong_use_is_named() -> None:
    env = WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 24), np.float32))
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"shape \(2, 4\), expected \(2, 24\) or \(2, 6, 4\)"):
        env.step(np.zeros((2, 4), np.float32))
    with pytest.raises(ConfigError, match="NaN"):
        env.step(np.full((2, 24), np.nan, np.float32))
    with pytest.raises(ConfigError, match="num_envs is 0"):
        WorldVectorEnv(ToyWorld(robot=ROBOT), SUITE, num_envs=0)
    with pytest.raises(MismatchError, match="suite 's' is for robot 'other'"):
        other = Suite(name="s", robot="other", chunks=1, starts=SUITE.starts)
        WorldVectorEnv(ToyWorld(robot=ROBOT), other, num_envs=1)
    env.close()
    env.close()


def test_a_fixed_number_of_frames_sets_the_action_space() -> None:
    env = WorldVectorEnv(ToyWorld(robot=ROBOT, frames_per_step=2), SUITE, num_envs=2)
    assert env.single_action_space.shape == (16,)
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[0] in env.observation_space
