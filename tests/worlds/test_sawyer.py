import subprocess
import sys

import numpy as np
import pytest

from worldeval.errors import ConfigError, StartStateError
from worldeval.worlds import sawyer, scenes
from worldeval.worlds.sawyer import CAMERAS, ROBOT, SPLITS, TASKS, start_states


def test_tasks_and_robot_need_no_simulator():
    code = (
        "import sys, worldeval.worlds.sawyer, worldeval.worlds.scenes;"
        "print([m for m in ('mujoco', 'metaworld', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_table_is_consistent():
    assert len(TASKS) == 10 and len(sawyer.SCENES) == 5
    words = [text for task in TASKS.values() for text in task.instructions]
    assert len(set(words)) == len(words), "one instruction would name two tasks"
    for task in TASKS.values():
        assert 4 <= len(task.instructions) <= 6
        for other in task.opposed:
            assert TASKS[other].scene == task.scene and task.name in TASKS[other].opposed


def test_seeds_of_splits_never_meet_and_ids_are_unique():
    seeds = {s: {x.seed for t in TASKS for x in start_states(s, t, 200)} for s in SPLITS}
    for split in SPLITS:
        assert len(seeds[split]) == 200 * len(sawyer.SCENES)
    assert not seeds["training"] & seeds["evaluation"]
    # By construction, not by luck: every split has its own range.
    assert max(seeds["training"]) < 2**40 <= min(seeds["validation"])
    assert max(seeds["validation"]) < 2**41 <= min(seeds["evaluation"])
    ids = [x.start_id for t in TASKS for x in start_states("training", t, 50)]
    assert len(set(ids)) == len(ids)


def test_tasks_of_a_scene_share_their_starts():
    reach, push = (start_states("evaluation", t, 5) for t in ("reach", "push"))
    assert [s.seed for s in reach] == [s.seed for s in push]
    assert reach[0].instruction != push[0].instruction
    assert reach[0].start_id == "reach/evaluation/0000"


def test_start_states_continue_where_asked():
    assert start_states("training", "push", 2, first=3) == start_states("training", "push", 5)[3:]


def test_unknown_names_are_told():
    with pytest.raises(StartStateError, match="'drawer'.*drawer-open"):
        start_states("training", "drawer", 1)
    with pytest.raises(ConfigError, match="'test'.*training"):
        start_states("test", "push", 1)


def test_layout_depends_on_the_seed_alone_and_stays_in_range():
    for scene in sawyer.SCENES:
        plans = [scenes.layout(scene, seed) for seed in range(50)]
        np.testing.assert_array_equal(plans[3].hand_m, scenes.layout(scene, 3).hand_m)
        hands = np.array([plan.hand_m for plan in plans])
        assert (hands > ROBOT.pose_low[:3]).all() and (hands < ROBOT.pose_high[:3]).all()
        assert hands.std(0).min() > 0.01
    for plan in (scenes.layout("puck", seed) for seed in range(200)):
        for goal in plan.goals_m.values():  # Meta-World draws again, for ever, if they are nearer
            assert np.linalg.norm(goal[:2] - plan.object_m[:2]) >= 0.15


def test_cameras_look_where_they_are_said_to_look():
    hand = np.array([0.1, 0.6, 0.2])
    for camera in CAMERAS[:2]:
        u, v, depth = camera.project(np.array(sawyer.LOOK_AT_M), hand)
        assert (u, v, depth) == pytest.approx((0.5, 0.5, sawyer.DISTANCE_M), abs=1e-5)
        above = camera.project(np.array(sawyer.LOOK_AT_M) + [0, 0, 0.1], hand)
        assert above[1] < 0.5 and above[0] == pytest.approx(0.5, abs=1e-5)
    left, right, wrist = CAMERAS
    # The fixed cameras mirror each other in the plane x = 0.
    point, mirrored = np.array([0.1, 0.6, 0.2]), np.array([-0.1, 0.6, 0.2])
    u, v, depth = left.project(point, hand)
    assert right.project(mirrored, hand) == pytest.approx((1 - u, v, depth), abs=1e-5)
    # The wrist camera moves with the hand: a point fixed to the hand does not move in its picture.
    tip = np.array([0.0, 0.0, -0.045])
    np.testing.assert_allclose(
        wrist.project(hand + tip, hand), wrist.project(tip, np.zeros(3)), atol=1e-5
    )
    for camera in CAMERAS:
        rotation = np.array(camera.rotation).reshape(3, 3)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
