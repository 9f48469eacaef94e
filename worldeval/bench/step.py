"""One interaction of Ctrl-World in several ways: as published, ours, with better schedules.

In: a size, and which way (``Variant``). Out: latents and frames; ``measuring.py`` times them. All
weights are random (of the real shapes), so speed is real and quality is not: the error of a variant
of equal output is rounding; that of a shorter schedule says little about a trained model.

An interaction samples a clip of 11 frames (6 of memory, the current one, 4 new) of three views and
decodes the 5 that were sampled. The published code decodes as many frames of ground truth too.
Policy, text and video files are not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from worldeval.errors import ConfigError
from worldeval.world_model.ctrl_world.actions import TextEncoder
from worldeval.world_model.ctrl_world.autoencoder import SvdAutoencoder
from worldeval.world_model.ctrl_world.backbone import EXACT, PUBLISHED, Execution, fastest
from worldeval.world_model.ctrl_world.config import (
    IMPROVED_SAMPLER,
    NO_GUIDANCE,
    PUBLISHED_SAMPLER,
    CtrlWorldConfig,
    GuidanceConfig,
)
from worldeval.world_model.ctrl_world.model import CtrlWorld
from worldeval.world_model.model import Context
from worldeval.world_model.sampler import SamplerConfig, karras_sigmas

MIDDLE_SIGMAS = (0.3, 6.0)
"""Where guidance in an interval guides: neither nearly clean nor nearly pure noise."""

POLICY_VIEWS = (1, 2)
"""The published policies see the second exterior camera and the one on the wrist."""

_UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "cross_attention_dim": 1024,
    "block_out_channels": (320, 640, 1280, 1280),
    "num_attention_heads": (5, 10, 20, 20),
}
_VAE_BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "latent_channels": 4}
SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "latent_size": (24, 40),
        "unet": _UNET,
        "vae": {
            **_VAE_BLOCKS,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
        },
    },
    "mini": {
        "latent_size": (8, 8),
        "unet": {
            **_UNET,
            "block_out_channels": (32, 32, 64, 64),
            "num_attention_heads": (1, 2, 2, 2),
            "layers_per_block": 1,
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96,
        },
        "vae": {**_VAE_BLOCKS, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    },
}


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """steps: of the published schedule; the others are shortened in proportion."""

    size: str = "mini"
    steps: int = 50
    batches: tuple[int, ...] = (1,)
    repeats: int = 3
    seed: int = 0
    device: str = "cpu"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"size is {self.size!r}, expected one of {tuple(SIZES)}")
        if self.steps < 3 or self.repeats < 1:
            raise ConfigError(
                f"steps is {self.steps} and repeats {self.repeats}, expected at least 3 and 1"
            )
        if not self.batches or min(self.batches) < 1:
            raise ConfigError(f"batches is {self.batches}, expected numbers of at least 1")

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device.startswith("cuda") else torch.float32


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compute an interaction."""

    label: str
    execution: Execution
    sampler: SamplerConfig
    guidance: GuidanceConfig = GuidanceConfig()
    latent_type: str = "float32"
    lean_decoding: bool = True
    decode_truth: bool = False
    for_policy: bool = False
    """Decode what the policy reads alone, the last frame of ``POLICY_VIEWS`` and the one before it
    for the temporal decoder, views apart; the rest can be decoded later from the latents."""

    @property
    def guided_steps(self) -> int:
        return sum(self.guidance.at(s) for s in karras_sigmas(self.sampler)[:-1])

    @property
    def evaluations(self) -> int:
        """Rows of the backbone that one rollout costs."""
        return self.sampler.evaluations + self.guided_steps


def variants(config: BenchConfig) -> dict[str, Variant]:
    """Name -> variant; the first is executed as published."""
    ours = fastest(config.device)

    def steps(count: int) -> int:
        return max(2, round(count * config.steps / PUBLISHED_SAMPLER.steps))

    published = replace(PUBLISHED_SAMPLER, steps=config.steps)
    shorter = replace(IMPROVED_SAMPLER, solver="dpmpp_2m")
    middle = GuidanceConfig(interval=MIDDLE_SIGMAS)
    ten, four = replace(shorter, steps=steps(10)), replace(shorter, steps=steps(4))
    result = {
        "published": Variant(
            label="as published",
            execution=PUBLISHED,
            sampler=published,
            latent_type="weights",
            lean_decoding=False,
            decode_truth=True,
        ),
        "equal": Variant(label="ours, equal output", execution=ours, sampler=published),
    }
    if config.compile:
        compiled = replace(EXACT, compile=True, capture=ours.capture)
        result["equal-compiled"] = Variant(
            label="ours compiled, equal output", execution=compiled, sampler=published
        )
        ours = compiled
    return result | {
        "sigma-80": Variant(
            label="no sigma above 80",
            execution=ours,
            sampler=replace(IMPROVED_SAMPLER, steps=steps(IMPROVED_SAMPLER.steps)),
        ),
        "solver-10-interval": Variant(
            label="DPM-Solver++ 2M, guidance in an interval",
            execution=ours,
            sampler=ten,
            guidance=middle,
        ),
        "solver-10": Variant(
            label="DPM-Solver++ 2M, no guidance", execution=ours, sampler=ten, guidance=NO_GUIDANCE
        ),
        "solver-10-policy": Variant(
            label="DPM-Solver++ 2M, no guidance, only what the policy reads decoded",
            execution=ours,
            sampler=ten,
            guidance=NO_GUIDANCE,
            for_policy=True,
        ),
        "solver-4": Variant(
            label="DPM-Solver++ 2M, no guidance", execution=ours, sampler=four, guidance=NO_GUIDANCE
        ),
    }


