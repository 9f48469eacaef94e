"""Rotations in the four forms that robot data use, batched numpy in float64.

Enters and leaves: quaternions (..., 4) as x y z w; rotation matrices (..., 3, 3); Euler angles
(..., 3) roll pitch yaw in rad, extrinsic about the fixed x, y, z axes in that order, as DROID has
them (scipy's "xyz")::

    R(roll, pitch, yaw) = Rz(yaw) Ry(pitch) Rx(roll)

Angles that leave are in [-pi, pi]; quaternions that leave have w >= 0, so that q and -q, the same
rotation, come out equal. Where pitch is +-pi/2 roll and yaw are about one axis: then yaw is 0.
"""

from __future__ import annotations

import numpy as np

from worldeval.errors import DataError

_LOCKED = 1e-7
"""Below this cosine of the pitch, roll and yaw cannot be told apart."""


def wrap_angle(angle_rad: np.ndarray) -> np.ndarray:
    """The same angle in [-pi, pi]; one that lies there already is left as it is, to the bit."""
    angle = np.asarray(angle_rad)
    inside = np.abs(angle) <= np.pi
    return np.where(inside, angle, np.remainder(angle + np.pi, 2 * np.pi) - np.pi)


def angle_difference(to_rad: np.ndarray, from_rad: np.ndarray) -> np.ndarray:
    """The shortest turn from one angle to another, in [-pi, pi]."""
    return wrap_angle(np.asarray(to_rad, np.float64) - np.asarray(from_rad, np.float64))


def matrix_from_euler(euler_rad: np.ndarray) -> np.ndarray:
    """Roll pitch yaw (..., 3) -> (..., 3, 3)."""
    euler = np.asarray(euler_rad, np.float64)
    sr, sp, sy = np.moveaxis(np.sin(euler), -1, 0)
    cr, cp, cy = np.moveaxis(np.cos(euler), -1, 0)
    rows = (
        (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
        (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
        (-sp, cp * sr, cp * cr),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def euler_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> roll pitch yaw (..., 3)."""
    m = np.asarray(matrix, np.float64)
    cosine = np.hypot(m[..., 0, 0], m[..., 1, 0])
    pitch = np.arctan2(-m[..., 2, 0], cosine)
    free = cosine > _LOCKED
    roll = np.where(
        free,
        np.arctan2(m[..., 2, 1], m[..., 2, 2]),
        np.arctan2(-m[..., 1, 2], m[..., 1, 1]),
    )
    yaw = np.where(free, np.arctan2(m[..., 1, 0], m[..., 0, 0]), 0.0)
    return np.stack([roll, pitch, yaw], -1)


def matrix_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """x y z w (..., 4) of any length but 0 -> (..., 3, 3). Raises DataError for zeros."""
    q = np.asarray(quaternion, np.float64)
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    if not (length > 0).all():
        raise DataError(
            "a quaternion is all zeros (or NaN), expected x y z w of a rotation; its row is missing"
        )
    x, y, z, w = np.moveaxis(q / length, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> x y z w (..., 4) with w >= 0.

    Of the four products 4 q_i q that the matrix gives, the one with the largest q_i is normalised
    (Shepperd, 1978), which loses no digits anywhere.
    """
    m = np.asarray(matrix, np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xy, xz, yz = (
        m[..., 1, 0] + m[..., 0, 1],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 2, 1] + m[..., 1, 2],
    )
    xw, yw, zw = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    rows = (
        (1 + xx - yy - zz, xy, xz, xw),
        (xy, 1 - xx + yy - zz, yz, yw),
        (xz, yz, 1 - xx - yy + zz, zw),
        (xw, yw, zw, 1 + xx + yy + zz),
    )
    products = np.stack([np.stack(row, -1) for row in rows], -2)  # (..., 4, 4): 4 q_i q
    largest = np.argmax(np.diagonal(products, axis1=-2, axis2=-1), -1)
    chosen = np.take_along_axis(products, largest[..., None, None], -2)[..., 0, :]
    chosen = chosen / np.linalg.norm(chosen, axis=-1, keepdims=True)
    return np.where(chosen[..., 3:] < 0, -chosen, chosen)


def quaternion_from_euler(euler_rad: np.ndarray) -> np.ndarray:
    return quaternion_from_matrix(matrix_from_euler(euler_rad))


def euler_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    return euler_from_matrix(matrix_from_quaternion(quaternion))


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> axis times angle (..., 3) in rad, the angle in [0, pi]."""
    quaternion = quaternion_from_matrix(matrix)
    sine = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., 3:])
    # For tiny angles axis * angle = 2 q_xyz; the quotient would be 0 / 0.
    scale = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)
    return quaternion[..., :3] * scale


def matrix_from_rotation_vector(vector_rad: np.ndarray) -> np.ndarray:
    """Axis times angle (..., 3) in rad -> (..., 3, 3)."""
    half = np.asarray(vector_rad, np.float64) / 2
    angle = np.linalg.norm(half, axis=-1, keepdims=True)
    # sin(a) / a as numpy's sinc has it, which is 1 at 0.
    return matrix_from_quaternion(
        np.concatenate([half * np.sinc(angle / np.pi), np.cos(angle)], -1)
    )


def rotation_angle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The angle in rad between two rotation matrices (..., 3, 3); (...)."""
    return np.linalg.norm(rotation_vector(np.swapaxes(one, -1, -2) @ other), axis=-1)
