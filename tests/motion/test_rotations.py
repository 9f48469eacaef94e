"""Rotations against scipy's, and what scipy does not say: wrap-around and locked angles."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldeval.errors import DataError
from worldeval.motion import rotations as r

SOME = Rotation.random(200, random_state=0)


def test_euler_angles_are_extrinsic_xyz() -> None:
    euler = SOME.as_euler("xyz").reshape(20, 10, 3)
    matrices = SOME.as_matrix().reshape(20, 10, 3, 3)
    np.testing.assert_allclose(r.matrix_from_euler(euler), matrices, atol=1e-14)
    np.testing.assert_allclose(r.euler_from_matrix(matrices), euler, atol=1e-12)


def test_quaternions_are_xyzw_with_positive_w() -> None:
    expected = SOME.as_quat(canonical=True)
    np.testing.assert_allclose(r.quaternion_from_matrix(SOME.as_matrix()), expected, atol=1e-14)
    np.testing.assert_allclose(
        r.matrix_from_quaternion(-3 * expected), SOME.as_matrix(), atol=1e-14
    )
    euler = SOME.as_euler("xyz")
    np.testing.assert_allclose(r.euler_from_quaternion(expected), euler, atol=1e-12)
    np.testing.assert_allclose(r.quaternion_from_euler(euler), expected, atol=1e-14)


def test_half_turns_have_quaternions_too() -> None:
    axes = np.eye(3)
    half = r.quaternion_from_matrix(Rotation.from_rotvec(np.pi * axes).as_matrix())
    np.testing.assert_allclose(np.abs(half), np.c_[axes, np.zeros(3)], atol=1e-15)


def test_rotation_vectors_down_to_nothing() -> None:
    np.testing.assert_allclose(r.rotation_vector(SOME.as_matrix()), SOME.as_rotvec(), atol=1e-12)
    tiny = np.array([1e-9, 0.0, -2e-9])
    small = r.rotation_vector(Rotation.from_rotvec(tiny).as_matrix())
    np.testing.assert_allclose(small, tiny, rtol=1e-6)
    assert (r.rotation_vector(np.eye(3)) == 0).all()


def test_rotation_angle_is_the_shortest_turn() -> None:
    turned = (SOME * Rotation.from_rotvec([0.0, 0.3, 0.0])).as_matrix()
    np.testing.assert_allclose(r.rotation_angle(SOME.as_matrix(), turned), 0.3, atol=1e-12)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_locked_angles_still_give_the_same_rotation(pitch: float) -> None:
    matrix = r.matrix_from_euler(np.array([0.4, pitch, -0.7]))
    found = r.euler_from_matrix(matrix)
    assert found[2] == 0
    np.testing.assert_allclose(r.matrix_from_euler(found), matrix, atol=1e-9)


def test_wrapping_leaves_angles_within_half_a_turn_to_the_bit() -> None:
    inside = np.array([np.pi, -np.pi, 3.1373725, -1e-30, 0.0], np.float32).astype(np.float64)
    inside = np.clip(inside, -np.pi, np.pi)
    assert (r.wrap_angle(inside) == inside).all()
    np.testing.assert_allclose(
        r.wrap_angle(np.array([np.pi + 0.1, -np.pi - 0.1, 7.0, -20.0])),
        [-np.pi + 0.1, np.pi - 0.1, 7 - 2 * np.pi, -20 + 6 * np.pi],
        atol=1e-14,
    )


def test_the_shortest_difference_crosses_the_seam() -> None:
    # DROID's roll jumps between +pi and -pi while the hand hardly turns
    assert r.angle_difference(-3.13, 3.13) == pytest.approx(2 * np.pi - 6.26)
    assert r.angle_difference(3.13, -3.13) == pytest.approx(6.26 - 2 * np.pi)


def test_a_quaternion_of_zeros_is_refused() -> None:
    with pytest.raises(DataError, match="all zeros"):
        r.matrix_from_quaternion(np.zeros((2, 4)))
