"""Panda kinematics against MuJoCo, a model of its own kind, and against what DROID recorded."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldeval.errors import ConfigError, MismatchError
from worldeval.motion import panda
from worldeval.motion.rotations import rotation_angle
from worldeval.policies.checking import state_keys

DROID = Path(os.environ.get("WORLDEVAL_DROID", Path(__file__).parents[3] / "shared" / "droid"))

# Joint frames of franka_description's panda_arm.xacro: origin xyz (m) and rpy (rad), axis z.
URDF = (
    ((0, 0, 0.333), (0, 0, 0)),
    ((0, 0, 0), (-np.pi / 2, 0, 0)),
    ((0, -0.316, 0), (np.pi / 2, 0, 0)),
    ((0.0825, 0, 0), (np.pi / 2, 0, 0)),
    ((-0.0825, 0.384, 0), (-np.pi / 2, 0, 0)),
    ((0, 0, 0), (np.pi / 2, 0, 0)),
    ((0.088, 0, 0), (np.pi / 2, 0, 0)),
)
FLANGE = (0, 0, 0.107)


def random_joints(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(panda.JOINT_LOW_RAD, panda.JOINT_HIGH_RAD, (count, 7))


def mujoco_model():
    mujoco = pytest.importorskip("mujoco")
    xml = ""
    for place, rpy in URDF:
        x, y, z, w = Rotation.from_euler("xyz", rpy).as_quat()
        pos, quat = " ".join(map(str, place)), f"{w} {x} {y} {z}"
        xml += f'<body pos="{pos}" quat="{quat}"><joint type="hinge" axis="0 0 1"/>'
        xml += '<geom size="0.01"/>'
    xml += f'<site name="flange" pos="{" ".join(map(str, FLANGE))}"/>' + "</body>" * 7
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><compiler angle="radian"/><worldbody>{xml}</worldbody></mujoco>'
    )
    return mujoco, model, mujoco.MjData(model)


def test_forward_kinematics_agree_with_mujoco() -> None:
    mujoco, model, data = mujoco_model()
    joints = random_joints(50)
    matrices = panda.forward(joints)
    for q, matrix in zip(joints, matrices, strict=True):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(matrix[:3, 3], data.site("flange").xpos, atol=1e-9)
        np.testing.assert_allclose(
            matrix[:3, :3], data.site("flange").xmat.reshape(3, 3), atol=1e-9
        )


def test_poses_and_matrices_are_each_others_inverse_in_any_batch() -> None:
    joints = random_joints(12).reshape(3, 4, 7)
    matrices = panda.forward(joints)
    assert matrices.shape == (3, 4, 4, 4)
    np.testing.assert_allclose(
        panda.matrix_from_pose(panda.pose_from_matrix(matrices)), matrices, atol=1e-12
    )
    np.testing.assert_array_equal(panda.forward(joints[1, 2]), matrices[1, 2])


def test_joints_are_found_for_a_pose_nearby() -> None:
    rng = np.random.default_rng(1)
    low, high = np.array(panda.JOINT_LOW_RAD), np.array(panda.JOINT_HIGH_RAD)
    middle = (low + high) / 2
    start = middle + rng.uniform(-0.25, 0.25, (30, 7)) * (high - low)
    there = start + rng.uniform(-0.1, 0.1, start.shape)
    found = panda.joints_for_pose(panda.forward_pose(there), start)
    reached, wanted = panda.forward(found), panda.forward(there)
    assert np.abs(reached[:, :3, 3] - wanted[:, :3, 3]).max() < 1e-5
    assert rotation_angle(reached[:, :3, :3], wanted[:, :3, :3]).max() < 1e-5
    assert np.abs(found - start).max() < 0.6  # the elbow did not flip over


def test_a_pose_out_of_reach_gives_finite_joints_within_their_limits() -> None:
    start = np.array([0, 0, 0, -2.0, 0, 2.0, 0.0])
    found = panda.joints_for_pose(np.array([3.0, 0, 0.5, np.pi, 0, 0]), start)
    assert (found >= panda.JOINT_LOW_RAD).all() and (found <= panda.JOINT_HIGH_RAD).all()
    assert panda.forward_pose(found)[0] > panda.forward_pose(start)[0] + 0.1


@pytest.mark.skipif(not DROID.is_dir(), reason=f"no DROID episodes at {DROID}")
def test_droid_records_the_flange() -> None:
    for file in sorted(DROID.glob("annotation/*/*.json")):
        record = json.loads(file.read_text())
        joints = np.array(record["observation.state.joint_position"])
        said = panda.matrix_from_pose(np.array(record["observation.state.cartesian_position"]))
        found = panda.forward(joints)
        assert np.linalg.norm(found[:, :3, 3] - said[:, :3, 3], axis=-1).max() < 1e-6  # m
        assert np.degrees(rotation_angle(found[:, :3, :3], said[:, :3, :3])).max() < 1e-4


@pytest.mark.parametrize("space", panda.ACTION_SPACES)
def test_the_robot_in_each_action_space(space: str) -> None:
    robot = panda.panda(space, steps_per_frame=2)
    assert robot.control_mode == robot.action_space == space
    assert robot.action_dim == (8 if space.startswith("joint") else 7)
    assert robot.frame_hz == 7.5 and robot.joint_dim == 7 and robot.chunk_steps == 8
    assert state_keys(robot) == (
        "pose",
        "joint_position",
        "gripper_position",
        "cartesian_position",
    )
    assert not robot.poses_are_bounded


def test_cameras_of_real_data_cannot_be_projected_into() -> None:
    from worldeval.world_model.conditioning import WorkspaceFrame, geometry_maps

    robot = panda.panda()
    table = WorkspaceFrame(centre_m=(0.0, 0.0), half_m=0.5, height_m=0.0)
    with pytest.raises(ConfigError, match="'exterior_1' is uncalibrated"):
        geometry_maps(np.zeros((1, 7), np.float32), robot.cameras, (4, 4), table)


def test_wrong_choices_are_named() -> None:
    with pytest.raises(ConfigError, match="action space is 'torque'"):
        panda.panda("torque")
    with pytest.raises(MismatchError, match=r"\(3, 6\), expected \(..., 7\)"):
        panda.forward(np.zeros((3, 6)))
