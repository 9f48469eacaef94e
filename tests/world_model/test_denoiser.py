"""EDM preconditioning against its defining properties."""

import torch

from worldeval.world_model.denoiser import DenoiserConfig, draw_sigma, precondition, weighted_error

CONFIG = DenoiserConfig(sigma_data=0.7)


def test_network_sees_unit_variance_and_must_predict_unit_variance():
    generator = torch.Generator().manual_seed(0)
    clean = 0.7 * torch.randn(4, 50_000, generator=generator)
    sigma = torch.tensor([0.05, 0.5, 2.0, 10.0])
    noisy = clean + sigma[:, None] * torch.randn(clean.shape, generator=generator)
    seen = []
    precondition(lambda x, c: seen.append(x) or torch.zeros_like(x), noisy, sigma, CONFIG)
    assert torch.allclose(seen[0].std(dim=1), torch.ones(4), atol=0.02)
    # with F = 0 the error is c_skip x - clean, whose weighted square is 1 at every sigma
    error = weighted_error(
        precondition(lambda x, c: torch.zeros_like(x), noisy, sigma, CONFIG), clean, sigma, CONFIG
    )
    assert torch.allclose(error.mean(dim=1), torch.ones(4), atol=0.05)


def test_sigma_of_training_is_lognormal():
    drawn = draw_sigma(20_000, CONFIG, torch.Generator().manual_seed(1)).log()
    assert abs(float(drawn.mean()) - CONFIG.log_sigma_mean) < 0.05
    assert abs(float(drawn.std()) - CONFIG.log_sigma_std) < 0.05
