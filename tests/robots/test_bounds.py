"""One tolerance for what lies beyond the bounds; who begins outside of them may stay there."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.robots.test_kept_robots import ARM, recorded
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import PolicyError
from worldeval.motion import panda
from worldeval.motion.adapters import adapter_for
from worldeval.policies.checking import check_actions
from worldeval.policies.scripted import ZeroPolicy
from worldeval.robots import read_robot
from worldeval.robots.bounds import beyond, starts_outside, staying
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.worlds.toy import ToyWorld, toy_starts

OUT = np.array([[50.0, 50, 50, 50, 50, 104]], np.float32)  # a gripper opened by 4 % too far


def test_rounding_is_a_part_of_the_bounds_own_width() -> None:
    low, high = np.array([-1.0, -100.0, 0.0]), np.array([1.0, 100.0, 0.002])
    assert not beyond(np.array([1.0009, -100.09, 0.0020009]), low, high).any()
    assert beyond(np.array([1.0011, -100.11, 0.0020011]), low, high).all()


def test_one_that_begins_outside_may_stay_and_come_back_but_go_no_further() -> None:
    spec = ZeroPolicy(ARM).spec

    def carried(gripper: float) -> np.ndarray:
        chunk = np.tile(OUT, (1, spec.chunk, 1)).reshape(1, spec.chunk, 6)
        chunk[..., 5] = gripper
        return check_actions(chunk, spec, ARM, 1, staying(ARM, OUT))

    assert (carried(104)[..., 5] == 104).all() and (carried(102)[..., 5] == 102).all()
    with pytest.raises(PolicyError, match=r"answered 106 for 'gripper.pos'.*in \[0, 104\]"):
        carried(106)
    with pytest.raises(PolicyError, match=r"in \[-100, 100\]"):
        check_actions(np.full((1, spec.chunk, 6), 104), spec, ARM, 1)
    poses, _ = adapter_for(ARM).advance(OUT, None, carried(104))
    assert (poses[..., 5] == 104).all()
    poses, _ = adapter_for(ARM).advance(OUT, None, carried(104) + 10)
    assert (poses[..., 5] == 104).all()


def test_a_robot_that_stops_at_its_bounds_is_not_thrown_to_them() -> None:
    sawyer = read_robot("metaworld-sawyer")
    high = np.array([[0.0, 0.6, 0.55, 1.0]], np.float32)  # 5 cm above its bounds
    for z, expected in ((0.0, 0.55), (1.0, 0.55), (-1.0, 0.52)):
        actions = np.tile(np.array([0, 0, z, 1], np.float32), (1, 3, 1))
        poses, _ = adapter_for(sawyer).advance(high, None, actions)
        assert poses[0, 0, 2] == pytest.approx(expected)
    moving = replace(
        ARM, control_mode="joint_delta", action_low=(-5.0,) * 6, action_high=(5.0,) * 6
    )
    still = np.zeros((1, 3, 6), np.float32)
    still[..., 5] = 5
    poses, _ = adapter_for(replace(moving, gripper_index=())).advance(OUT, None, 0 * still)
    np.testing.assert_array_equal(poses[:, 0], OUT)


def test_joints_of_a_panda_too() -> None:
    robot = panda.panda("joint_position")
    joints = np.array([[3.0, 0, 0, -1, 0, 1, 0]], np.float32)  # 0.1 rad beyond the first's limit
    pose = np.zeros((1, 7), np.float32)
    assert staying(panda.panda("joint_velocity"), pose, joints) is None
    (told,) = starts_outside(robot, pose, joints)
    assert "1 of 1 start states have 'panda_joint1_rad' at 3 to 3" in told


def test_where_nothing_is_commanded_nothing_is_told() -> None:
    assert starts_outside(read_robot("bridge-widowx"), np.full((1, 7), 9.0)) == []


def test_still_stays_still_in_a_world_that_begins_outside_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tight = replace(ARM, action_high=(60.0,) * 6, pose_high=(60.0,) * 6)
    store = EpisodeStore.open(recorded(tmp_path / "store"))

    class Recorded(ToyWorld):
        """Begins where the recordings do."""

        def reset(self, starts, seeds):
            seen = super().reset(starts, seeds)
            rows = [int(start.start_id[1:]) for start in starts]
            poses = np.stack([store.trajectory(row).poses[:1] for row in rows])
            return replace(seen, poses=poses)

        def step(self, chunk, rows):
            return replace(super().step(chunk, rows), poses=chunk.poses)

    starts = tuple(
        replace(start, start_id=f"e{i}") for i, start in enumerate(toy_starts(count=3)[:3])
    )
    suite = Suite(name="store", robot=tight.name, chunks=1, starts=starts)
    with caplog.at_level(logging.WARNING):
        for name in ("still", "again"):
            out = open_rollouts(tmp_path / name, tight, images="lossless")
            policy = ZeroPolicy(tight, name=name)
            run(Recorded(robot=tight, truth=False), policy, suite, out, batch=2, progress=False)
            for i in range(len(out)):
                poses = out.trajectory(i).poses
                np.testing.assert_array_equal(poses, np.tile(poses[:1], (len(poses), 1)))
                assert (poses > 60).any()
    told = [record.getMessage() for record in caplog.records]
    assert told and len(told) == len(set(told))
    assert "outside of the bounds -100 to 60 of robot 'my-arm'" in told[0]
