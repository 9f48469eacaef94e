"""The only normaliser: poses to [-1, 1] by bounds, latents to zero mean and unit spread.

Bounds come from a RobotSpec or from percentiles of recorded poses (Ctrl-World, section 3.2, uses
the 1st and 99th), and travel inside every checkpoint that was trained with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BoundNormalizer:
    """Maps [low, high] linearly to [-1, 1] per dimension; values outside are clipped."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high):
            raise ConfigError(
                f"normaliser: {len(self.low)} lower and {len(self.high)} upper bounds"
            )
        for low, high in zip(self.low, self.high, strict=True):
            if not high > low:
                raise ConfigError(f"normaliser: upper bound {high} is not above lower bound {low}")

    def normalize(self, values: np.ndarray) -> np.ndarray:
        """(..., D) physical -> (..., D) in [-1, 1], float32."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        return np.clip(2 * (values - low) / (high - low) - 1, -1, 1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class ChannelNormalizer:
    """Zero mean, unit spread per latent channel; ``values`` are (..., C, H, W)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ConfigError(f"channel normaliser: mean {self.mean} and std {self.std} do not fit")

    @classmethod
    def fit(cls, values: np.ndarray) -> ChannelNormalizer:
        """From samples (N, C, H, W)."""
        mean = values.mean(axis=(0, 2, 3), dtype=np.float64)
        std = values.std(axis=(0, 2, 3), dtype=np.float64)
        return cls(mean=tuple(map(float, mean)), std=tuple(float(max(s, 1e-3)) for s in std))
