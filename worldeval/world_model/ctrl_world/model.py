"""Ctrl-World at full size: Stable Video Diffusion's backbone with a token and a memory per frame.

In: latents of the current frame and of M memory frames, the poses of those and of the F frames to
come, an instruction. Out: latents of the F new frames of all views. The backbone sees a clip of
M + 1 + F frames, in which the current frame stands where the first sampled frame will be: it is
sampled once more with the new ones and left out of the result (arXiv 2510.10125, section 3).

EDM preconditioning and the solvers are those of the embedded world (``denoiser``, ``sampler``) with
sigma_data 1; Stable Video Diffusion's network has the opposite sign.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldeval.data import checkpoint
from worldeval.errors import ConfigError, MismatchError
from worldeval.learning.weights import Bounded, check_weights
from worldeval.world_model.ctrl_world.actions import (
    ActionEncoder,
    TextEncoder,
    check_tokenizer,
    write_tokenizer,
)
from worldeval.world_model.ctrl_world.autoencoder import PREFIX as VAE_PREFIX
from worldeval.world_model.ctrl_world.autoencoder import SvdAutoencoder
from worldeval.world_model.ctrl_world.backbone import (
    Conditioning,
    Execution,
    PreparedBackbone,
    fastest,
    run_unet,
)
from worldeval.world_model.ctrl_world.config import KIND, CtrlWorldConfig, GuidanceConfig
from worldeval.world_model.ctrl_world.loss_randomness import LossDraws as LossDraws
from worldeval.world_model.denoiser import precondition, weighted_error
from worldeval.world_model.model import Context
from worldeval.world_model.sampler import SamplerConfig, karras_sigmas, sample

TOKENIZER = "tokenizer"
TOKEN_WIDTH = 1024
TRAINING_AUGMENTATION = 0.0
"""Noise augmentation that training tells the backbone."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What stays the same over the steps of one sample; views stacked along height.

    tokens: (B, T, D). history: (B, M, C, H, W). image: (B, C, H, W). time_ids: (B, 3).
    """

    tokens: Tensor
    history: Tensor
    image: Tensor
    time_ids: Tensor

    def beside(self, x: Tensor) -> Tensor:
        """The backbone's input (B, T, 2C, H, W) for sampled frames x (B, F+1, C, H, W)."""
        clip = torch.cat([self.history, x], dim=1)
        return torch.cat([clip, self.image[:, None].expand_as(clip)], dim=2)


