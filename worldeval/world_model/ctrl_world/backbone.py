"""The backbone of Ctrl-World: Stable Video Diffusion's U-Net, one conditioning token per frame.

In: noisy latents with the current frame beside them ``sample (B, T, 8, H, W)``, the views stacked
along H; ``c_noise (B,)``; one token per frame ``hidden (R, T, D)``; ``time_ids (B, 3)``. Out:
``(R, T - first, 4, H, W)``, the network's raw output. R is B, or B times the branches of guidance,
branch by branch (all unconditional rows, then all conditional ones): then ``sample``, ``c_noise``
and ``time_ids`` are those that the branches share.

Training, differentiable (gradient checkpointing: ``unet.enable_gradient_checkpointing()``)::

    out = run_unet(unet, sample, c_noise, hidden, time_ids)

Sampling, under ``torch.no_grad()``; both sides of the step are the caller's::

    backbone = PreparedBackbone(unet, fastest(device))
    conditioning = backbone.condition(hidden, time_ids)        # once per sample
    out = backbone(sample, c_noise, conditioning, first=6)     # once per step; frames 6.. leave

Every switch of ``Execution`` keeps the output within rounding. ``PUBLISHED`` runs diffusers' own
blocks as the published code does: frame-level conditioning (Ctrl-World, arXiv 2510.10125, section
3.2) reshapes the tokens to (R*T, 1, D) where Stable Video Diffusion repeats one token over frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from worldeval.errors import ConfigError, MismatchError
from worldeval.world_model.ctrl_world.capture import CapturedStep, Conditioning
from worldeval.world_model.ctrl_world.execution import (
    attention_backend,
    given_to,
    residual_block,
    temporal_weight,
    transformer,
)

ATTENTION = ("auto", "sdpa", "xformers")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the backbone is executed. Every switch is equal in output within rounding."""

    lean: bool = False
    """Our executor instead of diffusers' blocks (see execution.py); the next five need it."""
    collapse_cross_attention: bool = False
    """Cross-attention to one token is a linear map of it: computed once per sample, then a bias."""
    share_prefix: bool = False
    """Under guidance compute once what comes before the first cross-attention."""
    trim_history: bool = False
    """From the last temporal attention on compute only the frames that are asked for."""
    conv2d_over_time: bool = False
    """Convolutions over three frames as two-dimensional ones."""
    channels_last: bool = False
    """Keep channels innermost, so that a token is contiguous and no permutation copies."""
    attention: str = "auto"
    """auto and sdpa: PyTorch's; xformers: where it works, otherwise PyTorch's with a warning."""
    compile: bool = False
    """torch.compile the step: minutes the first time, then fewer passes over memory."""
    capture: bool = False
    """Replay the step as a CUDA graph: one launch instead of thousands. Ignored off CUDA."""

    def __post_init__(self) -> None:
        if self.attention not in ATTENTION:
            raise ConfigError(f"attention is {self.attention!r}, expected one of {ATTENTION}")
        needing = [
            name
            for name in (
                "collapse_cross_attention",
                "share_prefix",
                "trim_history",
                "conv2d_over_time",
                "channels_last",
            )
            if getattr(self, name)
        ]
        if self.attention == "xformers":
            needing.append("attention='xformers'")
        if needing and not self.lean:
            raise ConfigError(f"execution: {', '.join(needing)} needs lean=True")


PUBLISHED = Execution()
EXACT = Execution(
    lean=True,
    collapse_cross_attention=True,
    share_prefix=True,
    trim_history=True,
    conv2d_over_time=True,
    channels_last=True,
)


def fastest(device: str | torch.device) -> Execution:
    """The fastest execution of equal output that needs no compilation."""
    if torch.device(device).type != "cuda":
        return EXACT
    # CUDA's group normalisation has no channels-last kernel: without a compiler it would copy.
    return Execution(
        lean=True,
        collapse_cross_attention=True,
        share_prefix=True,
        trim_history=True,
        conv2d_over_time=True,
        capture=True,
    )


