"""Worlds by name in gymnasium: its checker, exact seeds, batches, the forms, first mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

from worldeval import shipped, testing
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, StartStateError
from worldeval.judging.progress import ProgressJudge
from worldeval.rollout.engine import run
from worldeval.rollout.env_form import EnvForm
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.rollout.vector_env import WorldEnv, WorldVectorEnv
from worldeval.types import Observation, PolicySpec

IMAGINATION = "worldeval.gym:worldeval/Imagination-v0"
WORLD = "worldeval.gym:worldeval/World-v0"
ROBOT = testing.toy_robot(views=("top", "front"), image_size=(24, 32))
SUITE = Suite(name="s", robot="toy", chunks=3, starts=testing.toy_starts(count=3))
SHORT: dict[str, Any] = {"task": "reach", "chunks": 2, "sampler_steps": 2, "device": "cpu"}


def toy(**options: Any) -> testing.ToyWorld:
    return testing.ToyWorld(robot=ROBOT, jitter_m=0.02, **options)


FORMS: list[dict[str, Any]] = [
    {},
    {"observation": "flat", "view_size": (6, 6), "reward": "progress"},
    {"step": "action", "pictures": "chunk", "flat_actions": False},
]


@pytest.mark.weights
@pytest.mark.parametrize("form", FORMS, ids=["dict", "flat", "action"])
def test_gymnasiums_checker_accepts_the_imagined_world(form: dict[str, Any]) -> None:
    """Warnings are errors in these tests, so it has nothing to say."""
    env = gymnasium.make(IMAGINATION, **SHORT, **form)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("form", [*FORMS[1:], {}], ids=["flat", "action", "dict"])
def test_gymnasiums_checker_accepts_a_world_by_name(form: dict[str, Any]) -> None:
    form = {k: v for k, v in form.items() if k != "reward"}
    env = gymnasium.make(WORLD, world=toy(), suite=SUITE, render_mode="rgb_array", **form)
    check_env(env.unwrapped)
    env.close()


@pytest.mark.weights
def test_imagined_seeds_are_exact_and_progress_adds_up() -> None:
    options = {**SHORT, "reward": "progress", "observation": "flat", "views": ("left",)}
    envs: Any = gymnasium.make_vec(IMAGINATION, num_envs=2, **options)
    assert isinstance(envs, WorldVectorEnv)
    assert envs.single_observation_space.shape == (4 + 8 * 8 * 3,)
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 2, 48)).astype(np.float32)
    runs = []
    for seed in (3, 3, 4):
        run = [envs.reset(seed=seed)]
        run += [envs.step(a) for a in actions]
        runs.append(run)
    assert data_equivalence(runs[0], runs[1], exact=True)
    assert not data_equivalence(runs[0][1][0], runs[2][1][0], exact=True)
    last = runs[0][-1]
    assert last[3].all() and not last[2].any()
    frames = np.concatenate(
        [runs[0][1][4]["frames"], last[4]["final_info"]["frames"]], axis=1
    )  # (B, T, V, H, W, 3)
    assert frames.shape == (2, 8, 3, 64, 64, 3)
    judge = ProgressJudge.load(shipped.path(shipped.PROGRESS))
    episodes = [row for row in _episodes(envs, actions, frames)]
    for i, episode in enumerate(episodes):
        gained = runs[0][1][1][i] + last[1][i]
        assert gained == pytest.approx(judge.reward(episode).sum(), abs=1e-5)
        assert judge.newest(episode) == pytest.approx(judge.progress(episode)[-1], abs=1e-6)
    envs.close()


def _episodes(envs: Any, actions: np.ndarray, frames: np.ndarray) -> list[Any]:
    """What was rolled out from seed 3, put together from what the environment told."""
    from worldeval.motion.adapters import adapter_for, command
    from worldeval.types import Episode

    envs.reset(seed=3)
    made = []
    for i, row in enumerate(envs._rows.rows):
        whole = actions[:, i].reshape(1, 24, 4)
        chunk = command(adapter_for(envs._rows.robot), row.pose[None, None], None, whole)
        made.append(
            Episode(
                key=f"e{i}",
                task=row.start.task,
                instruction=row.start.instruction,
                views=envs._rows.robot.views,
                frames=np.concatenate([row.frame[None], frames[i]]),
                poses=np.concatenate([row.pose[None], chunk.poses[0]]),
                actions=whole.reshape(8, 3, 4),
            )
        )
    return made


class Fixed:
    """A policy of given actions that carries out ``execute`` of them at a time."""

    def __init__(self, actions: np.ndarray, execute: int) -> None:
        self.actions = actions
        self.spec = PolicySpec(
            name="fixed",
            cameras=ROBOT.views,
            image_size=None,
            state_keys=("pose",),
            action_space=ROBOT.action_space,
            action_dim=ROBOT.action_dim,
            chunk=execute,
            execute=execute,
            rate_hz=ROBOT.control_hz,
        )

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None: ...

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        at = [o.step for o in observations]
        return np.stack([self.actions[k : k + self.spec.execute] for k in at])

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("form", "execute"),
    [
        (EnvForm(), 6),
        (EnvForm(step="action"), 1),
        (EnvForm(step="action", pictures="chunk"), 6),
    ],
    ids=["chunk", "action", "action-in-chunks"],
)
def test_an_environment_shows_what_the_rollout_loop_shows(
    tmp_path: Any, form: EnvForm, execute: int
) -> None:
    """One loop: the same actions through the engine give the same frames, in either form."""
    suite = Suite(name="s", robot="toy", chunks=3, starts=SUITE.starts[:1])
    actions = np.random.default_rng(2).uniform(-1, 1, (18, 4)).astype(np.float32)
    world = testing.ToyWorld(robot=ROBOT, truth=False)
    with open_rollouts(tmp_path / "s", ROBOT, images="lossless") as store:
        run(world, Fixed(actions, execute), suite, store, batch=1, progress=False)
    truth = EpisodeStore.open(tmp_path / "s").episode(0)
    env = WorldEnv(testing.ToyWorld(robot=ROBOT, truth=False), suite, form=form)
    env.reset(seed=0)
    frames = []
    steps = actions.reshape(-1, env.action_space.shape[0])  # type: ignore[index]
    for number, action in enumerate(steps):
        observation, _, terminated, truncated, info = env.step(action)
        frames += list(info.get("frames", ()))
        assert truncated == (number == len(steps) - 1) and not terminated
        assert np.array_equal(observation["pixels"]["top"], (frames or [truth.frames[0]])[-1][0])
    assert np.array_equal(np.stack(frames), truth.frames[1:])


def test_single_actions_after_a_mask_fill_frames_of_their_own() -> None:
    """A rollout that begins anew between two frames of the others does not disturb them."""
    form = EnvForm(step="action", pictures="chunk")
    envs = [WorldVectorEnv(toy(), SUITE, num_envs=2, form=form) for _ in range(2)]
    both = np.random.default_rng(1).uniform(-0.1, 0.1, (12, 2, 4)).astype(np.float32)
    for env in envs:
        env.reset(seed=0)
    seen = []
    for number, action in enumerate(both):
        if number == 2:
            envs[0].reset(options={"reset_mask": np.array([True, False])})
        seen.append([env.step(action) for env in envs])
    for a, b in seen:
        assert np.array_equal(a[0]["pixels"]["top"][1], b[0]["pixels"]["top"][1])
    told = [list(a[4].get("_frames", [False, False])) for a, _ in seen]
    assert [t[0] for t in told] == [n == 7 for n in range(12)]  # six actions after its reset
    assert [t[1] for t in told] == [n in (5, 11) for n in range(12)]


def test_a_flat_observation_has_its_parts_in_order() -> None:
    form = EnvForm(observation="flat", view_size=(24, 32), views=("front",))
    env, plain = WorldEnv(toy(), SUITE, form=form), WorldEnv(toy(), SUITE)
    flat, _ = env.reset(seed=4)
    shown, _ = plain.reset(seed=4)
    assert flat.dtype == np.float32 and flat in env.observation_space
    low, high = np.array(ROBOT.pose_low), np.array(ROBOT.pose_high)
    back = (flat[:4] + 1) / 2 * (high - low) + low
    assert np.allclose(back, shown["agent_pos"], atol=1e-6)
    pixels = flat[4 : 4 + 24 * 32 * 3].reshape(24, 32, 3)
    assert np.allclose(pixels * 255, shown["pixels"]["front"])
    assert list(flat[-2:]) == [0.0, 1.0] and SUITE.tasks[1] == SUITE.starts[4].task
    assert shown["instruction"] == SUITE.starts[4].instruction


@pytest.mark.weights
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"taks": "reach"}, "given 'taks', did you mean 'task'"),
        ({"task": "raech"}, "has no task 'raech', did you mean 'reach'"),
        ({"reward": "dense"}, "reward is 'dense', expected 'success' or 'progress'"),
        ({"step": "actions"}, "step is 'actions', did you mean 'action'"),
        ({"pictures": "all"}, "pictures is 'all', expected 'frame' or 'chunk'"),
        ({"observation": "pixels"}, "observation is 'pixels', expected 'dict' or 'flat'"),
        ({"view_size": 8}, "view_size is 8, expected"),
        ({"views": ["rigth"]}, "views has 'rigth', did you mean 'right'"),
        ({"world": "metaworld"}, "make 'worldeval/World-v0'"),
        ({"chunks": 0}, "chunks is 0"),
        ({"judge": "vml:x"}, "judge is 'vml:x'.*did you mean 'vlm'"),
        ({"device": "gpu"}, "device"),
        ({"render_mode": "human"}, "render_mode is 'human'"),
    ],
)
def test_first_mistakes_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        gymnasium.make(IMAGINATION, **options)


def test_a_world_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="no world 'metawrold', did you mean 'metaworld'"):
        gymnasium.make(WORLD, world="metawrold")
    env = WorldEnv(toy(), SUITE)
    with pytest.raises(StartStateError, match="not in suite"):
        env.reset(options={"start_id": "x"})


@pytest.mark.weights
@pytest.mark.sim
def test_an_environment_can_be_written_down_and_made_again() -> None:
    env = gymnasium.make(WORLD, world="metaworld", task="reach", observation="flat")
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.observation_space == env.observation_space
    vector = gymnasium.make_vec(
        WORLD, num_envs=2, vectorization_mode="sync", world=toy(), suite=SUITE
    )
    words = vector.reset(seed=0)[0]["instruction"]
    assert words == (SUITE.starts[0].instruction, SUITE.starts[1].instruction)
    assert EnvForm(view_size=np.array([4, 5])).view_size == (4, 5)  # type: ignore[arg-type]


@pytest.mark.heavy
def test_stable_baselines3_accepts_a_world() -> None:
    """Its own checker and its learner, on the flat form; needs stable-baselines3 installed."""
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env as checked

    options = {"observation": "flat", "view_size": (6, 6)}
    env = gymnasium.make(WORLD, world=toy(), suite=SUITE, **options)
    checked(env.unwrapped)
    learner = sb3.PPO("MlpPolicy", env, n_steps=16, batch_size=8, n_epochs=1, device="cpu", seed=0)
    learner.learn(32)
    action, _ = learner.predict(env.reset(seed=0)[0], deterministic=True)
    assert action in env.action_space
    env.close()