class CtrlWorld(nn.Module):
    """``imagine`` for rollouts, ``sample_clip`` below it, ``clip_loss`` for training."""

    def __init__(
        self, config: CtrlWorldConfig, text_encoder: TextEncoder, unet: nn.Module | None = None
    ) -> None:
        """unet: diffusers' UNetSpatioTemporalConditionModel; None makes it from the config."""
        from diffusers import UNetSpatioTemporalConditionModel

        super().__init__()
        self.config = config
        self.unet: Any = unet or UNetSpatioTemporalConditionModel.from_config(dict(config.unet))
        self.action_encoder = ActionEncoder(len(config.pose_low), TOKEN_WIDTH)
        self.text_encoder = text_encoder
        self.execution: Execution | None = None
        """How to sample; None is the fastest of equal output. Training runs diffusers' blocks."""
        self._prepared: PreparedBackbone | None = None

    def use(self, config: CtrlWorldConfig) -> CtrlWorld:
        """Take other settings of the same architecture (another preset, sampler or guidance)."""
        if config.unet != self.config.unet or config.pose_low != self.config.pose_low:
            raise ConfigError(
                "the settings are of another model; take `replace(model.config, ...)`"
            )
        self.config = config
        return self

    def run_as(self, execution: Execution) -> CtrlWorld:
        """Sample with this execution from now on."""
        self.execution, self._prepared = execution, None
        return self

    def tokens(self, context: Context) -> Tensor:
        """(B, T, D), one per frame."""
        poses = torch.from_numpy(self.config.normalizer.normalize(context.poses))
        text = None
        if context.instructions is not None:
            text = self.text_encoder.embed(context.instructions)
        tokens: Tensor = self.action_encoder(poses.to(context.current.device), text)
        return tokens

    def prepare(self, context: Context, augmentation: float | None = None) -> Given:
        """augmentation: told to the backbone; None takes the configuration's for sampling."""
        c = self.config
        b = len(context.current)
        shape = (len(c.views), c.latent_channels, *c.latent_size)
        if context.current.shape[1:] != shape:
            raise MismatchError(
                f"current latents are {tuple(context.current.shape[1:])}, this model expects "
                f"{shape} (views, channels, height, width)"
            )
        if context.memory.shape[1:] != (c.memory_slots, *shape):
            raise MismatchError(
                f"memory latents are {tuple(context.memory.shape[1:])}, this model expects "
                f"{(c.memory_slots, *shape)} (frames, views, channels, height, width)"
            )
        told = c.noise_augmentation if augmentation is None else augmentation
        time_ids = torch.tensor([[c.fps, c.motion_bucket, told]], device=context.current.device)
        return Given(
            tokens=self.tokens(context),
            history=stack_views(context.memory),
            image=stack_views(context.current) / c.scaling_factor,
            time_ids=time_ids.repeat(b, 1),
        )

    def backbone(self) -> PreparedBackbone:
        """The backbone made ready to be sampled from."""
        if self._prepared is None:
            execution = self.execution or fastest(self.unet.conv_in.weight.device)
            self._prepared = PreparedBackbone(self.unet, execution)
        return self._prepared

    def _apply(self, fn: Any, recurse: bool = True) -> CtrlWorld:
        self._prepared = None  # another device or type
        return super()._apply(fn, recurse)

    @torch.inference_mode()
    def sample_clip(
        self,
        context: Context,
        noise: Tensor,
        sampler: SamplerConfig | None = None,
        guidance: GuidanceConfig | None = None,
    ) -> Tensor:
        """Latents (B, F+1, V, C, h, w), the current frame sampled once more and the new ones.

        noise: of that shape and of unit variance. guidance: None takes the configuration's.
        """
        c = self.config
        guidance = guidance or c.guidance
        device, dtype = context.current.device, self.unet.conv_in.weight.dtype
        given = self.prepare(context)
        backbone = self.backbone()
        ramp = torch.linspace(guidance.low, guidance.high, c.future + 1, device=device)
        weight = ramp[:, None, None, None]

        @functools.cache
        def condition(guided: bool) -> Conditioning:
            """The unconditional branch has zero tokens and the same history and image."""
            tokens = given.tokens
            if guided:
                tokens = torch.cat([torch.zeros_like(tokens), tokens])
            return backbone.condition(tokens, given.time_ids)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            guided = guidance.at(sigma)

            def network(y: Tensor, c_noise: Tensor) -> Tensor:
                seen = given.beside(y)
                out = backbone(seen, c_noise, condition(guided), first=c.memory_slots)
                if guided:
                    free, bound = out.chunk(2)
                    out = free + weight * (bound - free)
                return -out

            level = torch.full((len(x),), sigma, device=device)
            return precondition(network, x.float(), level, c.denoiser)

        kept = dtype if c.latent_type == "weights" else torch.float32
        start = stack_views(noise).to(device, kept)
        return split_views(sample(denoise, start, sampler or c.sampler).float(), len(c.views))

    def unit_noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """(B, F+1, V, C, h, w), each rollout's from its own generator."""
        c = self.config
        shape = (c.future + 1, len(c.views), c.latent_channels, *c.latent_size)
        return torch.stack([torch.randn(shape, generator=g) for g in generators])

    def imagine(
        self,
        context: Context,
        generators: Sequence[torch.Generator],
        sampler: SamplerConfig | None = None,
    ) -> Tensor:
        """Latents (B, F, V, C, h, w) of the frames to come, one generator per rollout."""
        noise = self.unit_noise(generators)
        return self.sample_clip(context, noise, sampler)[:, 1:]

    def evaluations(self, sampler: SamplerConfig) -> int:
        """Passes of the backbone (NFE) that one sample costs; a guided one is two."""
        *levels, _ = karras_sigmas(sampler)
        guided = sum(self.config.guidance.at(sigma) for sigma in levels) / len(levels)
        return round(sampler.evaluations * (1 + guided))

    def clip_loss(
        self, context: Context, future: Tensor, draws: LossDraws
    ) -> tuple[Tensor, Tensor]:
        """EDM loss on the current and the new frames: (scalar, mean per view (V,)).

        context: clean latents; their noise is in ``draws``. future: (B, F, V, C, h, w).
        """
        c = self.config
        current, memory = context.current, context.memory
        level = _like(draws.current, current) * c.current_noise
        noisy_current = (current + level * draws.current_noise) * (level**2 + 1).rsqrt()
        level = _like(draws.history, memory) * c.history_noise
        noisy_memory = (memory + level * draws.history_noise) * (level**2 + 1).rsqrt()
        given = self.prepare(
            replace(context, current=noisy_current, memory=noisy_memory), TRAINING_AUGMENTATION
        )
        keep = draws.keep[:, None, None] > c.token_drop
        given = replace(given, tokens=given.tokens * keep)
        clean = stack_views(torch.cat([current[:, None], future], dim=1))
        sigma = (draws.sigma * c.denoiser.log_sigma_std + c.denoiser.log_sigma_mean).exp()
        noisy = clean + _like(sigma, clean) * stack_views(draws.noise)

        def network(y: Tensor, c_noise: Tensor) -> Tensor:
            seen = given.beside(y)
            out = run_unet(self.unet, seen, c_noise, given.tokens, given.time_ids)
            return -out[:, c.memory_slots :]

        denoised = precondition(network, noisy, sigma, c.denoiser)
        error = weighted_error(denoised, clean, sigma, c.denoiser)
        per_view = split_views(error.detach(), len(c.views)).mean(dim=(0, 1, 3, 4, 5))
        return error.mean(), per_view

    def parts(self) -> dict[str, nn.Module]:
        """Prefix of the tensors in a checkpoint -> module."""
        return {
            "unet.": self.unet,
            "text_encoder.": self.text_encoder.clip,
            "action_encoder.": self.action_encoder,
        }

    def save(
        self,
        folder: str | Path,
        autoencoder: SvdAutoencoder | str | Path | None = None,
        card: dict[str, Any] | None = None,
    ) -> None:
        """autoencoder: kept beside the model; a folder means that of the checkpoint there."""

        def tensors() -> Iterator[tuple[str, Tensor]]:
            for prefix, module in self.parts().items():
                for name, tensor in module.state_dict().items():
                    yield prefix + name, tensor.detach().cpu()
            if isinstance(autoencoder, SvdAutoencoder):
                for name, tensor in autoencoder.vae.state_dict().items():
                    yield VAE_PREFIX + name, tensor.detach().cpu()
            elif autoencoder is not None:
                for name, tensor in checkpoint.stream(autoencoder, kind=KIND, prefix=VAE_PREFIX):
                    yield VAE_PREFIX + name, tensor

        hashes = write_tokenizer(Path(folder) / TOKENIZER, self.text_encoder.files)
        config = asdict(replace(self.config, tokenizer=hashes))
        checkpoint.save(
            folder,
            kind=KIND,
            config=config,
            tensors=tensors(),
            card=card,
            shard_bytes=checkpoint.LARGE_SHARD_BYTES,
        )

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype | None = None) -> CtrlWorld:
        """From a checkpoint folder; raises CheckpointError if it is missing or damaged.

        dtype: of the weights; None takes them as they are stored.
        """
        folder = Path(folder)
        header = checkpoint.read_header(folder, kind=KIND)
        with checkpoint.fitting(folder):
            config = CtrlWorldConfig.from_json(header["config"])
            check_tokenizer(folder / TOKENIZER, config.tokenizer)
            text_encoder = TextEncoder(config.text_encoder, folder / TOKENIZER)
            with Bounded.by_header(folder, header), torch.device("meta"):
                model = cls(config, text_encoder)
            for prefix, module in model.parts().items():
                tensors = {
                    name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
                    for name, tensor in checkpoint.stream(folder, kind=KIND, prefix=prefix)
                }
                check_weights(module.state_dict(), tensors, folder)
                module.load_state_dict(tensors, assign=True)
            text_encoder.forget()
        return model.eval().requires_grad_(False)


def stack_views(latents: Tensor) -> Tensor:
    """(..., V, C, h, w) -> (..., C, V*h, w)"""
    return latents.transpose(-4, -3).flatten(-3, -2)


def split_views(latents: Tensor, views: int) -> Tensor:
    """(..., C, V*h, w) -> (..., V, C, h, w)"""
    return latents.unflatten(-2, (views, -1)).transpose(-4, -3)


def _like(level: Tensor, latents: Tensor) -> Tensor:
    """Trailing axes of 1, so that ``level`` multiplies ``latents``."""
    return level.reshape(*level.shape, *[1] * (latents.ndim - level.ndim))
