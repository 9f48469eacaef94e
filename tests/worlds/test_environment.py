"""Gymnasium environments as worlds: pictures, poses and success as they are; first mistakes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldeval import testing
from worldeval.errors import ConfigError, WorldError
from worldeval.types import ActionChunk, StartsWorld
from worldeval.worlds.environment import GymnasiumWorld
from worldeval.worlds.loading import load_world


class Dot(gymnasium.Env[Any, Any]):
    """A dot that goes where it is told; solved in the upper left corner."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 6}

    def __init__(
        self, shows: str = "pixels", key: str | None = "is_success", render_mode: str | None = None
    ) -> None:
        self.shows, self.key, self.render_mode = shows, key, render_mode
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict({})
        self.steps = 0

    def render(self) -> np.ndarray:
        image = np.zeros((12, 16, 3), np.uint8)
        x, y = ((self.at + 1) / 2 * (15, 11)).round().astype(int)
        image[y, x] = 255
        return image

    def _seen(self) -> Any:
        image = self.render()
        if self.shows == "array":
            return image
        if self.shows == "views":
            return {"pixels": {"a": image, "b": image[::-1].copy()}, "hand": self.at.copy()}
        return {"pixels": image} if self.shows == "pixels" else {"hand": self.at.copy()}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.uniform(-1, 1, 2), 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> Any:
        assert action in self.action_space and self.steps < 40
        self.at, self.steps = action.astype(float), self.steps + 1
        solved = bool((self.at < -0.8).all())
        told = {} if self.key is None else {self.key: solved}
        return self._seen(), 0.0, bool((self.at > 0.99).all()), self.steps >= 5, told


@pytest.fixture(autouse=True)
def _registered() -> Any:
    gymnasium.register("worldeval-test/Dot-v0", entry_point=Dot, max_episode_steps=30)
    yield
    del gymnasium.registry["worldeval-test/Dot-v0"]


def chunk(world: Any, actions: Any) -> ActionChunk:
    array = np.asarray(actions, np.float32)
    return ActionChunk(actions=array, poses=array)


@pytest.mark.parametrize(
    ("shows", "views"),
    [("pixels", ("pixels",)), ("array", ("pixels",)), ("views", ("a", "b")), ("", ("render",))],
)
def test_pictures_are_found_where_environments_put_them(shows: str, views: tuple[str, ...]) -> None:
    world = load_world(f"gym:worldeval-test/Dot-v0?shows={shows}")
    assert isinstance(world, StartsWorld) and isinstance(world, GymnasiumWorld)
    testing.check_world(world, world.own_starts()[:3])
    assert world.robot.views == views and world.robot.image_size == (12, 16)
    assert world.robot.control_hz == 6 and world.robot.chunk_steps == 3
    assert world.own_chunks == 10  # its 30 steps
    seen = world.reset(world.own_starts()[:2], [0, 0])
    alone = world.reset(world.own_starts()[1:2], [5])
    assert np.array_equal(seen.frames[1], alone.frames[0])
    world.close()


def test_success_poses_and_the_end_are_the_environments_own() -> None:
    world = load_world("gym:worldeval-test/Dot-v0?shows=views&size=6,8")
    world.reset(world.own_starts()[:2], [0, 0])
    way = [[[0, 0], [-0.9, -0.9], [0.5, 0.5]], [[1, 1], [-0.9, -0.9], [0, 0]]]
    seen = world.step(chunk(world, way), [0, 1])
    assert seen.success is not None
    assert seen.success.tolist() == [[False, True, False], [False, False, False]]
    assert seen.frames.shape == (2, 3, 2, 6, 8, 3)
    assert [one["ended"] for one in seen.info] == [False, True]  # it terminated at its first step
    assert np.array_equal(seen.frames[1, 0], seen.frames[1, 2])
    assert np.array_equal(seen.poses, np.asarray(way, np.float32))
    for _ in range(4):  # beyond what it calls truncated
        world.step(chunk(world, way), [0, 1])
    with pytest.raises(WorldError, match="row 2 does not exist"):
        world.step(chunk(world, way[:1]), [2])
    world.close()