class PreparedBackbone:
    """A UNetSpatioTemporalConditionModel made ready to be executed in one way.

    Holds no weights of its own. What it derives from weights is in ``Conditioning``, so a model
    that is being trained may be sampled from with a new conditioning at any time.
    """

    def __init__(self, unet: Any, execution: Execution = PUBLISHED) -> None:
        self.unet = unet
        self.execution = execution
        self.dtype: torch.dtype = unet.conv_in.weight.dtype
        self.device: torch.device = unet.conv_in.weight.device
        if execution.lean:
            check_lean(unet)
        self.attend = attention_backend(execution.attention, self.device.type)
        step = self._lean_step if execution.lean else self._published_step
        if execution.compile:
            step = torch.compile(step, dynamic=False)
        if execution.capture and self.device.type == "cuda":
            step = CapturedStep(step)
        self._step = step

    def condition(self, hidden: Tensor, time_ids: Tensor) -> Conditioning:
        """hidden (R, T, D), one token per frame; time_ids (B, 3); R a multiple of B."""
        if hidden.ndim != 3 or time_ids.ndim != 2 or hidden.shape[0] % time_ids.shape[0]:
            raise MismatchError(
                f"tokens are {tuple(hidden.shape)} and time ids {tuple(time_ids.shape)}; expected "
                "(R, T, D) and (B, 3) with R a multiple of B"
            )
        hidden = hidden.to(self.device, self.dtype)
        time_ids = time_ids.to(self.device, self.dtype)
        if not self.execution.lean:
            return Conditioning(hidden=hidden, time_ids=time_ids)
        given = {"": {"time_ids": self._time_ids_embedding(time_ids)}}
        for name, module in self.unet.named_modules():
            if hasattr(module, "temporal_transformer_blocks"):
                collapse = self.execution.collapse_cross_attention
                given[name] = given_to(module, hidden, collapse)
            elif hasattr(module, "temporal_res_block"):
                given[name] = {"weight": temporal_weight(module.time_mixer)}
        return Conditioning(hidden=hidden, time_ids=time_ids, given=given)

    def __call__(
        self, sample: Tensor, c_noise: Tensor, conditioning: Conditioning, *, first: int = 0
    ) -> Tensor:
        """sample (B, T, 8, H, W), c_noise (B,) -> (R, T - first, 4, H, W) in sample's dtype."""
        expected = (len(conditioning.time_ids), conditioning.hidden.shape[1])
        if sample.ndim != 5 or sample.shape[:2] != expected or c_noise.shape != expected[:1]:
            raise MismatchError(
                f"sample is {tuple(sample.shape)} and c_noise {tuple(c_noise.shape)}; this "
                f"conditioning expects {expected} rows and frames, five axes, and one c_noise "
                "per row"
            )
        if not 0 <= first < expected[1]:
            raise MismatchError(f"first is {first}, expected a frame of 0..{expected[1] - 1}")
        if self.execution.lean and torch.is_grad_enabled():
            raise ConfigError(
                "the lean execution writes in place and has no gradient; use torch.no_grad(), or "
                "PUBLISHED for training"
            )
        out: Tensor = self._step(sample.to(self.dtype), c_noise.float(), conditioning, first)
        return out.to(sample.dtype)

    def _time_ids_embedding(self, time_ids: Tensor) -> Tensor:
        sines = self.unet.add_time_proj(time_ids.flatten()).reshape(time_ids.shape[0], -1)
        embedding: Tensor = self.unet.add_embedding(sines.to(self.dtype))
        return embedding

    def _noise_embedding(self, c_noise: Tensor) -> Tensor:
        embedding: Tensor = self.unet.time_embedding(self.unet.time_proj(c_noise).to(self.dtype))
        return embedding

    def _published_step(
        self, sample: Tensor, c_noise: Tensor, conditioning: Conditioning, first: int
    ) -> Tensor:
        unet, rows, frames = self.unet, conditioning.rows, sample.shape[1]
        branches = rows // sample.shape[0]
        sample = sample.repeat(branches, 1, 1, 1, 1)
        embedding = self._noise_embedding(c_noise) + self._time_ids_embedding(conditioning.time_ids)
        common = {
            "temb": embedding.repeat(branches, 1).repeat_interleave(frames, dim=0),
            "image_only_indicator": sample.new_zeros(rows, frames),
        }
        crossing = common | {"encoder_hidden_states": conditioning.hidden.flatten(0, 1)[:, None]}

        def arguments(block: Any) -> dict[str, Tensor]:
            return crossing if getattr(block, "has_cross_attention", False) else common

        x = unet.conv_in(sample.flatten(0, 1))  # (R*T, C, H, W)
        skips = [x]
        for block in unet.down_blocks:
            x, left = block(hidden_states=x, **arguments(block))
            skips.extend(left)
        x = unet.mid_block(hidden_states=x, **crossing)
        for block in unet.up_blocks:
            count = len(block.resnets)
            taken, skips = tuple(skips[-count:]), skips[:-count]
            size = skips[-1].shape[2:] if skips else None
            x = block(
                hidden_states=x,
                res_hidden_states_tuple=taken,
                upsample_size=size,
                **arguments(block),
            )
        return self._out(x, rows)[:, first:]

    def _lean_step(
        self, sample: Tensor, c_noise: Tensor, conditioning: Conditioning, first: int
    ) -> Tensor:
        unet, execution, given = self.unet, self.execution, conditioning.given
        rows, branches = sample.shape[0], conditioning.rows // sample.shape[0]
        if branches > 1 and not execution.share_prefix:
            sample = sample.repeat(branches, 1, 1, 1, 1)
            rows, branches = conditioning.rows, 1
        embedding = self._noise_embedding(c_noise) + given[""]["time_ids"]
        embedding = F.silu(embedding)  # (B, D), repeated where the branches part

        def resnet(name: str, block: Any, x: Tensor) -> Tensor:
            e = embedding.repeat(rows // embedding.shape[0], 1)
            return residual_block(
                block, x, rows, e, given[name]["weight"], execution.conv2d_over_time
            )

        x = sample.flatten(0, 1)
        if execution.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        x = unet.conv_in(x)
        skips = [x]

        def attention(name: str, block: Any, x: Tensor, first: int = 0) -> Tensor:
            nonlocal rows, branches, skips
            x = transformer(block, x, rows, given[name], self.attend, branches, first)
            if branches > 1:  # the branches of guidance part here
                skips = [skip.repeat(branches, 1, 1, 1) for skip in skips]
                rows, branches = rows * branches, 1
            return x

        for i, block in enumerate(unet.down_blocks):
            for j, module in enumerate(block.resnets):
                x = resnet(f"down_blocks.{i}.resnets.{j}", module, x)
                if hasattr(block, "attentions"):
                    x = attention(f"down_blocks.{i}.attentions.{j}", block.attentions[j], x)
                skips.append(x)
            for downsampler in block.downsamplers or ():
                x = downsampler(x)
                skips.append(x)
        middle = unet.mid_block
        x = resnet("mid_block.resnets.0", middle.resnets[0], x)
        for j, module in enumerate(middle.attentions):
            x = attention(f"mid_block.attentions.{j}", module, x)
            x = resnet(f"mid_block.resnets.{j + 1}", middle.resnets[j + 1], x)
        last = len(unet.up_blocks) - 1
        for i, block in enumerate(unet.up_blocks):
            for j, module in enumerate(block.resnets):
                x = torch.cat([x, skips.pop()], dim=1)
                x = resnet(f"up_blocks.{i}.resnets.{j}", module, x)
                if hasattr(block, "attentions"):
                    final = i == last and j == len(block.resnets) - 1
                    kept = first if final and execution.trim_history else 0
                    x = attention(f"up_blocks.{i}.attentions.{j}", block.attentions[j], x, kept)
            for upsampler in block.upsamplers or ():
                x = upsampler(x, skips[-1].shape[2:])
        out = self._out(x, rows)
        return out[:, first - sample.shape[1] :]

    def _out(self, x: Tensor, rows: int) -> Tensor:
        x = self.unet.conv_out(F.silu(self.unet.conv_norm_out(x)))
        return x.unflatten(0, (rows, -1))


def run_unet(
    unet: Any,
    sample: Tensor,
    c_noise: Tensor,
    hidden: Tensor,
    time_ids: Tensor,
    execution: Execution = PUBLISHED,
) -> Tensor:
    """One evaluation, conditioning included: (B, T, 8, H, W) -> (R, T, 4, H, W)."""
    backbone = PreparedBackbone(unet, execution)
    return backbone(sample, c_noise, backbone.condition(hidden, time_ids))


def check_lean(unet: Any) -> None:
    """The lean executor knows Stable Video Diffusion's structure, at any width, and no other."""
    for name, module in unet.named_modules():
        depth = len(getattr(module, "transformer_blocks", [None]))
        if depth != 1:
            raise ConfigError(
                f"{name} has {depth} transformer layers, the lean executor expects 1; use PUBLISHED"
            )
