"""What tells the backbone where the hand goes: geometry maps and one token per frame.

In: normalised or physical poses at each frame. Out: (1) geometry maps (B, T, V, G, h, w): for every
calibrated view, where the commanded hand and its shadow on the table fall, and which point of the
table each latent pixel looks at (this moves with the hand in the wrist view, and there it is what
lets attention match a place seen before); (2) one token per frame (B, T, E) from its pose, its role
(memory, current, future or empty slot) and its noise level; poses with angles enter it as
``turned_poses`` has them, and cameras that are not calibrated have no maps. Frame-level
conditioning as in Ctrl-World (arXiv 2510.10125, section 3.1), with feature-wise modulation in place
of attention over a single token, which is the same thing (a softmax over one key is 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from worldeval.data.normalize import BoundNormalizer
from worldeval.errors import ConfigError
from worldeval.motion.rotations import matrix_from_euler, rotation_vector
from worldeval.robots import CameraSpec, RobotSpec

GEOMETRY_CHANNELS = 6
ROLES = ("empty", "memory", "current", "future")
PER_TRANSLATION_M, PER_ROTATION_RAD = 8.0, 2.0
"""What brings the translation and the rotation of a hand within a chunk to about one."""


@dataclass(frozen=True, kw_only=True)
class WorkspaceFrame:
    """Centre and half-width of the part of the table that maps to [-1, 1] in geometry maps."""

    centre_m: tuple[float, float]
    half_m: float
    height_m: float
    """Of the table, in the base frame."""

    @classmethod
    def of(cls, robot: RobotSpec) -> WorkspaceFrame:
        """The frame of ``RobotSpec.workspace_m``; ConfigError for a robot that names none."""
        if robot.workspace_m is None:
            raise ConfigError(
                f"robot {robot.name!r} names no workspace_m, so what of the table its cameras see "
                "cannot be shown to a model; give it, or use a model without geometry maps"
            )
        x, y, half, height = robot.workspace_m
        return cls(centre_m=(x, y), half_m=half, height_m=height)


@dataclass(frozen=True, kw_only=True)
class PoseParts:
    """Which numbers of a pose are hands, and which are grippers with which sense.

    The default is that of checkpoints which keep no robot: x, y, z first, the gripper last, -1
    open and 1 closed.
    """

    hands: tuple[tuple[int, ...], ...] = ((0, 1, 2),)
    """Places of x, y, z."""
    grippers: tuple[int, ...] = (-1,)
    opened: tuple[float, ...] = (-1.0,)
    closed: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, robot: RobotSpec | None) -> PoseParts:
        if robot is None:
            return cls()
        return cls(
            hands=tuple(hand[:3] for hand in robot.hands),
            grippers=robot.pose_grippers,
            opened=robot.grippers_open,
            closed=robot.grippers_closed,
        )

    @property
    def hand(self) -> list[int]:
        """Places of x, y, z of the hand that carries the cameras: the first."""
        return list(self.hands[0])

    def closing(self, poses: np.ndarray) -> np.ndarray:
        """(..., P) -> (..., G): -1 open to 1 closed."""
        opened, closed = np.array(self.opened), np.array(self.closed)
        middle, half = (opened + closed) / 2, (closed - opened) / 2
        scaled: np.ndarray = ((poses[..., list(self.grippers)] - middle) / half).astype(np.float32)
        return scaled


def geometry_maps(
    poses: np.ndarray,
    cameras: Sequence[CameraSpec],
    size: tuple[int, int],
    workspace: WorkspaceFrame,
    parts: PoseParts = PoseParts(),
) -> np.ndarray:
    """(..., P) physical poses -> (..., V, 6, h, w) float32.

    Channels: Gaussian at the hands; the same times how far each is closed (-1 to 1; 0 without a
    gripper); Gaussian at the hands' shadows on the table; table x and y under each pixel (clipped
    to +-2, 0 above the horizon); 1 where the table is seen.
    """
    lead = poses.shape[:-1]
    flat = poses.reshape(-1, poses.shape[-1]).astype(np.float32)  # (N, P)
    hand, grips = flat[:, parts.hand], parts.closing(flat)
    floor = np.array([0, 0, workspace.height_m], np.float32)
    h, w = size
    v, u = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    out = np.zeros((len(flat), len(cameras), GEOMETRY_CHANNELS, h, w), np.float32)
    for i, camera in enumerate(cameras):
        for number, places in enumerate(parts.hands):
            each = flat[:, list(places)]
            shadow = each * np.array([1, 1, 0], np.float32) + floor
            at_hand = _gaussian(camera.project(each, hand), u, v, 0.09)  # (N, h, w)
            out[:, i, 0] = np.maximum(out[:, i, 0], at_hand)
            if number < grips.shape[-1]:
                out[:, i, 1] += at_hand * grips[:, number, None, None]
            at_shadow = _gaussian(camera.project(shadow, hand), u, v, 0.09)
            out[:, i, 2] = np.maximum(out[:, i, 2], at_shadow)
        rays = _rays(camera, u, v)
        centre = camera.centre_m(hand)  # (N, 3)
        down = np.where(rays[..., 2] < -1e-3, -rays[..., 2], np.inf)
        reach = (centre[:, 2] - workspace.height_m)[:, None, None] / down  # metres along the ray
        seen = (reach > 0).astype(np.float32)
        for axis in (0, 1):
            place = centre[:, axis, None, None] + reach * rays[..., axis]
            place = (place - workspace.centre_m[axis]) / workspace.half_m
            out[:, i, 3 + axis] = np.clip(place, -2, 2) * seen
        out[:, i, 5] = seen
    return out.reshape(*lead, *out.shape[1:])


def warp_grids(
    poses: np.ndarray,
    current: np.ndarray,
    cameras: Sequence[CameraSpec],
    size: tuple[int, int],
    depth_m: float,
    parts: PoseParts = PoseParts(),
) -> np.ndarray:
    """Where each pixel at ``poses`` looked from ``current``, if all it sees lay at ``depth_m``.

    poses: (B, T, P); current: (B, P), or (B, T, P) for one source per frame; physical.
    Returns (B, T, V, h, w, 2) float32 image coordinates (u, v) in [-1, 1], as
    ``torch.nn.functional.grid_sample`` takes them; 2, outside, where that point was behind the
    camera. For a fixed camera this is the identity. For one on the hand it is the homography that
    the plane induces (Hartley & Zisserman, section 13.1).
    """
    b, t = poses.shape[:2]
    hand = poses[..., None, None, parts.hand].astype(np.float32)  # (B, T, 1, 1, 3)
    source = current[:, None] if current.ndim == 2 else current
    before = source[:, :, None, None, parts.hand].astype(np.float32)  # (B, 1 or T, 1, 1, 3)
    h, w = size
    v, u = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    out = np.empty((b, t, len(cameras), h, w, 2), np.float32)
    for i, camera in enumerate(cameras):
        if camera.mount == "fixed":
            out[:, :, i] = np.stack([u, v], -1) * 2 - 1
            continue
        points = camera.centre_m(hand) + depth_m * _rays(camera, u, v)  # (B, T, h, w, 3)
        seen = camera.project(points, before)
        out[:, :, i] = np.where(seen[..., 2:] > 1e-3, seen[..., :2] * 2 - 1, 2.0)
    return out


def nearest_memory(
    poses: np.ndarray, slots: int, valid: np.ndarray, parts: PoseParts = PoseParts()
) -> np.ndarray:
    """For each frame of a clip the memory slot whose hand was nearest, (B, T) int64.

    poses: (B, T, P) physical, memory first; valid: (B, slots) bool. -1 where no slot is filled.
    """
    hands = poses[..., parts.hand].astype(np.float32)
    distance = np.linalg.norm(hands[:, :, None] - hands[:, None, :slots], axis=-1)  # (B, T, M)
    distance = np.where(valid[:, None], distance, np.inf)
    some = np.any(valid, axis=1)[:, None]
    return np.where(some, distance.argmin(axis=-1), -1)


def _rays(camera: CameraSpec, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Directions in the base frame of the rays through image points (h, w), (h, w, 3)."""
    scale = 2 * math.tan(camera.fovy_rad / 2)
    rays = np.stack([(u - 0.5) * scale, (0.5 - v) * scale, -np.ones_like(u)], -1)
    return rays @ np.asarray(camera.rotation, np.float32).reshape(3, 3).T


