"""One episode as the signals of trust see it, before anything is compared with true frames.

Enters: frames and commanded poses of an episode, true or imagined. Leaves: an ``Observed``: what
the inverse dynamics reads, what it should read, and how sharp, how changed and where in latent
space the frames are. Frame t is read against frame ``max(0, t - chunk)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from worldeval.data.video import to_model
from worldeval.imagination.trust.inverse_dynamics import InverseDynamics, pose_difference
from worldeval.world_model.latents import Encode

POOLED = 4
"""Height and width to which latents are averaged."""
_LEAST = 1e-4  # under a tenth of a grey level: keeps the logarithm of a still image finite


@dataclass(frozen=True, kw_only=True)
class Observed:
    """T frames after the start, K chunks; R readings, V views, P pose axes.

    target: (T, 2, P) commanded pose and change, in units of their spread.
    readings: (T, R, 2, P) the same as read from the frames.
    step: (T, P) commanded change since the frame before, in units of the change's spread.
    log_change: (T, V) logarithm of the mean absolute change of pixels since the frame before.
    log_sharpness: (T, V) logarithm of the mean absolute image gradient against the start's.
    pooled: (K, V, F) pooled latents of the last frame of each chunk.
    chunk: (T,) number of the chunk that each frame belongs to.
    """

    target: np.ndarray
    readings: np.ndarray
    step: np.ndarray
    log_change: np.ndarray
    log_sharpness: np.ndarray
    pooled: np.ndarray
    chunk: np.ndarray


def observe(
    network: InverseDynamics, encode: Encode, frames: np.ndarray, poses: np.ndarray
) -> Observed:
    """frames (T+1, V, H, W, C) uint8 in the network's order of views, poses (T+1, P); T >= 1."""
    config = network.config
    after = np.arange(1, len(frames))
    before = np.maximum(after - config.most_frames, 0)
    chunk = (after - 1) // config.most_frames
    video = to_model(frames)
    ends = np.append(np.flatnonzero(np.diff(chunk)), len(chunk) - 1) + 1
    change = np.abs(np.diff(video, axis=0)).mean((2, 3, 4)) / 2
    sharp = np.log(_sharpness(video) + _LEAST)
    moved = pose_difference(poses[after], poses[after - 1], config.pose_names)
    return Observed(
        target=network.targets(poses[before], poses[after]),
        readings=network.read(torch.from_numpy(video), before, after).numpy(),
        step=(moved / network.change_spread.cpu().numpy()).astype(np.float32),
        log_change=np.log(change + _LEAST),
        log_sharpness=sharp[1:] - sharp[0],
        pooled=pool(encode(frames[ends])),
        chunk=chunk,
    )


def pool(latents: np.ndarray) -> np.ndarray:
    """Latents (T, V, C, h, w) averaged to ``POOLED`` squared, flat: (T, V, F)."""
    flat = torch.from_numpy(np.ascontiguousarray(latents, np.float32)).flatten(0, 1)
    pooled = adaptive_avg_pool2d(flat, POOLED).flatten(1)
    return pooled.reshape(*latents.shape[:2], -1).numpy()


def view_pairs(views: int) -> tuple[list[int], list[int]]:
    """The first and the second of every pair of views; of a single view none."""
    pairs = list(combinations(range(views), 2))
    return [a for a, _ in pairs], [b for _, b in pairs]


def _sharpness(video: np.ndarray) -> np.ndarray:
    """Mean absolute difference of neighbouring pixels of (T, V, C, H, W), in [0, 1]; (T, V)."""
    across = np.abs(np.diff(video, axis=-1)).mean((2, 3, 4))
    down = np.abs(np.diff(video, axis=-2)).mean((2, 3, 4))
    return (across + down) / 4
