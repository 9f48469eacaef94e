"""EDM preconditioning around an anchor: one definition for the loss and for sampling.

Karras et al. 2022 (arXiv 2206.00364), table 1: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise).
Here x is the difference to an anchor (the current frame, for the embedded world; zero for
Ctrl-World as published), so a scene at rest is the zero signal and costs the network nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Noise levels of training and the spread of the data."""

    sigma_data: float = 0.5
    """Standard deviation of the signal that is denoised."""
    log_sigma_mean: float = -0.4
    """Mean of the logarithm of the noise levels in training."""
    log_sigma_std: float = 1.4
    """Standard deviation of the logarithm of the noise levels in training."""

    def __post_init__(self) -> None:
        if self.sigma_data <= 0 or self.log_sigma_std <= 0:
            raise ConfigError(
                f"sigma_data {self.sigma_data} and log_sigma_std {self.log_sigma_std} must be "
                "positive"
            )


Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""F(c_in x, c_noise): x (B, ...) and c_noise (B,) -> the shape of x."""


def precondition(
    network: Network, x: torch.Tensor, sigma: torch.Tensor, config: DenoiserConfig
) -> torch.Tensor:
    """D(x; sigma) for x (B, ...) and sigma (B,)."""
    s = sigma.reshape(-1, *[1] * (x.ndim - 1))
    data = config.sigma_data
    total = s**2 + data**2
    c_in, c_skip, c_out = total.rsqrt(), data**2 / total, s * data * total.rsqrt()
    return c_skip * x + c_out * network(c_in * x, sigma.log() / 4)


def draw_sigma(count: int, config: DenoiserConfig, generator: torch.Generator) -> torch.Tensor:
    """(count,) noise levels of training."""
    normal = torch.randn(count, generator=generator)
    return (normal * config.log_sigma_std + config.log_sigma_mean).exp()


def weighted_error(
    denoised: torch.Tensor, clean: torch.Tensor, sigma: torch.Tensor, config: DenoiserConfig
) -> torch.Tensor:
    """Squared error times EDM's weight lambda(sigma) = 1 / c_out^2; the shape of ``clean``."""
    s = sigma.reshape(-1, *[1] * (clean.ndim - 1))
    weight = (s**2 + config.sigma_data**2) / (s * config.sigma_data) ** 2
    return weight * (denoised - clean) ** 2
