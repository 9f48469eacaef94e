"""Augmentation: what may change in a picture without changing what should be done.

Enters: uint8 frames (B, V, H, W, 3) and a generator. Leaves: shifted uint8 frames, then jittered
and blurred float images (B, V, C, H, W). Blur stands for a world model's softness: a policy that
was never shown blur reads an imagined scene as something else.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from worldeval.learning.processes import SharedDraws

Draws = np.random.Generator | SharedDraws


def shift(frames: np.ndarray, rng: Draws, most_px: int) -> np.ndarray:
    """Move each image by up to ``most_px`` in both directions, edge pixels repeated."""
    if not most_px:
        return frames
    batch, views, height, width, _ = frames.shape
    moves = rng.integers(-most_px, most_px + 1, (batch, views, 2))
    rows = np.clip(np.arange(height) + moves[..., :1], 0, height - 1)  # (B, V, H)
    columns = np.clip(np.arange(width) + moves[..., 1:], 0, width - 1)
    moved = np.empty_like(frames)
    for b in range(batch):
        for v in range(views):
            # whole rows first, then pixels: far quicker than one gather of both
            moved[b, v] = frames[b, v].take(rows[b, v], axis=0).take(columns[b, v], axis=1)
    return moved


def jitter(images: Tensor, rng: Draws, strength: float) -> Tensor:
    """Brightness, contrast and tint, the same for all views of a sample: one lamp lights them."""
    if not strength:
        return images
    batch = len(images)
    gain = 1 + strength * rng.uniform(-1, 1, (batch, 1, 3, 1, 1))
    gain = gain * (1 + strength * rng.uniform(-1, 1, (batch, 1, 1, 1, 1)))
    offset = strength * rng.uniform(-1, 1, (batch, 1, 1, 1, 1))
    return torch.addcmul(_tensor(offset, images), images, _tensor(gain, images))


def blur(images: Tensor, rng: Draws, share: float) -> Tensor:
    """Lose half of the resolution, wholly or in part, in a random ``share`` of the samples."""
    chosen = np.flatnonzero(rng.random(len(images)) < share)
    amount = rng.uniform(0.3, 1.0, (len(images), 1, 1, 1, 1))[chosen]
    if not len(chosen):
        return images
    index = torch.from_numpy(chosen).to(images.device)
    some = images[index]
    flat = some.flatten(0, 1)
    soft = functional.interpolate(
        functional.avg_pool2d(flat, 2), scale_factor=2.0, mode="bilinear", align_corners=False
    )
    mixed = torch.lerp(some, soft.view_as(some), _tensor(amount, images).expand_as(some))
    return images.index_copy(0, index, mixed)


def _tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(like.device)
