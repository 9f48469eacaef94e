import numpy as np
import pytest

# Not mujoco itself, which must not be imported before it has been told how to draw.
pytest.importorskip("worldeval.worlds.mujoco_backend", exc_type=ImportError)

from worldeval.errors import MismatchError, StartStateError, WorldError
from worldeval.types import ActionChunk
from worldeval.worlds import appearance
from worldeval.worlds.metaworld import MetaWorld
from worldeval.worlds.mujoco_backend import mujoco
from worldeval.worlds.sawyer import CAMERAS, ROBOT, TASKS, start_state
from worldeval.worlds.simulation import Simulation

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def world():
    world = MetaWorld()
    yield world
    world.close()


def chunk(actions):
    actions = np.asarray(actions, np.float32)
    return ActionChunk(actions=actions, poses=np.zeros((len(actions), 1, 4), np.float32))


def random_chunk(rows, seed, steps=12):
    return chunk(np.random.default_rng(seed).uniform(-1.5, 1.5, (rows, steps, 4)))


def test_commanded_pose_is_what_the_robot_integrates(world):
    begin = world.reset([start_state("training", "push", 0)], [0])
    actions = np.random.default_rng(0).uniform(-1.5, 1.5, (1, 24, 4)).astype(np.float32)
    actions[:, :, 2] = -0.9  # down into the bound
    said = world.step(chunk(actions), [0]).poses
    expected = ROBOT.integrate(begin.poses[:, 0], actions)
    assert np.abs(said - expected).max() < 1e-6
    assert said[0, -1, 2] == pytest.approx(ROBOT.pose_low[2])
    mocap = world.simulation("push").data.mocap_pos[0]
    assert np.abs(mocap - expected[0, -1, :3]).max() < 1e-6


def test_hand_follows_the_command(world):
    world.reset([start_state("training", "reach", 1)], [0])
    simulation = world.simulation("reach")
    assert np.abs(simulation.hand_m - simulation.pose[:3]).max() < 0.005
    world.step(chunk(np.full((1, 12, 4), [0.5, 0.5, 0.3, -1.0])), [0])
    world.step(chunk(np.full((1, 12, 4), [0.0, 0.0, 0.0, -1.0])), [0])
    assert np.abs(simulation.hand_m - simulation.pose[:3]).max() < 0.005


def centroid(frame, colour):
    """Mean (u, v) in pixels of what is green alone, or None."""
    rgb = frame.astype(int)
    others = [c for c in range(3) if c != colour]
    mask = np.all([rgb[..., colour] > rgb[..., c] + 60 for c in others], axis=0)
    if mask.sum() < 2:
        return None
    v, u = np.nonzero(mask)
    return np.array([u.mean() + 0.5, v.mean() + 0.5])


def test_cameras_are_calibrated(world, monkeypatch):
    """A small ball that the simulator draws is where CameraSpec.project puts it."""
    ball = (mujoco.mjtGeom.mjGEOM_SPHERE, (0.012, 0.0, 0.0), (0.0, 1.0, 0.0, 1.0))
    monkeypatch.setattr(appearance, "GOAL_MARKERS", {"ball": ball})
    simulation, rng = world.simulation("faucet-open"), np.random.default_rng(0)
    errors = {camera.name: [] for camera in CAMERAS}
    for seed in range(10):
        simulation.reset(seed)
        for _ in range(10):
            simulation.step(np.append(rng.uniform(-0.5, 0.5) * np.ones(3), -1.0))
        for _ in range(8):
            simulation.step(np.array([0, 0, 0, -1.0]))
        for view, camera in enumerate(CAMERAS):
            point = rng.uniform([-0.15, 0.55, 0.05], [0.15, 0.85, 0.3])
            if camera.mount == "hand":
                point = simulation.pose[:3] + rng.uniform([-0.04, 0, -0.1], [0.08, 0.1, -0.02])
            simulation.layout.goals_m.clear()
            simulation.layout.goals_m["ball"] = point
            seen = centroid(world.draw(simulation)[view], 1)
            if seen is not None:
                u, v, _ = camera.project(point, simulation.pose[:3])
                errors[camera.name].append(np.hypot(*(seen - 64 * np.array([u, v]))))
    for name, found in errors.items():
        assert len(found) >= 6, name
        assert max(found) < 2.0 and np.mean(found) < 0.8, (name, found)


