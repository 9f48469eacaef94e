"""Samplers against the exact denoiser of a Gaussian, for which the flow is known."""

import math

import pytest
import torch

from worldeval.errors import ConfigError
from worldeval.world_model.sampler import SOLVERS, SamplerConfig, karras_sigmas, sample

MEAN, SPREAD = 0.3, 0.5


def exact(x, sigma):
    """E[clean | noisy] for clean ~ N(MEAN, SPREAD^2)."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def exact_end(noise, config):
    """The probability flow maps x to MEAN + (x - MEAN) * SPREAD / sqrt(SPREAD^2 + sigma_max^2)."""
    x = noise * config.sigma_max
    return MEAN + (x - MEAN) * SPREAD / math.sqrt(SPREAD**2 + config.sigma_max**2)


@pytest.mark.parametrize("solver", SOLVERS)
def test_converges_to_the_exact_flow(solver):
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    errors = []
    for steps in (8, 32):
        config = SamplerConfig(solver=solver, steps=steps, sigma_min=0.001)
        errors.append(float((sample(exact, noise, config) - exact_end(noise, config)).abs().max()))
    order = math.log(errors[0] / errors[1]) / math.log(4)
    assert order > (0.7 if solver == "euler" else 1.3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_evaluations_are_counted_truly(solver):
    calls = []
    config = SamplerConfig(solver=solver, steps=5)
    sample(lambda x, s: calls.append(s) or exact(x, s), torch.zeros(3), config)
    assert len(calls) == config.evaluations


def test_schedule_descends_between_its_bounds():
    config = SamplerConfig(steps=7, sigma_min=0.02, sigma_max=9.0)
    sigmas = karras_sigmas(config)
    assert sigmas[0] == pytest.approx(9.0) and sigmas[-2] == pytest.approx(0.02)
    assert sigmas[-1] == 0 and sigmas == sorted(sigmas, reverse=True)


@pytest.mark.parametrize(
    "bad", [{"solver": "ddim"}, {"steps": 0}, {"sigma_min": 3.0, "sigma_max": 1.0}]
)
def test_bad_settings_are_named(bad):
    with pytest.raises(ConfigError, match=str(next(iter(bad.values())))):
        SamplerConfig(**bad)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_published_schedule_is_that_of_svds_scheduler(steps):
    """Noise levels and the spread of the first noise, as diffusers computes them."""
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=700.0,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    scheduler.set_timesteps(steps)
    config = SamplerConfig(
        steps=steps, sigma_min=0.002, sigma_max=700.0, rho=7.0, noise_scale="total"
    )
    assert torch.allclose(torch.tensor(karras_sigmas(config)), scheduler.sigmas, rtol=1e-5)
    seen = []
    sample(lambda x, sigma: seen.append(x) or x, torch.ones(1), config)
    assert float(seen[0]) == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-6)


def test_an_unknown_noise_scale_is_refused():
    with pytest.raises(ConfigError, match="'unit'"):
        SamplerConfig(noise_scale="unit")
