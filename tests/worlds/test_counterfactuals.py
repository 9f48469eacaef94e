"""Recordings of near misses, of faults, and of the same motion with another gripper."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("worldeval.worlds.mujoco_backend", exc_type=ImportError)

from worldeval.worlds.counterfactuals import KINDS, StopShort, driver_of, random_fault
from worldeval.worlds.experts import Expert
from worldeval.worlds.metaworld import MetaWorld
from worldeval.worlds.record import Job, record_episode
from worldeval.worlds.sawyer import ROBOT, TASKS, start_state
from worldeval.worlds.simulation import SUCCESS_DISTANCE_M, Simulation

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("task", list(TASKS))
def test_the_flag_of_success_is_the_distance_within_its_limit(task) -> None:
    simulation, expert = Simulation(TASKS[task]), Expert(task)
    simulation.reset(start_state("training", task, 2).seed)
    flags = set()
    for _ in range(110):
        success = simulation.step(expert.act(simulation))
        assert success == (simulation.goal_distance_m <= SUCCESS_DISTANCE_M[task])
        flags.add(success)
    assert flags == {True, False}


def test_stops_at_the_distance_and_then_lets_go() -> None:
    simulation = Simulation(TASKS["reach"])
    simulation.reset(start_state("training", "reach", 0).seed)
    driver = StopShort(Expert("reach"), 0.10, "let go", np.array([0.0, 0.0, 0.5]))
    actions = []
    for _ in range(60):
        actions.append(driver.act(simulation))
        simulation.step(actions[-1])
        if len(actions) == 40:
            assert 0.05 < simulation.goal_distance_m < 0.10  # it coasts a little
    assert actions[-1][2] == 0.5 and actions[-1][3] == -1.0


def test_the_motion_of_a_counterfactual_is_the_experts_own() -> None:
    """Only the gripper differs from what the expert did from the same start."""
    start = start_state("training", "window-close", 7)
    simulation = Simulation(TASKS["window-close"])
    differing = set()
    for number in range(6):
        ran = {}
        for kind in ("expert", "counterfactual"):
            simulation.reset(start.seed)
            rng = np.random.default_rng(number)
            if kind == "expert":
                from worldeval.worlds.experts import Noisy

                driver = Noisy(Expert("window-close"), rng, scale=rng.uniform(0.0, 0.2), rate=0.3)
            else:
                driver = driver_of(kind, simulation, start.seed, rng, 60)
            actions, poses = [], []
            for _ in range(60):
                actions.append(driver.act(simulation))
                simulation.step(actions[-1])
                poses.append(simulation.pose.copy())
            ran[kind] = np.array(actions), np.array(poses), simulation.success
        np.testing.assert_array_equal(ran["expert"][0][:, :3], ran["counterfactual"][0][:, :3])
        np.testing.assert_allclose(ran["expert"][1][:, :3], ran["counterfactual"][1][:, :3])
        differing.add(bool((ran["expert"][0][:, 3] != ran["counterfactual"][0][:, 3]).any()))
    assert True in differing


def test_faults_of_all_sorts_are_drawn_and_known_by_their_seed() -> None:
    drawn = [random_fault(np.random.default_rng(i), 120) for i in range(80)]
    assert len({tuple(str(f).split("="))[0] for f in drawn}) >= 9
    assert drawn == [random_fault(np.random.default_rng(i), 120) for i in range(80)]


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_episodes_keep_the_distance_and_repeat(kind) -> None:
    world = MetaWorld()
    job = Job(task="push", index=900, kind=kind, split="training", seed=0, chunks=2)
    one, other = record_episode(job, world), record_episode(job, world)
    world.close()
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.actions, other.actions)
    distances = np.array(one.extra["goal_distance_m"])
    assert len(distances) == one.length == 2 * ROBOT.frames_per_chunk + 1
    limit = one.extra["success_distance_m"]
    np.testing.assert_array_equal(distances <= limit, one.success_at)
