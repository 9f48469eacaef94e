"""Rollouts of a robot with joints: they reach policies, episodes, stores and recorded worlds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from worldeval.data.fit import check_store
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError, MismatchError, WorldError
from worldeval.motion import panda
from worldeval.motion.adapters import adapter_for
from worldeval.policies.checking import check_policy, try_policy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.rollout.vector_env import WorldVectorEnv
from worldeval.types import ActionChunk, Observation, PolicySpec, StartState, WorldStep
from worldeval.worlds.recorded import RecordedWorld

ROBOT = panda.panda("joint_velocity", image_size=(8, 12))
READY = np.array([0.0, -0.3, 0.1, -2.0, 0.05, 1.9, 0.7])
STARTS = tuple(
    StartState(start_id=f"move/{i}", task="move", seed=i, split="test", instruction="move it")
    for i in range(3)
)
SUITE = Suite(name="s", robot=ROBOT.name, chunks=2, starts=STARTS)
KEYS = ("pose", "joint_position", "gripper_position", "cartesian_position")


class Arm:
    """A world without pictures: the arm is where it is commanded. joints: whether it says so."""

    name = "arm"

    def __init__(self, *, says_joints: bool = True) -> None:
        self.robot = ROBOT
        self._says = says_joints

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        joints = np.stack([READY + 0.1 * start.seed for start in starts])[:, None]
        poses = np.concatenate([panda.forward_pose(joints), np.zeros((*joints.shape[:2], 1))], -1)
        return self._show(poses, joints)

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        return self._show(chunk.poses, chunk.joints)

    def close(self) -> None: ...

    def _show(self, poses: np.ndarray, joints: np.ndarray) -> WorldStep:
        shape = (*poses.shape[:2], 3, *ROBOT.image_size, 3)
        return WorldStep(
            frames=np.zeros(shape, np.uint8),
            poses=poses.astype(np.float32),
            success=None,
            info=[{}] * len(poses),
            joints=joints.astype(np.float32) if self._says else None,
        )


class Wave:
    """Moves by what it sees of its joints, and keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.spec = PolicySpec(
            name="wave",
            cameras=("wrist",),
            image_size=None,
            state_keys=KEYS,
            action_space="joint_velocity",
            action_dim=8,
            chunk=15,
            execute=12,
            rate_hz=15.0,
        )

    def reset(self, rollout_ids, instructions, seeds) -> None: ...

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        self.seen += observations
        actions = np.zeros((len(observations), 15, 8), np.float32)
        for i, o in enumerate(observations):
            actions[i, :, :7] = np.tanh(o.state["joint_position"])
            actions[i, :, 7] = 1.0
        return actions

    def close(self) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    store = open_rollouts(tmp_path / "store", ROBOT, images="lossless")
    run(Arm(), Wave(), SUITE, store, batch=2, progress=False)
    store.close()
    return EpisodeStore.open(store.root)


def test_joints_follow_the_commands_and_are_kept(store: EpisodeStore) -> None:
    assert store.layout.joint_names == panda.JOINTS
    for i, episode in enumerate(store):
        assert episode.joints.shape == (9, 7) and episode.joints.dtype == np.float32
        np.testing.assert_allclose(episode.joints[0], READY + 0.1 * i, atol=1e-6)
        np.testing.assert_allclose(
            episode.poses[:, :6], panda.forward_pose(episode.joints), atol=1e-5
        )
        assert np.abs(np.diff(episode.joints, axis=0)).max() > 0.05
        np.testing.assert_array_equal(store.trajectory(i).joints, episode.joints)


def test_batches_do_not_change_rollouts(store: EpisodeStore, tmp_path: Path) -> None:
    single = open_rollouts(tmp_path / "single", ROBOT, images="lossless")
    run(Arm(), Wave(), SUITE, single, batch=1, progress=False)
    for one, other in zip(store, single, strict=True):
        np.testing.assert_array_equal(one.joints, other.joints)
        np.testing.assert_array_equal(one.poses, other.poses)


def test_a_policy_sees_the_states_that_it_names(tmp_path: Path) -> None:
    policy = Wave()
    with open_rollouts(tmp_path, ROBOT, images="lossless") as kept:
        run(Arm(), policy, SUITE.subset(per_task=1), kept, batch=1, progress=False)
        episode = kept.episode(0)
    first, second = (o.state for o in policy.seen)
    assert set(first) == set(KEYS)
    np.testing.assert_array_equal(first["joint_position"], episode.joints[0])
    np.testing.assert_array_equal(second["joint_position"], episode.joints[4])
    np.testing.assert_array_equal(second["pose"], episode.poses[4])
    np.testing.assert_array_equal(second["cartesian_position"], episode.poses[4, :6])
    np.testing.assert_array_equal(second["gripper_position"], [1.0])


