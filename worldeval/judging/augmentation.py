"""Makes true frames look like imagined ones, so that a judge does not depend on sharp pixels.

Enters and leaves: images (B, moments, V, C, H, W) in [-1, 1]. The shift is one per sample and view,
the same at all moments (the camera stands still). Colour is jittered for the sample as a whole and
a little more for the later moments, and only the later moments are blurred and made noisy: a world
model is given the true start frame and drifts from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Strengths; all zero leaves images as they are."""

    shift_px: int = 2
    """Images are shifted by up to so many pixels."""
    colour: float = 0.15
    """Largest relative change of contrast, and of brightness in the range [-1, 1]."""
    drift: float = 0.05
    """The same, for the later moments alone and per channel."""
    blur: float = 0.6
    """Probability that the later moments are blurred, by a random amount."""
    noise: float = 0.02
    """Largest standard deviation of pixel noise."""
    chroma: float = 0.5
    """Probability that colour is kept at half the resolution only, as H.264 does: rollouts are
    judged as they are stored."""

    def __post_init__(self) -> None:
        for name in ("shift_px", "colour", "drift", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 0 or more")
        for name in ("blur", "chroma"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected a probability")


def augment(images: torch.Tensor, config: AugmentConfig, rng: np.random.Generator) -> torch.Tensor:
    """A randomly changed copy; all randomness comes from ``rng``."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32)).to(images.device)

    batch, moments, views, channels = images.shape[:4]
    images = _shift(images, config.shift_px, rng) if config.shift_px else images.clone()
    chosen = np.flatnonzero(rng.random(batch) < config.blur)
    if len(chosen) and moments > 1:  # only where it is asked for: blurring is what costs time
        rows = torch.from_numpy(chosen).to(images.device)
        sharp = images[rows, 1:]
        amount = uniform(0, 1, len(chosen), 1, 1, 1, 1, 1)
        images[rows, 1:] = torch.lerp(sharp, _blurred(sharp), amount)
    if len(chosen := np.flatnonzero(rng.random(batch) < config.chroma)):
        rows = torch.from_numpy(chosen).to(images.device)
        images[rows] = _halved_chroma(images[rows])
    shape = (batch, 1, views, channels, 1, 1)
    later = torch.ones(moments, 1, 1, 1, 1, device=images.device)
    later[0] = 0
    gain = 1 + uniform(-config.colour, config.colour, batch, 1, 1, 1, 1, 1)
    offset = uniform(-config.colour, config.colour, batch, 1, 1, 1, 1, 1)
    gain = gain * (1 + later * uniform(-config.drift, config.drift, *shape))
    offset = offset + later * uniform(-config.drift, config.drift, *shape)
    images.mul_(gain).add_(offset)
    if config.noise:
        # One pattern per step, of random strength and sign a sample: fresh ones would cost more
        # time than the network.
        generator = torch.Generator(images.device).manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(images.shape[1:], generator=generator, device=images.device) * later
        images.addcmul_(uniform(-config.noise, config.noise, batch, 1, 1, 1, 1, 1), noise)
    return images.clamp_(-1, 1)


def _shift(images: torch.Tensor, most: int, rng: np.random.Generator) -> torch.Tensor:
    """Moves every view by up to ``most`` pixels; edge pixels are repeated."""
    batch, moments, views, channels, height, width = images.shape
    rows, columns = (
        torch.from_numpy(
            np.clip(np.arange(size) + rng.integers(-most, most + 1, (batch, views, 1)), 0, size - 1)
        ).to(images.device)
        for size in (height, width)
    )
    by_row = rows[:, None, :, None, :, None].expand(images.shape)
    by_column = columns[:, None, :, None, None, :].expand(images.shape)
    return images.gather(4, by_row).gather(5, by_column)


def _halved_chroma(images: torch.Tensor) -> torch.Tensor:
    """Luma (BT.601) as it is, the rest averaged over 2x2 pixels."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
    luma = (images * weights).sum(dim=-3, keepdim=True)
    flat = (images - luma).flatten(0, -4)
    halved = torch.nn.functional.avg_pool2d(flat, 2)
    full = halved.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    return luma + full.reshape(images.shape)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """Binomial 5x5 blur (standard deviation 1 px), edges repeated, by sums of shifted images.

    On a CPU this takes a quarter of the time of a convolution with a single channel.
    """
    for dimension in (-1, -2):
        size = images.shape[dimension]
        for _ in range(2):  # [1 2 1] twice is [1 4 6 4 1]
            first, last = images.narrow(dimension, 0, 1), images.narrow(dimension, size - 1, 1)
            before = torch.cat([first, images.narrow(dimension, 0, size - 1)], dimension)
            after = torch.cat([images.narrow(dimension, 1, size - 1), last], dimension)
            images = before.add_(after).mul_(0.25).add_(images, alpha=0.5)
    return images
