import numpy as np
import pytest

# Not mujoco itself, which must not be imported before it has been told how to draw.
pytest.importorskip("worldeval.worlds.mujoco_backend", exc_type=ImportError)

from worldeval.errors import ConfigError
from worldeval.worlds.experts import (
    Expert,
    Failing,
    Noisy,
    Waypoints,
    driver_of,
    memory_motion,
    revisit_motion,
)
from worldeval.worlds.sawyer import ROBOT, TASKS, start_state
from worldeval.worlds.simulation import Simulation

pytestmark = pytest.mark.sim


def run(simulation, driver, steps=120):
    """First step with success (or None), actions (T, 4), commanded poses (T, 4)."""
    first, actions, poses = None, [], []
    for step in range(steps):
        actions.append(driver.act(simulation))
        if simulation.step(actions[-1]) and first is None:
            first = step + 1
        poses.append(simulation.pose.copy())
    return first, np.array(actions), np.array(poses)


@pytest.mark.parametrize("task", list(TASKS))
def test_experts_solve_their_task_in_time(task):
    simulation = Simulation(TASKS[task])
    solved = []
    for index in range(3):
        simulation.reset(start_state("evaluation", task, index).seed)
        first, actions, _ = run(simulation, Expert(task))
        solved.append(first is not None and first <= 110 and simulation.success)
        assert np.abs(actions).max() <= 1.0 and actions.dtype == np.float32
    assert sum(solved) >= 2


@pytest.mark.parametrize("task, other", [("faucet-open", "faucet-close"), ("push", "reach")])
def test_expert_of_the_opposed_task_does_that_one(task, other):
    seed = start_state("training", task, 3).seed
    mine, theirs = Simulation(TASKS[task]), Simulation(TASKS[other])
    mine.reset(seed)
    theirs.reset(seed)
    expert, first, flag = Expert(other), None, False
    for step in range(120):
        action = expert.act(mine)
        flag |= mine.step(action)
        if theirs.step(action) and first is None:
            first = step
    assert first is not None and not flag


def test_expert_holds_still_after_success():
    simulation = Simulation(TASKS["drawer-close"])
    simulation.reset(start_state("training", "drawer-close", 0).seed)
    first, actions, _ = run(simulation, Expert("drawer-close"))
    assert not actions[first + 10 :, :3].any()


def test_failing_experts_mostly_fail():
    outcomes, ways = [], set()
    for number, task in enumerate(("drawer-open", "faucet-close", "push")):
        simulation = Simulation(TASKS[task])
        for index in range(8):
            simulation.reset(start_state("training", task, index).seed)
            failing = Failing(task, np.random.default_rng(100 * number + index))
            outcomes.append(run(simulation, failing)[0] is not None)
            ways.add(failing.way)
    assert np.mean(outcomes) <= 0.3 and ways == {"stop", "wander", "offset", "opposed"}


def test_noise_has_the_standing_deviation_it_says():
    class Still:
        def act(self, simulation):
            return np.zeros(4, np.float32)

    noisy = Noisy(Still(), np.random.default_rng(0), scale=0.2, rate=0.2)
    drawn = np.array([noisy.act(None) for _ in range(20_000)])
    assert drawn[:, :3].std() == pytest.approx(0.2, rel=0.05)
    assert abs(drawn[:, :3].mean()) < 0.02
    assert not drawn[:, 3].any()


def test_waypoints_are_reached_and_left():
    class Body:
        pose = np.array([0.0, 0.6, 0.2, -1.0])

        def step(self, action):
            self.pose = ROBOT.integrate(self.pose, action[None].repeat(3, 0) / 3)[0].astype(float)

    body = Body()
    driver = Waypoints([np.array([0.1, 0.6, 0.2, 1.0]), np.array([0.1, 0.7, 0.2, -1.0])], speed=0.5)
    poses = []
    for _ in range(60):
        body.step(driver.act(body))
        poses.append(body.pose)
    poses = np.array(poses)
    assert np.abs(poses[:, 0] - 0.1).min() < 0.005
    np.testing.assert_allclose(body.pose[:3], [0.1, 0.7, 0.2], atol=0.006)
    assert np.linalg.norm(np.diff(poses[:15, :3], axis=0), axis=1).max() < 0.0051


def test_memory_motion_leaves_and_comes_back():
    simulation = Simulation(TASKS["reach"])
    for index in range(4):
        simulation.reset(start_state("training", "reach", index).seed)
        begin = simulation.pose.copy()
        driver = memory_motion(begin, np.random.default_rng(index))
        _, _, poses = run(simulation, driver)
        away = np.linalg.norm(poses[:, :3] - begin[:3], axis=1)
        assert away[40:60].min() > 0.15 and away[-6:].max() < 0.006


def test_revisit_motion_sees_a_place_twice_and_far_from_it_in_between():
    simulation = Simulation(TASKS["reach"])
    for index in range(4):
        simulation.reset(start_state("training", "reach", index).seed)
        driver = revisit_motion(simulation.pose.copy(), np.random.default_rng(index))
        _, _, poses = run(simulation, driver)
        back = poses[-1, :3]
        apart = np.linalg.norm(poses[:, :3] - back, axis=1)
        far = int(apart.argmax())
        assert apart[0] > 0.02, "the first frame does not show it"
        assert apart[:far].min() < 0.01 and apart[far] > 0.2 and apart[-3:].max() < 0.01


def test_unknown_kind_is_told():
    simulation = Simulation(TASKS["reach"])
    simulation.reset(0)
    with pytest.raises(ConfigError, match="'lazy'.*expert"):
        driver_of("lazy", simulation, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="'fly'"):
        Expert("fly")