def test_another_adapter_can_be_given(tmp_path: Path) -> None:
    with open_rollouts(tmp_path, ROBOT, images="lossless") as kept:
        adapter = adapter_for(ROBOT, gripper_most=0.75)
        run(Arm(), Wave(), SUITE, kept, batch=3, progress=False, adapter=adapter)
        assert (kept.episode(0).poses[1:, 6] == 0.75).all()


def test_the_made_up_states_of_a_trial_have_their_shapes() -> None:
    policy = Wave()
    try_policy(policy, ROBOT)
    assert {k: v.shape for k, v in policy.seen[0].state.items()} == {
        "pose": (7,),
        "joint_position": (7,),
        "gripper_position": (1,),
        "cartesian_position": (6,),
    }


def test_joint_states_of_a_robot_without_joints_are_refused() -> None:
    bare = dataclasses.replace(ROBOT, joint_names=(), control_mode="absolute_pose")
    with pytest.raises(MismatchError, match="state key 'joint_position'"):
        check_policy(Wave(), bare)


def test_a_world_that_hides_its_joints_is_at_fault(tmp_path: Path) -> None:
    with (
        open_rollouts(tmp_path, ROBOT, images="lossless") as kept,
        pytest.raises(WorldError, match=r"joints of shape \(\), expected \(1, 1, 7\)"),
    ):
        run(Arm(says_joints=False), Wave(), SUITE, kept, batch=1, progress=False)


def test_recordings_show_their_joints_in_any_action_space(store: EpisodeStore) -> None:
    world = RecordedWorld(store, panda.panda("absolute_pose", image_size=(8, 12)))
    seen = world.reset(world.start_states()[:2], [0, 0])
    np.testing.assert_array_equal(seen.joints[:, 0], [store.episode(i).joints[0] for i in (0, 1)])
    chunk = ActionChunk(actions=np.zeros((1, 12, 7)), poses=np.zeros((1, 4, 7)))
    seen = world.step(chunk, [1])
    np.testing.assert_array_equal(seen.joints[0], store.episode(1).joints[1:5])


def test_stores_and_robots_must_agree_on_joints(store: EpisodeStore, tmp_path: Path) -> None:
    check_store(store, ROBOT)
    bare = dataclasses.replace(ROBOT, joint_names=(), control_mode="absolute_pose")
    check_store(store, bare)  # what a robot does not use may be there
    without = open_rollouts(tmp_path / "bare", bare, images="lossless")
    with pytest.raises(MismatchError, match=r"has joint names \(\)"):
        check_store(without, ROBOT)
    other = panda.panda("joint_position", image_size=(8, 12))
    with pytest.raises(MismatchError, match="has action names"):
        check_store(store, other)
    check_store(store, other, actions=False)


def test_episodes_must_fit_the_stores_joints(store: EpisodeStore, tmp_path: Path) -> None:
    episode = dataclasses.replace(store.episode(0), key="again")
    with pytest.raises(MismatchError, match=r"joints of shape None, expected \(9, 7\)"):
        store.append(dataclasses.replace(episode, joints=None))
    broken = episode.joints.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DataError, match="NaN or infinity in its joints"):
        store.append(dataclasses.replace(episode, joints=broken))
    bare = dataclasses.replace(ROBOT, joint_names=(), control_mode="absolute_pose")
    without = open_rollouts(tmp_path / "bare", bare, images="lossless")
    with pytest.raises(MismatchError, match="create it with joint_names"):
        without.append(episode)
    assert "joint_names" not in without.info["worldeval"]["layout"]


def test_gymnasium_rollouts_of_a_robot_with_joints() -> None:
    env = WorldVectorEnv(Arm(), SUITE, num_envs=2)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    actions = np.full((2, 12, 8), 0.5, np.float32)
    after, *_ = env.step(actions)
    start = Arm().reset(STARTS[:2], [0, 0])
    poses, _ = adapter_for(ROBOT).advance(start.poses[:, 0], start.joints[:, 0], actions)
    np.testing.assert_array_equal(after["agent_pos"], poses[:, -1])
    env.step(actions)  # the end of both: begins row by row in a world that resets as a whole
    again, *_ = env.step(actions)
    assert env.observation_space.contains(again)
