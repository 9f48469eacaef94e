"""Samplers: pure functions from any denoiser and a noise schedule to a sample.

``denoise(x, sigma)`` maps a noisy sample and a scalar sigma to the expected clean sample; nothing
here knows what it is. Sources: Karras et al. 2022 (arXiv 2206.00364) equation 5 and algorithm 1
for the schedule, Euler and Heun; Lu et al. 2022 (arXiv 2211.01095) algorithm 2 for DPM-Solver++ 2M.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from worldeval.errors import ConfigError

Denoise = Callable[[torch.Tensor, float], torch.Tensor]
MOST_STEPS = 10_000
NOISE_SCALES = ("sigma_max", "total", "none")


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How to sample: solver, number of steps, and the noise levels between which to go."""

    solver: str = "euler"
    """How the steps are taken: euler, heun (twice the cost per step) or dpmpp_2m."""
    steps: int = 3
    """Sampling steps per imagined chunk; more take longer."""
    sigma_min: float = 0.03
    """Noise level of the last step."""
    sigma_max: float = 8.0
    """Noise level of the first step."""
    rho: float = 5.0
    """Exponent of the schedule; larger puts more steps at low noise."""
    noise_scale: str = "sigma_max"
    """Spread of the first noise. "total" is sqrt(sigma_max^2 + 1), that of noise and unit data
    together, as the scheduler of Stable Video Diffusion has it. "none" begins at zero, the middle
    of all noise: one step then gives what is to be expected, the best guess by squared error."""

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ConfigError(
                f"solver {self.solver!r} is unknown, expected one of {tuple(SOLVERS)}"
            )
        if not 1 <= self.steps <= MOST_STEPS:
            raise ConfigError(f"steps is {self.steps}, expected 1 to {MOST_STEPS}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                f"sigma range {self.sigma_min}..{self.sigma_max} must be positive and ascending"
            )
        if self.noise_scale not in NOISE_SCALES:
            raise ConfigError(
                f"noise_scale {self.noise_scale!r} is unknown, expected one of {NOISE_SCALES}"
            )

    @property
    def evaluations(self) -> int:
        """Number of function evaluations (NFE) that one sample costs."""
        return 2 * self.steps - 1 if self.solver == "heun" else self.steps


def karras_sigmas(config: SamplerConfig) -> list[float]:
    """steps + 1 noise levels, descending, the last 0 (Karras et al. 2022, equation 5).

    Rounded to float32, as every other implementation keeps them: a step from 700 to 0.002 shows a
    difference in the last digit.
    """
    if config.steps == 1:
        return [config.sigma_max, 0.0]
    low, high = config.sigma_min ** (1 / config.rho), config.sigma_max ** (1 / config.rho)
    ramp = [high + i / (config.steps - 1) * (low - high) for i in range(config.steps)]
    return [float(np.float32(r**config.rho)) for r in ramp] + [0.0]


def sample(denoise: Denoise, noise: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """A sample of the shape of ``noise``, which is of unit variance and scaled here.

    It stays in the type of ``noise`` between the steps; each step is computed in that of what
    ``denoise`` answers.
    """
    sigmas = karras_sigmas(config)
    spread = {"sigma_max": sigmas[0], "total": math.hypot(sigmas[0], 1.0), "none": 0.0}
    x = noise * spread[config.noise_scale]
    return SOLVERS[config.solver](denoise, x, sigmas)


def euler(denoise: Denoise, x: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """Euler steps of dx/dsigma = (x - D(x; sigma)) / sigma."""
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = (x - denoise(x, sigma)) / sigma
        x = (x + slope * (following - sigma)).to(x.dtype)
    return x


def heun(denoise: Denoise, x: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """Heun's second order (algorithm 1 without churn); the last step, to 0, is Euler's."""
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = (x - denoise(x, sigma)) / sigma
        trial = x + slope * (following - sigma)
        if following > 0:
            slope = (slope + (trial - denoise(trial, following)) / following) / 2
            trial = x + slope * (following - sigma)
        x = trial.to(x.dtype)
    return x


def dpmpp_2m(denoise: Denoise, x: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """DPM-Solver++ 2M: second-order multistep in lambda = -log sigma, one evaluation per step."""
    previous, previous_h = None, 0.0
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        clean = denoise(x, sigma)
        if following == 0:
            return clean.to(x.dtype)
        h = math.log(sigma / following)
        target = clean
        if previous is not None:
            ratio = previous_h / h
            target = clean + (clean - previous) / (2 * ratio)
        x = ((following / sigma) * x - math.expm1(-h) * target).to(x.dtype)
        previous, previous_h = clean, h
    return x


Solver = Callable[[Denoise, torch.Tensor, Sequence[float]], torch.Tensor]
SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}