def _gaussian(projected: np.ndarray, u: np.ndarray, v: np.ndarray, width: float) -> np.ndarray:
    """(N, 3) projected points -> (N, h, w) bumps of the given width (fraction of the image)."""
    du = u - projected[:, 0, None, None]
    dv = v - projected[:, 1, None, None]
    bump = np.exp(-(du**2 + dv**2) / (2 * width**2))
    return (bump * (projected[:, 2, None, None] > 0)).astype(np.float32)


def turned_pose_width(pose_dim: int) -> tuple[int, int]:
    """Numbers per frame that ``turned_poses`` makes of poses with three angles: own, relative."""
    return pose_dim + 3, pose_dim + 3


def turned_poses(
    poses: np.ndarray,
    current: int,
    angles: Sequence[int],
    normalizer: BoundNormalizer,
    parts: PoseParts = PoseParts(),
) -> tuple[np.ndarray, np.ndarray]:
    """Poses of a hand that turns, without the jump of an angle from pi to -pi.

    poses: (B, T, P) physical, the hand's position in metres; angles: the places of
    roll, pitch and yaw about fixed axes (R = Rz Ry Rx); current: index of the current frame.
    Returns (B, T, P+3): the normalised rest, sine and cosine of the angles; and (B, T, P+3)
    relative to the current frame: the difference of the rest, the translation of the hand in
    the axes of the hand then, R_c^T (p - p_c), and its rotation, the rotation vector of R_c^T R.
    What a camera on the hand sees depends on the last two alone, wherever the robot stands.
    """
    angles = list(angles)
    rest = [i for i in range(poses.shape[-1]) if i not in angles]
    normal = normalizer.normalize(poses)[..., rest]
    place, turn = poses[..., parts.hand], poses[..., angles].astype(np.float64)
    rotation = matrix_from_euler(turn)  # (B, T, 3, 3)
    back = rotation[:, current].swapaxes(-1, -2)[:, None]  # (B, 1, 3, 3)
    translation = (back @ (place - place[:, current : current + 1])[..., None])[..., 0]
    turned = rotation_vector(back @ rotation)
    own = np.concatenate([normal, np.sin(turn), np.cos(turn)], -1)
    difference = (poses - poses[:, current : current + 1])[..., rest]  # not clipped, as normal is
    span = (np.asarray(normalizer.high) - np.asarray(normalizer.low))[rest]
    relative = np.concatenate(
        [
            4 * difference / span,
            translation * PER_TRANSLATION_M,
            turned * PER_ROTATION_RAD,
        ],
        -1,
    )
    return own.astype(np.float32), relative.astype(np.float32)


class FrameToken(nn.Module):
    """One token per frame from its pose, its role and the noise level of its latent.

    own, relative: numbers per frame of its pose and of that against the current one's.
    """

    frequencies: Tensor

    def __init__(self, own: int, relative: int, frames: int, width: int) -> None:
        super().__init__()
        self.pose = nn.Sequential(
            nn.Linear(own + relative, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.role = nn.Embedding(len(ROLES), width)
        self.place = nn.Parameter(0.02 * torch.randn(frames, width))
        self.noise = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(-1.5, 3.5, 16)), persistent=False
        )

    def forward(self, poses: Tensor, relative: Tensor, roles: Tensor, c_noise: Tensor) -> Tensor:
        """poses (B, T, own), relative (B, T, relative), roles (B, T) int64, c_noise (B, T) ->
        (B, T, E)."""
        angles = c_noise[..., None] * self.frequencies
        noise = self.noise(torch.cat([angles.sin(), angles.cos()], -1))
        pose = self.pose(torch.cat([poses, relative], -1))
        return self.mix(pose + self.role(roles) + self.place + noise)
