"""The lean executor against diffusers' own blocks, switch by switch, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from worldeval.errors import ConfigError, MismatchError
from worldeval.world_model.ctrl_world import execution as lean
from worldeval.world_model.ctrl_world.backbone import (
    EXACT,
    PUBLISHED,
    Execution,
    PreparedBackbone,
    fastest,
    run_unet,
)
from worldeval.world_model.ctrl_world.capture import Conditioning

LEAN = Execution(lean=True)
SWITCHES = {
    "lean": LEAN,
    "collapse_cross_attention": replace(LEAN, collapse_cross_attention=True),
    "share_prefix": replace(LEAN, share_prefix=True),
    "trim_history": replace(LEAN, trim_history=True),
    "conv2d_over_time": replace(LEAN, conv2d_over_time=True),
    "channels_last": replace(LEAN, channels_last=True),
    "all": EXACT,
}
FRAMES, HEIGHT, WIDTH = 4, 16, 8


def perturb(module: nn.Module) -> None:
    """Weights that training would have moved: no blend at one half, no norm at one and zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="module")
def unet() -> UNetSpatioTemporalConditionModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32, 64, 64),
        num_attention_heads=(1, 2, 2, 2),
        layers_per_block=1,
        cross_attention_dim=24,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    )
    perturb(model)
    return model.eval()


def batch(rows: int, branches: int = 1, height: int = HEIGHT) -> tuple[Tensor, ...]:
    """sample, c_noise, hidden, time_ids"""
    g = torch.Generator().manual_seed(2)
    sample = torch.randn(rows, FRAMES, 8, height, WIDTH, generator=g)
    hidden = torch.randn(rows * branches, FRAMES, 24, generator=g)
    return sample, torch.randn(rows, generator=g), hidden, torch.rand(rows, 3, generator=g)


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_published_is_diffusers_where_all_tokens_are_alike(unet) -> None:
    """Stable Video Diffusion itself: one token repeated over the frames."""
    sample, c_noise, hidden, time_ids = batch(2)
    token = hidden[:, :1]
    with torch.no_grad():
        ours = run_unet(unet, sample, c_noise, token.expand(-1, FRAMES, -1), time_ids)
        theirs = unet(sample, c_noise, token, time_ids).sample
    assert error(ours, theirs) < 1e-6


def test_each_frame_sees_its_own_token(unet) -> None:
    sample, c_noise, hidden, time_ids = batch(1)
    other = hidden.clone()
    other[:, 3] += 1.0
    with torch.no_grad():
        a, b = (run_unet(unet, sample, c_noise, h, time_ids) for h in (hidden, other))
    change = (a - b).flatten(2).norm(dim=2)[0]
    assert change.argmax() == 3


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize(("rows", "branches"), [(2, 1), (2, 2)])
def test_every_switch_is_equal_in_output(unet, name, rows, branches) -> None:
    sample, c_noise, hidden, time_ids = batch(rows, branches)
    with torch.no_grad():
        results = []
        for execution in (PUBLISHED, SWITCHES[name]):
            backbone = PreparedBackbone(unet, execution)
            conditioning = backbone.condition(hidden, time_ids)
            results.append(backbone(sample, c_noise, conditioning, first=2))
    assert results[0].shape == (rows * branches, FRAMES - 2, 4, HEIGHT, WIDTH)
    assert error(results[1], results[0]) < 5e-6


def test_sizes_that_do_not_halve_evenly(unet) -> None:
    sample, c_noise, hidden, time_ids = batch(1, height=18)
    with torch.no_grad():
        published = run_unet(unet, sample, c_noise, hidden, time_ids)
        exact = run_unet(unet, sample, c_noise, hidden, time_ids, EXACT)
    assert exact.shape[-2:] == (18, WIDTH)
    assert error(exact, published) < 5e-6


def test_the_weights_stay_as_they_were(unet) -> None:
    before = {k: (v.clone(), v.stride()) for k, v in unet.state_dict().items()}
    sample, c_noise, hidden, time_ids = batch(1)
    kept = sample.clone()
    with torch.no_grad():
        run_unet(unet, sample, c_noise, hidden, time_ids, EXACT)
    assert torch.equal(sample, kept)
    for key, value in unet.state_dict().items():
        assert torch.equal(value, before[key][0]) and value.stride() == before[key][1]


def test_a_conditioning_serves_many_steps(unet) -> None:
    sample, c_noise, hidden, time_ids = batch(1)
    with torch.no_grad():
        backbone = PreparedBackbone(unet, EXACT)
        conditioning = backbone.condition(hidden, time_ids)
        first = backbone(sample, c_noise, conditioning)
        backbone(2 * sample, c_noise + 1, conditioning)
        assert torch.equal(backbone(sample, c_noise, conditioning), first)