@pytest.mark.parametrize("scene", ["drawer", "window", "faucet", "puck"])
def test_start_picture_does_not_tell_the_task(world, scene):
    tasks = [name for name, task in TASKS.items() if task.scene == scene]
    starts = [start_state("evaluation", task, 2) for task in tasks]
    step = world.reset(starts, [0] * len(starts))
    assert step.frames.shape == (len(tasks), 1, 3, 64, 64, 3) and step.frames.dtype == np.uint8
    for row in range(1, len(tasks)):
        np.testing.assert_array_equal(step.frames[0], step.frames[row])
        np.testing.assert_array_equal(step.poses[0], step.poses[row])


def test_standing_still_solves_nothing():
    for task in TASKS.values():
        simulation = Simulation(task)
        for index in range(2):
            simulation.reset(start_state("training", task.name, index).seed)
            assert not simulation.success
            assert not any(simulation.step(np.array([0, 0, 0, -1.0])) for _ in range(20)), task.name


def test_batch_equals_single_rollouts_and_resets_forget(world):
    starts = [start_state("training", t, i) for t, i in [("push", 0), ("push", 1), ("reach", 0)]]
    world.reset(starts, [0, 0, 0])
    chunks = [random_chunk(3, seed) for seed in range(2)]
    together = [world.step(c, [0, 1, 2]) for c in chunks]
    for row in (1, 0, 2):
        world.reset([starts[row]], [0])
        for c, step in zip(chunks, together, strict=True):
            alone = world.step(chunk(c.actions[row : row + 1]), [0])
            np.testing.assert_array_equal(alone.frames[0], step.frames[row])
            np.testing.assert_array_equal(alone.poses[0], step.poses[row])
            np.testing.assert_array_equal(alone.success[0], step.success[row])


def test_a_reset_does_not_remember_the_last_rollout():
    simulation = Simulation(TASKS["drawer-open"])
    states = []
    for _ in range(2):
        simulation.reset(11)
        for _ in range(20):
            simulation.step(np.array([0.1, 0.6, -0.8, 1.0]))
        states.append(simulation.data.qpos.copy())
        simulation.reset(12)
        for _ in range(30):
            simulation.step(np.array([0.0, 0.5, -0.5, 1.0]))
    np.testing.assert_array_equal(states[0], states[1])


def test_rows_advance_alone(world):
    starts = [start_state("training", "reach", i) for i in range(2)]
    begin = world.reset(starts, [0, 0])
    world.step(random_chunk(1, 0), [1])
    later = world.step(chunk(np.tile([0, 0, 0, -1.0], (1, 3, 1))), [0])
    np.testing.assert_array_equal(later.poses[0, 0], begin.poses[0, 0])


def test_wrong_input_is_refused(world):
    world.reset([start_state("training", "reach", 0)], [0])
    with pytest.raises(MismatchError, match=r"\(1, 10, 4\).*multiple of 3"):
        world.step(random_chunk(1, 0, steps=10), [0])
    with pytest.raises(WorldError, match=r"\[3\]"):
        world.step(random_chunk(1, 0), [3])
    with pytest.raises(WorldError, match="finite"):
        world.step(chunk(np.full((1, 3, 4), np.nan)), [0])
    with pytest.raises(MismatchError, match="2 seeds"):
        world.reset([start_state("training", "reach", 0)], [0, 1])
    unknown = start_state("training", "reach", 0)
    object.__setattr__(unknown, "task", "fly")
    with pytest.raises(StartStateError, match="'fly'"):
        world.reset([unknown], [0])
