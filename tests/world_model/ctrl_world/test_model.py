"""Ctrl-World: conditioning, guidance, chance and batches, decoding, saving; on a miniature."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError, MismatchError
from worldeval.world_model.ctrl_world.actions import ActionEncoder
from worldeval.world_model.ctrl_world.autoencoder import SvdAutoencoder
from worldeval.world_model.ctrl_world.backbone import PreparedBackbone
from worldeval.world_model.ctrl_world.config import (
    KIND,
    NO_GUIDANCE,
    CtrlWorldConfig,
    GuidanceConfig,
)
from worldeval.world_model.ctrl_world.model import CtrlWorld, LossDraws, split_views, stack_views
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.world_model.model import Context
from worldeval.world_model.sampler import SamplerConfig, sample

SIZE = (8, 8)
SHORT = SamplerConfig(steps=2, sigma_min=0.02, sigma_max=20.0, rho=7.0, noise_scale="total")
TEXTS = ("open the drawer", "pick the cup", "open the drawer")


@pytest.fixture(scope="module")
def model(imported) -> CtrlWorld:
    model = CtrlWorld.load(imported)
    return model.use(
        replace(
            model.config,
            latent_size=SIZE,
            sampler=replace(SHORT, steps=1),
            guidance=NO_GUIDANCE,
            latent_type="float32",
        )
    )


@pytest.fixture(scope="module")
def autoencoder(imported) -> SvdAutoencoder:
    return SvdAutoencoder.load(imported)


@pytest.fixture
def context() -> Context:
    """Three rollouts that differ in everything."""
    g = torch.Generator().manual_seed(0)
    return Context(
        current=torch.randn(3, 3, 4, *SIZE, generator=g),
        memory=torch.randn(3, 6, 3, 4, *SIZE, generator=g),
        valid=torch.ones(3, 6, dtype=torch.bool),
        poses=np.random.default_rng(0).uniform(-0.5, 0.5, (3, 11, 7)).astype(np.float32),
        level=torch.zeros(3),
        instructions=TEXTS,
    )


def of_row(context: Context, i: int) -> Context:
    return Context(
        current=context.current[i : i + 1],
        memory=context.memory[i : i + 1],
        valid=context.valid[i : i + 1],
        poses=context.poses[i : i + 1],
        level=context.level[i : i + 1],
        instructions=context.instructions[i : i + 1],
    )


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_views_lie_below_each_other() -> None:
    latents = torch.arange(2 * 3 * 4 * 5 * 6.0).reshape(2, 3, 4, 5, 6)
    stacked = stack_views(latents)
    assert stacked.shape == (2, 4, 15, 6)
    for v in range(3):
        assert torch.equal(stacked[:, :, 5 * v : 5 * v + 5], latents[:, v])
    assert torch.equal(split_views(stacked, 3), latents)


def test_a_rollout_does_not_depend_on_its_batch(model, context) -> None:
    together = model.imagine(context, generators(1, 2, 3), SHORT)
    assert together.shape == (3, 4, 3, 4, *SIZE)
    for i in range(3):
        alone = model.imagine(of_row(context, i), generators(i + 1), SHORT)
        assert torch.allclose(together[i : i + 1], alone, atol=1e-4)


def test_poses_texts_and_memory_all_matter(model, context) -> None:
    base = model.imagine(context, generators(1, 2, 3))
    moved = context.poses.copy()
    moved[:, -1, 0] += 0.2
    for changed in (
        replace(context, poses=moved),
        replace(context, instructions=("close it",) * 3),
        replace(context, memory=context.memory.flip(1)),
    ):
        assert not torch.allclose(model.imagine(changed, generators(1, 2, 3)), base, atol=1e-4)


def test_guidance_weighs_two_evaluations(model, context, monkeypatch) -> None:
    """At low = high = w the sampled frames are free + w (bound - free), by two plain runs."""
    one = replace(SHORT, steps=1)
    noise = torch.randn(3, 5, 3, 4, *SIZE, generator=torch.Generator().manual_seed(1))
    bound = model.sample_clip(context, noise, one, NO_GUIDANCE)
    ramp = model.sample_clip(context, noise, one, GuidanceConfig(low=1.0, high=3.0))
    tokens = model.tokens
    monkeypatch.setattr(model, "tokens", lambda context: torch.zeros_like(tokens(context)))
    free = model.sample_clip(context, noise, one, NO_GUIDANCE)
    weight = torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0])[:, None, None, None, None]
    assert torch.allclose(ramp, free + weight * (bound - free), atol=2e-4)
    assert not torch.allclose(ramp, bound, atol=1e-2)


def test_guidance_costs_only_where_it_is_on(model, context, monkeypatch) -> None:
    rows = []
    call = PreparedBackbone.__call__

    def counted(self, sample, c_noise, conditioning, **kwargs):
        rows.append(conditioning.rows)
        return call(self, sample, c_noise, conditioning, **kwargs)

    monkeypatch.setattr(PreparedBackbone, "__call__", counted)
    noise = torch.zeros(1, 5, 3, 4, *SIZE)
    steps = replace(SHORT, steps=3)  # at about 20, 2.6 and 0.02
    for guidance, expected in (
        (GuidanceConfig(), [2, 2, 2]),
        (NO_GUIDANCE, [1, 1, 1]),
        (GuidanceConfig(interval=(0.1, 10.0)), [1, 2, 1]),
    ):
        rows.clear()
        model.sample_clip(of_row(context, 0), noise, steps, guidance)
        assert rows == expected


def test_an_instruction_is_encoded_once(model, context, monkeypatch) -> None:
    seen = []
    forward = model.text_encoder.clip.forward

    def counted(input_ids, **kwargs):
        seen.append(len(input_ids))
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model.text_encoder.clip, "forward", counted)
    model.text_encoder.forget()
    first = model.text_encoder.embed(TEXTS)
    again = model.text_encoder.embed(TEXTS[::-1])
    assert seen == [1, 1], "two different texts, each once and alone"
    assert torch.equal(first[0], first[2]) and torch.equal(first.flip(0), again)
    alone = model.text_encoder.embed(["pick the cup"])
    model.text_encoder.forget()
    assert torch.equal(model.text_encoder.embed(["pick the cup"]), alone)


def test_the_loss_of_a_part_is_that_of_its_rows(model, context) -> None:
    """Chance is drawn for the global batch, so two processes see what one would."""
    draws = LossDraws.draw(3, model.config, torch.Generator().manual_seed(4))
    future = torch.randn(3, 4, 3, 4, *SIZE, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        whole, views = model.clip_loss(context, future, draws)
        parts = [
            model.clip_loss(of_row(context, i), future[i : i + 1], draws.rows(slice(i, i + 1)))
            for i in range(3)
        ]
    assert torch.allclose(whole, torch.stack([p[0] for p in parts]).mean(), rtol=1e-5)
    assert views.shape == (3,) and torch.allclose(views.mean(), whole, rtol=1e-5)


def test_dropped_tokens_make_the_loss_blind_to_poses(model, context) -> None:
    draws = LossDraws.draw(3, model.config, torch.Generator().manual_seed(4))
    future = torch.zeros(3, 4, 3, 4, *SIZE)
    moved = replace(context, poses=context.poses[::-1].copy())

    def difference(keep: float) -> float:
        given = replace(draws, keep=torch.full((3,), keep))
        with torch.no_grad():
            losses = [model.clip_loss(c, future, given)[0] for c in (context, moved)]
        return float((losses[0] - losses[1]).abs())

    assert difference(keep=0.0) == 0.0 and difference(keep=0.5) > 0


def test_the_loss_reaches_the_backbone_and_the_action_encoder(model, context) -> None:
    draws = LossDraws.draw(3, model.config, torch.Generator().manual_seed(4)).rows(slice(0, 1))
    draws = replace(draws, keep=torch.ones(1))
    model.train().requires_grad_(True)
    model.text_encoder.requires_grad_(False)
    loss, _ = model.clip_loss(of_row(context, 0), torch.zeros(1, 4, 3, 4, *SIZE), draws)
    loss.backward()
    for part in (model.unet.conv_in, model.action_encoder.action_encode[0]):
        assert float(part.weight.grad.abs().sum()) > 0
    assert all(p.grad is None for p in model.text_encoder.parameters())
    model.zero_grad()
    model.eval().requires_grad_(False)


def test_wrong_sizes_are_named(model, context) -> None:
    with pytest.raises(MismatchError, match=r"current latents are \(3, 4, 4, 8\)"):
        model.imagine(replace(context, current=torch.zeros(3, 3, 4, 4, 8)), generators(1, 2, 3))
    with pytest.raises(MismatchError, match=r"memory latents are \(5, 3, 4, 8, 8\)"):
        model.imagine(replace(context, memory=context.memory[:, :5]), generators(1, 2, 3))
    with pytest.raises(ConfigError, match="divide"):
        ActionEncoder(7)(torch.zeros(1, 2, 7), torch.zeros(1, 500))


def test_saved_weights_and_texts_come_back(model, autoencoder, context, tmp_path) -> None:
    model.save(tmp_path / "m", autoencoder, card={"made": "in a test"})
    again = CtrlWorld.load(tmp_path / "m")
    assert again.config == replace(model.config, tokenizer=again.config.tokenizer)
    assert torch.equal(
        again.imagine(context, generators(1, 2, 3)), model.imagine(context, generators(1, 2, 3))
    )
    other = SvdAutoencoder.load(tmp_path / "m")
    image = torch.rand(2, 3, 16, 24)
    assert torch.equal(other.encode(image), autoencoder.encode(image))
    again.save(tmp_path / "n", autoencoder=tmp_path / "m")
    assert checkpoint.digest(tmp_path / "n") == checkpoint.digest(tmp_path / "m")
    (tmp_path / "n" / "tokenizer" / "vocab.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"vocab\.json is missing or damaged"):
        CtrlWorld.load(tmp_path / "n")


def test_a_model_without_autoencoder_says_so(model, tmp_path) -> None:
    model.save(tmp_path / "m")
    with pytest.raises(CheckpointError, match="holds no autoencoder"):
        SvdAutoencoder.load(tmp_path / "m")
    half = CtrlWorld.load(tmp_path / "m", dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_configurations_survive_json(model) -> None:
    import json

    config = replace(model.config, guidance=GuidanceConfig(interval=(0.1, 20.0)))
    assert CtrlWorldConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
    improved = config.with_preset("improved")
    differing = {n for n, value in asdict(improved).items() if asdict(config)[n] != value}
    assert {"preset", "decoding", "noise_augmentation", "sampler"} == differing
    with pytest.raises(ConfigError, match="'best'"):
        config.with_preset("best")
    with pytest.raises(ConfigError, match="decoding is 'all'"):
        replace(config, decoding="all")


def test_views_apart_are_videos_of_their_own(autoencoder) -> None:
    latents = torch.randn(2, 5, 3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    autoencoder.config = autoencoder.config.with_preset("improved")
    decoded = autoencoder.decode(latents)
    assert decoded.shape == (2, 5, 3, 3, 32, 48)
    vae, factor = autoencoder.vae, autoencoder.config.scaling_factor
    wanted = vae.decode(latents[1, :, 2] / factor, num_frames=5).sample
    assert torch.allclose(decoded[1, :, 2], wanted, atol=1e-5)
    assert torch.allclose(
        autoencoder.decode(latents, views=[2])[:, :, 0], decoded[:, :, 2], atol=1e-5
    )


def test_chunks_mix_views_as_published(autoencoder) -> None:
    """15 images of one rollout, view after view, in chunks of 7, 7 and 1."""
    latents = torch.randn(2, 5, 3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    autoencoder.config = autoencoder.config.with_preset("published")
    decoded = autoencoder.decode(latents)
    flat = latents[1].transpose(0, 1).flatten(0, 1) / autoencoder.config.scaling_factor
    parts = [
        autoencoder.vae.decode(flat[i : i + 7], num_frames=len(flat[i : i + 7])).sample
        for i in (0, 7, 14)
    ]
    wanted = torch.cat(parts).unflatten(0, (3, 5)).transpose(0, 1)
    assert torch.allclose(decoded[1], wanted, atol=1e-5)
    apart = SvdAutoencoder(autoencoder.config.with_preset("improved"), autoencoder.vae)
    assert not torch.allclose(apart.decode(latents), decoded, atol=1e-3)
    with pytest.raises(MismatchError, match="20x24"):
        autoencoder.encode(torch.zeros(1, 3, 20, 24))


def test_low_precision_latents_are_rounded_at_every_step() -> None:
    """As published; each step itself is computed in float32."""
    seen = []

    def denoise(x, sigma):
        seen.append(x)
        return x.float() / (1 + sigma**2)

    noise = torch.randn(50, generator=torch.Generator().manual_seed(0))
    rounded = sample(denoise, noise.bfloat16(), replace(SHORT, steps=6))
    assert all(x.dtype == torch.bfloat16 for x in [*seen, rounded])
    exact = sample(denoise, noise, replace(SHORT, steps=6))
    apart = (rounded.float() - exact).norm() / exact.norm()
    assert 1e-4 < apart < 3e-2


def test_the_dreamer_drives_it(model, autoencoder) -> None:
    """A chunk of frames from uint8 frames, twice, the same with the same seed."""
    model.config = replace(model.config, latent_size=(4, 8), sampler=SHORT)
    autoencoder.config = model.config.with_preset("improved")
    start = np.random.default_rng(0).integers(0, 255, (1, 3, 32, 64, 3), np.uint8)
    poses = np.random.default_rng(1).uniform(0.3, 0.4, (1, 9, 7)).astype(np.float32)
    frames = []
    for _ in range(2):
        frame_rollouts = FrameRollouts(model, autoencoder)
        frame_rollouts.reset(start, poses[:, 0], [7], ["open the drawer"])
        for first in (1, 5):
            answer, info = frame_rollouts.step(poses[:, first : first + 4], [0])
            frames.append(answer)
    assert frames[0].shape == (1, 4, 3, 32, 64, 3) and frames[0].dtype == np.uint8
    assert np.array_equal(frames[0], frames[2]) and np.array_equal(frames[1], frames[3])
    assert info[0]["memory"] == "published" and len(info[0]["retrieved"]) == 6


def test_the_kind_is_checked(tmp_path) -> None:
    checkpoint.save(tmp_path, kind="judge", config={}, tensors={"a": np.zeros(1, np.float32)})
    for load in (CtrlWorld.load, SvdAutoencoder.load):
        with pytest.raises(CheckpointError, match=f"expected '{KIND}'"):
            load(tmp_path)
