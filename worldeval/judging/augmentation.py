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
import torch.nn.functional as F

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Strengths; all zero leaves images as they are."""

    shift_px: int = 2
    colour: float = 0.15
    """Largest relative change of contrast, and of brightness in the range [-1, 1]."""
    drift: float = 0.05
    """The same, for the later moments alone and per channel."""
    blur: float = 0.6
    """Probability that the later moments are blurred, by a random amount."""
    noise: float = 0.02
    """Largest standard deviation of pixel noise."""

    def __post_init__(self) -> None:
        for name in ("shift_px", "colour", "drift", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 0 or more")
        if not 0 <= self.blur <= 1:
            raise ConfigError(f"blur is {self.blur!r}, expected a probability")


def augment(
    images: torch.Tensor, config: AugmentConfig, rng: np.random.Generator
) -> torch.Tensor:
    """A randomly changed copy; all randomness comes from ``rng``."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32)).to(images.device)

    batch, moments, views, channels = images.shape[:4]
    if config.shift_px:
        images = _shift(images, config.shift_px, rng)
    later = torch.ones(moments, 1, 1, 1, 1, device=images.device)
    later[0] = 0
    if config.blur:
        chosen = (uniform(0, 1, batch, 1, 1, 1, 1, 1) < config.blur).float()
        amount = chosen * uniform(0, 1, batch, 1, 1, 1, 1, 1) * later
        images = images + amount * (_blurred(images) - images)
    gain = 1 + uniform(-config.colour, config.colour, batch, 1, 1, 1, 1, 1)
    offset = uniform(-config.colour, config.colour, batch, 1, 1, 1, 1, 1)
    shape = (batch, 1, views, channels, 1, 1)
    gain = gain * (1 + later * uniform(-config.drift, config.drift, *shape))
    offset = offset + later * uniform(-config.drift, config.drift, *shape)
    images = images * gain + offset
    if config.noise:
        generator = torch.Generator(images.device).manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + uniform(0, config.noise, batch, 1, 1, 1, 1, 1) * later * noise
    return images.clamp(-1, 1)


def _shift(images: torch.Tensor, most: int, rng: np.random.Generator) -> torch.Tensor:
    """Moves every view by up to ``most`` pixels; edge pixels are repeated."""
    batch, moments, views, channels, height, width = images.shape
    rows, columns = (
        torch.from_numpy(
            np.clip(
                np.arange(size) + rng.integers(-most, most + 1, (batch, views, 1)), 0, size - 1
            )
        ).to(images.device)
        for size in (height, width)
    )
    by_row = rows[:, None, :, None, :, None].expand(images.shape)
    by_column = columns[:, None, :, None, None, :].expand(images.shape)
    return images.gather(4, by_row).gather(5, by_column)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """Binomial 5x5 blur (standard deviation 1 px), edges repeated."""
    flat = images.flatten(0, 3)[:, None]
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    flat = F.conv2d(F.pad(flat, (2, 2, 0, 0), mode="replicate"), taps.view(1, 1, 1, 5))
    flat = F.conv2d(F.pad(flat, (0, 0, 2, 2), mode="replicate"), taps.view(1, 1, 5, 1))
    return flat[:, 0].unflatten(0, images.shape[:4])