def test_unknown_success_stays_unknown() -> None:
    world = load_world("gym:worldeval-test/Dot-v0?key=null")
    assert world.reset(world.own_starts()[:1], [0]).success is None  # type: ignore[attr-defined]
    named = load_world("gym:worldeval-test/Dot-v0?key=won&success=won")
    assert named.reset(named.own_starts()[:1], [0]).success is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gym:", "names no environment; write gym:ID"),
        ("gym:Dott-v0", "no gymnasium environment 'Dott-v0'.*gym:MODULE:ID"),
        ("gym:nowhere_at_all:Dot-v0", "'nowhere_at_all:Dot-v0' cannot be made.*No module"),
        ("gym:worldeval-test/Dot-v0?shows", "cannot read 'shows', expected name=value"),
        ("gym:worldeval-test/Dot-v0?speed=3", "cannot be made .*speed"),
        ("gym:worldeval-test/Dot-v0?size=big", "size is 'big', expected pixels"),
        ("gym:worldeval-test/Dot-v0?success=won", "success=won is not in its info .is_success"),
        ("gym:worldeval-test/Dot-v0?pose=hand", "pose=hand is no vector of 2 numbers"),
        ("gym:worldeval-test/Dot-v0?cameras=top", "no MuJoCo environment"),
        ("gym:worldeval-test/Dot-v0?robot=so101", "robot 'so101' has 6; give a robot"),
        ("gym:CartPole-v1", "actions Discrete.2., expected a vector"),
    ],
)
def test_first_mistakes_are_told(uri: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_world(uri)


def test_a_misspelled_scheme_is_told() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gym:'|known are .*gym:"):
        load_world("gmy:Dot-v0?x=1")


def test_it_runs_from_the_command_line(tmp_path: Any) -> None:
    from worldeval import cli
    from worldeval.data.store.episodes import EpisodeStore

    words = ["rollout", "--world", "gym:worldeval-test/Dot-v0", "--policy", "zero"]
    assert cli.main([*words, "--per-task", "2", "--out", str(tmp_path / "r")]) == 0
    store = EpisodeStore.open(tmp_path / "r")
    assert len(store.keys) == 2 and set(store.metadata()["world"]) == {"gym:worldeval-test/Dot-v0"}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("task", "least"), [("FetchReach-v4", 10), ("FetchPush-v4", 7), ("FetchPickAndPlace-v4", 8)]
)
def test_fetch_is_solved_by_its_expert_in_our_loop(tmp_path: Any, task: str, least: int) -> None:
    """Needs pip install 'worldeval[fetch]'; three cameras, true success, nothing by standing."""
    pytest.importorskip("gymnasium_robotics")
    from worldeval.policies.loading import load_policy
    from worldeval.rollout.engine import run
    from worldeval.rollout.recording import open_rollouts
    from worldeval.rollout.suite import Suite
    from worldeval.worlds.fetch_expert import FetchExpert

    world = load_world(f"gym:{task}")
    assert isinstance(world, GymnasiumWorld)
    starts = world.own_starts()[:10]
    testing.check_world(world, starts[:2])
    assert world.robot.views == ("left", "right", "wrist")
    both, alone = world.reset(starts[:2], [0, 0]), world.reset(starts[1:2], [0])
    assert np.array_equal(both.frames[1], alone.frames[0])
    goal_m = world.rollouts[0].observation["desired_goal"]  # drawn as a red ball
    seen = []
    for camera, picture in zip(world.robot.cameras[:2], alone.frames[0, 0, :2], strict=True):
        u, v, _ = camera.project(goal_m, alone.poses[0, 0, :3])
        at = picture[int(v * 64) - 1 : int(v * 64) + 2, int(u * 64) - 1 : int(u * 64) + 2]
        seen.append((at[..., 0].astype(int) - at[..., 1]).max() > 60)
    assert any(seen)  # cameras stand where the robot says; the hand may hide it from one
    suite = Suite(name="f", robot="fetch", chunks=world.own_chunks, starts=starts)
    solved = {}
    with open_rollouts(tmp_path / "s", world.robot) as store:
        for policy in (FetchExpert(world), load_policy("zero", world.robot)):
            report = run(world, policy, suite, store, batch=5, progress=False)
            solved[policy.spec.name] = report.outcomes["success"]
    print(task, solved)
    assert solved["expert"] >= least and solved["zero"] <= 2
    world.close()