def test_gradients_pass_as_published_and_with_checkpointing(unet) -> None:
    sample, c_noise, hidden, time_ids = batch(1)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            unet.enable_gradient_checkpointing()
            unet.train()
        unet.zero_grad()
        run_unet(unet, sample, c_noise, hidden, time_ids).square().mean().backward()
        gradients.append(unet.conv_in.weight.grad.clone())
    unet.disable_gradient_checkpointing()
    unet.zero_grad()
    unet.eval()
    assert gradients[0].norm() > 0
    assert error(gradients[1], gradients[0]) < 1e-5


def test_refusals(unet) -> None:
    with pytest.raises(ConfigError, match="collapse_cross_attention.*lean=True"):
        Execution(collapse_cross_attention=True)
    with pytest.raises(ConfigError, match="'flash'"):
        Execution(attention="flash")
    sample, c_noise, hidden, time_ids = batch(2)
    with pytest.raises(ConfigError, match="no gradient"):
        run_unet(unet, sample, c_noise, hidden, time_ids, EXACT)
    backbone = PreparedBackbone(unet)
    with pytest.raises(MismatchError, match="multiple of B"):
        backbone.condition(hidden[:1], time_ids)
    conditioning = backbone.condition(hidden, time_ids)
    with pytest.raises(MismatchError, match="sample is"):
        backbone(sample[:1], c_noise[:1], conditioning)
    with pytest.raises(MismatchError, match="first is 4"):
        backbone(sample, c_noise, conditioning, first=FRAMES)


def test_xformers_without_cuda_warns_and_computes(unet) -> None:
    lean.attention_backend.cache_clear()
    execution = replace(EXACT, attention="xformers")
    sample, c_noise, hidden, time_ids = batch(1)
    with torch.no_grad():
        with pytest.warns(UserWarning, match="xformers"):
            backbone = PreparedBackbone(unet, execution)
        out = backbone(sample, c_noise, backbone.condition(hidden, time_ids))
        PreparedBackbone(unet, execution)  # once only: warnings are errors here
        assert torch.equal(out, run_unet(unet, sample, c_noise, hidden, time_ids, EXACT))


def test_conditioning_copies_into_a_recording() -> None:
    one = Conditioning(
        hidden=torch.ones(1, 2, 3), time_ids=torch.ones(1, 3), given={"a": {"b": torch.ones(2)}}
    )
    recorded = one.clone()
    recorded.copy_(
        Conditioning(
            hidden=one.hidden * 2, time_ids=one.time_ids * 3, given={"a": {"b": torch.zeros(2)}}
        )
    )
    assert one.hidden.max() == 1 and one.given["a"]["b"].min() == 1
    assert recorded.hidden.min() == 2 and recorded.time_ids.min() == 3
    assert recorded.given["a"]["b"].max() == 0


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("as_2d", [False, True])
def test_decoder(layers, as_2d) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        layers_per_block=layers,
    )
    perturb(vae)
    latents = torch.randn(6, 4, 6, 4)
    with torch.no_grad():
        for frames in (1, 3):
            theirs = vae.decode(latents, num_frames=frames).sample
            ours = lean.decode(vae.decoder, latents, frames, as_2d)
            assert error(ours, theirs) < 5e-6


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own
def test_compiled(unet) -> None:
    sample, c_noise, hidden, time_ids = batch(1)
    with torch.no_grad():
        eager = run_unet(unet, sample, c_noise, hidden, time_ids, EXACT)
        compiled = run_unet(unet, sample, c_noise, hidden, time_ids, replace(EXACT, compile=True))
    assert error(compiled, eager) < 5e-6


@pytest.mark.gpu
def test_captured_on_the_gpu(unet) -> None:
    model = unet.to("cuda")
    try:
        backbone = PreparedBackbone(model, fastest("cuda"))
        plain = PreparedBackbone(model, replace(fastest("cuda"), capture=False))
        for seed in (1, 2):  # the second replays with another conditioning
            sample, c_noise, hidden, time_ids = (t.cuda() * seed for t in batch(1, 2))
            with torch.inference_mode():
                conditioning = backbone.condition(hidden, time_ids)
                captured = backbone(sample, c_noise, conditioning, first=2)
                eager = plain(sample, c_noise, conditioning, first=2)
            assert error(captured, eager) < 1e-4
    finally:
        unet.to("cpu")