class Bench:
    """A model of random weights, and interactions with it."""

    def __init__(self, config: BenchConfig, device: str, dtype: torch.dtype) -> None:
        from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

        self.config = config
        self.device = device
        self.world = CtrlWorldConfig.published(text_encoder={}, **SIZES[config.size])
        torch.manual_seed(config.seed)
        with torch.device(device):
            unet = UNetSpatioTemporalConditionModel.from_config(dict(self.world.unet))
            vae = AutoencoderKLTemporalDecoder.from_config(dict(self.world.vae))
            no_text = cast(TextEncoder, nn.Identity())  # instructions are None here
            self.model = CtrlWorld(self.world, no_text, unet)
        self.autoencoder = SvdAutoencoder(self.world, vae)
        # diffusers makes its blending weights on the CPU whatever the device.
        self.models: dict[Execution, CtrlWorld] = {}
        self.convert(dtype)

    def convert(self, dtype: torch.dtype) -> None:
        self.models.clear()
        self.model.to(self.device, dtype).eval().requires_grad_(False)
        self.autoencoder.to(self.device, dtype).eval().requires_grad_(False)

    @property
    def weights_bytes(self) -> int:
        parameters = (*self.model.parameters(), *self.autoencoder.parameters())
        return sum(p.numel() * p.element_size() for p in parameters)

    def inputs(self, batch: int) -> tuple[Context, Tensor, Tensor]:
        """Context, noise and latents of ground truth; a row does not depend on the batch."""
        c = self.world
        frame = (len(c.views), c.latent_channels, *c.latent_size)
        shapes = [(1,), (c.memory_slots,), (c.future + 1,), (c.future + 1,)]
        rows = []
        poses = []
        low, high = np.array(c.pose_low), np.array(c.pose_high)
        for row in range(batch):
            g = torch.Generator().manual_seed(self.config.seed + row)
            rows.append([torch.randn(*shape, *frame, generator=g) for shape in shapes])
            spread = np.random.default_rng(self.config.seed + row).random((c.frames, len(low)))
            poses.append(low + spread * (high - low))
        parts = [torch.stack(list(part)).to(self.device) for part in zip(*rows, strict=True)]
        context = Context(
            current=parts[0][:, 0],
            memory=parts[1],
            valid=torch.ones(batch, c.memory_slots, dtype=torch.bool, device=self.device),
            poses=np.stack(poses).astype(np.float32),
            level=torch.zeros(batch, device=self.device),
        )
        return context, parts[2], parts[3]

    def sampled(self, variant: Variant, inputs: tuple[Context, Tensor, Tensor]) -> Tensor:
        """Latents (B, F+1, V, C, h, w)."""
        context, noise, _ = inputs
        model = self.models.get(variant.execution)
        if model is None:  # another that shares the weights, so that each keeps its recordings
            model = CtrlWorld(self.world, self.model.text_encoder, self.model.unet)
            model.action_encoder = self.model.action_encoder
            self.models[variant.execution] = model.eval().run_as(variant.execution)
        model.use(replace(self.world, latent_type=variant.latent_type))
        return model.sample_clip(context, noise, variant.sampler, variant.guidance)

    @torch.inference_mode()
    def decoded(self, variant: Variant, latents: Tensor, truth: Tensor) -> Tensor:
        """Frames (B, F+1, V, 3, H, W) in the published chunks, or what the policy reads."""
        decoder = self.autoencoder
        decoder.lean = variant.lean_decoding
        if variant.for_policy:
            decoder.config = replace(self.world, decoding="views")
            return decoder.decode(latents[:, -2:], POLICY_VIEWS)[:, 1:]
        decoder.config = self.world
        if variant.decode_truth:
            decoder.decode(truth)
        return decoder.decode(latents)
