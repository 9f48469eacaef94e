"""Lean execution of the blocks of Stable Video Diffusion: the same function in fewer passes.

In: a diffusers module and its activations, frames along the batch axis, ``x (R*T, C, H, W)`` for R
rows (rollouts times guidance branches). Out: what diffusers' own forward gives, within rounding.

Everything here writes in place where it can, so it is for sampling (``torch.no_grad``); training
takes diffusers' blocks. Against those it saves: the division of every residual by 1.0; the blend
of space and time ``a x + (1 - a) (x + d)`` in three passes, which is ``x + (1 - a) d`` in one; time
embeddings of every frame where all frames of a row share one; the permutations to (R*S, T, C) and
back, where only the attention itself looks along time; residuals, added inside the matrix product.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q (N, L, heads, d), k and v (N, M, heads, d) -> softmax(q k^T / sqrt(d)) v (N, L, heads, d)."""

Given = Mapping[str, Tensor]
"""What a layer takes from the conditioning, computed once per sample (see ``given_to``)."""


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own fused attention."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


@functools.cache
def attention_backend(name: str, device_type: str) -> Attend:
    """The attention of that name; xformers only where a probe call succeeds, else SDPA."""
    if name != "xformers":
        return sdpa
    if device_type != "cuda":
        warnings.warn(
            f"xformers' attention needs CUDA and the model is on {device_type}; using PyTorch's",
            stacklevel=2,
        )
        return sdpa
    try:
        from xformers.ops import memory_efficient_attention

        probe = torch.zeros(1, 16, 1, 64, device="cuda", dtype=torch.bfloat16)
        memory_efficient_attention(probe, probe, probe)
    except (ImportError, RuntimeError, NotImplementedError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"xformers is unusable here ({reason}); using PyTorch's", stacklevel=2)
        return sdpa
    return memory_efficient_attention


def add_linear(x: Tensor, a: Tensor, linear: nn.Linear, bias: Tensor | None) -> Tensor:
    """x += a W^T + bias in place, for contiguous x (..., C)."""
    if bias is not None:
        x.add_(bias)
    x.view(-1, x.shape[-1]).addmm_(a.reshape(-1, linear.in_features), linear.weight.t())
    return x


def temporal_conv(conv: Any, x: Tensor, as_2d: bool) -> Tensor:
    """Convolution over three frames of x (R, C, T, S), S = H W.

    Conv3d with kernel (3, 1, 1) is Conv2d with kernel (3, 1) once the image is one axis, and the
    second has the better kernels.
    """
    if as_2d:
        return F.conv2d(x, conv.weight.squeeze(-1), conv.bias, padding=(1, 0))
    result: Tensor = conv(x.unsqueeze(-1)).squeeze(-1)
    return result


def temporal_weight(mixer: Any) -> Tensor:
    """1 - a of an AlphaBlender, where the result is a * spatial + (1 - a) * temporal."""
    a = mixer.mix_factor if mixer.merge_strategy == "fixed" else torch.sigmoid(mixer.mix_factor)
    return a if mixer.switch_spatial_to_temporal_mix else 1 - a


def residual_block(
    block: Any, x: Tensor, rows: int, embedding: Tensor | None, weight: Tensor, as_2d: bool
) -> Tensor:
    """A SpatioTemporalResBlock; ``embedding`` (R, D) is that of the noise level, after SiLU."""
    spatial, temporal = block.spatial_res_block, block.temporal_res_block
    h = spatial.conv1(F.silu(spatial.norm1(x), inplace=True))
    if embedding is not None:
        shift = spatial.time_emb_proj(embedding)[:, None, :, None, None]
        h.unflatten(0, (rows, -1)).add_(shift)
    h = spatial.conv2(F.silu(spatial.norm2(h), inplace=True))
    h.add_(x if spatial.conv_shortcut is None else spatial.conv_shortcut(x))

    frames, channels = h.shape[0] // rows, h.shape[1]
    over_time = h.view(rows, frames, channels, -1).transpose(1, 2)  # (R, C, T, S)
    d = temporal_conv(temporal.conv1, F.silu(temporal.norm1(over_time), inplace=True), as_2d)
    if embedding is not None:
        d.add_(temporal.time_emb_proj(embedding)[:, :, None, None])
    d = temporal_conv(temporal.conv2, F.silu(temporal.norm2(d), inplace=True), as_2d)
    over_time.addcmul_(d, weight)
    return h


def feed_forward(ff: Any, x: Tensor, a: Tensor) -> Tensor:
    """x += FF(a) in place, gated by GELU; its two halves apart, so that each is contiguous."""
    project = ff.net[0].proj
    (weight, gate_weight), (bias, gate_bias) = project.weight.chunk(2), project.bias.chunk(2)
    gate = torch.ops.aten.gelu_(F.linear(a, gate_weight, gate_bias))
    h = F.linear(a, weight, bias).mul_(gate)
    return add_linear(x, h, ff.net[2], ff.net[2].bias)


def spatial_block(block: Any, x: Tensor, given: Given, attend: Attend, branches: int) -> Tensor:
    """A BasicTransformerBlock on x (R*T, S, C), in place.

    Up to its cross-attention nothing depends on the conditioning, so where guidance has two
    branches x may hold one of them; it is repeated here.
    """
    attention, a = block.attn1, block.norm1(x)
    q, k, v = (
        project(a).unflatten(-1, (attention.heads, -1))
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    out = attention.to_out[0]
    bias = None if "spatial" in given else out.bias
    add_linear(x, attend(q, k, v), out, bias)
    if branches > 1:
        x = x.repeat(branches, 1, 1)
    if "spatial" in given:
        x.add_(given["spatial"])
    else:
        x.add_(block.attn2(block.norm2(x), encoder_hidden_states=given["tokens"]))
    return feed_forward(block.ff, x, block.norm3(x))


def temporal_block(
    block: Any, x: Tensor, rows: int, given: Given, attend: Attend, first: int
) -> Tensor:
    """A TemporalBasicTransformerBlock on x (R*T, S, C), in place; frames before ``first`` leave."""
    count, channels = x.shape[1:]
    x = feed_forward(block.ff_in, x, block.norm_in(x))
    attention, a = block.attn1, block.norm1(x).view(rows, -1, count, channels)  # (R, T, S, C)
    x = x.view(rows, -1, count, channels)[:, first:].contiguous()
    # Places and heads are one axis here: attention along time then needs no copy of its inputs.
    axes = (count * attention.heads, channels // attention.heads)
    q = attention.to_q(a[:, first:]).view(rows, -1, *axes)
    k = attention.to_k(a).view(rows, -1, *axes)
    v = attention.to_v(a).view(rows, -1, *axes)
    out = attention.to_out[0]
    add_linear(x, attend(q, k, v), out, given.get("temporal", out.bias))
    if "temporal" not in given:
        y = x.view(rows, -1, channels)
        y.add_(block.attn2(block.norm2(y), encoder_hidden_states=given["first_token"]))
    x = x.view(-1, count, channels)
    return feed_forward(block.ff, x, block.norm3(x))


def transformer(
    model: Any, x: Tensor, rows: int, given: Given, attend: Attend, branches: int, first: int
) -> Tensor:
    """A TransformerSpatioTemporalModel on x (R*T, C, H, W); it may overwrite x.

    Leaves rows * branches rows, and of each its frames from ``first`` on.
    """
    height, width = x.shape[2:]
    h = model.proj_in(model.norm(x).permute(0, 2, 3, 1).flatten(1, 2))  # (R*T, S, C)
    h = spatial_block(model.transformer_blocks[0], h, given, attend, branches)
    if branches > 1:
        x = x.repeat(branches, 1, 1, 1)
        rows *= branches
    mixed = (h.unflatten(0, (rows, -1)) + given["positions"]).flatten(0, 1)
    mixed = temporal_block(model.temporal_transformer_blocks[0], mixed, rows, given, attend, first)
    if first:
        h, x = (t.unflatten(0, (rows, -1))[:, first:].flatten(0, 1) for t in (h, x))
    h = h.lerp_(mixed, given["weight"])
    tokens = x.permute(0, 2, 3, 1)
    if tokens.is_contiguous():  # channels last
        add_linear(tokens, h, model.proj_out, model.proj_out.bias)
        return x
    return x.add_(model.proj_out(h).unflatten(1, (height, width)).permute(0, 3, 1, 2))


def given_to(model: Any, hidden: Tensor, collapse: bool) -> dict[str, Tensor]:
    """What a TransformerSpatioTemporalModel needs that no step changes; hidden (R, T, D).

    Over a single token softmax is 1, so cross-attention is to_out(to_v(token)): a bias. The
    temporal block sees the token of frame 0 alone, as the published code does.
    """
    space, time = model.transformer_blocks[0], model.temporal_transformer_blocks[0]
    given = {
        "weight": temporal_weight(model.time_mixer),
        "positions": frame_positions(model, hidden.shape[1], hidden.dtype)[:, None],
    }
    if not collapse:
        return given | {"tokens": hidden.flatten(0, 1)[:, None], "first_token": hidden[:, :1]}
    for name, block, token in (("spatial", space, hidden), ("temporal", time, hidden[:, :1])):
        cross = block.attn2.to_out[0](block.attn2.to_v(token))
        given[name] = cross + block.attn1.to_out[0].bias
    given["spatial"] = given["spatial"].flatten(0, 1)[:, None]  # (R*T, 1, C)
    given["temporal"] = given["temporal"][:, None]  # (R, 1, 1, C)
    return given


def frame_positions(model: Any, frames: int, dtype: torch.dtype) -> Tensor:
    """(T, C): the embedding of the frame's number that the temporal block is given."""
    number = torch.arange(frames, device=model.proj_in.weight.device)
    positions: Tensor = model.time_pos_embed(model.time_proj(number).to(dtype))
    return positions


def decode(decoder: Any, latents: Tensor, frames: int, as_2d: bool = True) -> Tensor:
    """A TemporalDecoder on latents (N*frames, C, h, w), unscaled, to images (N*frames, 3, H, W)."""

    def block(module: Any, x: Tensor) -> Tensor:
        weight = temporal_weight(module.time_mixer)
        return residual_block(module, x, x.shape[0] // frames, None, weight, as_2d)

    if as_2d and latents.device.type == "cpu":
        latents = latents.contiguous(memory_format=torch.channels_last)
    x = decoder.conv_in(latents)
    x = block(decoder.mid_block.resnets[0], x)
    later = decoder.mid_block.resnets[1:]
    for attention, resnet in zip(decoder.mid_block.attentions, later, strict=False):
        x = block(resnet, attention(x))  # with one layer there is an attention that nobody uses
    for up in decoder.up_blocks:
        for resnet in up.resnets:
            x = block(resnet, x)
        for upsampler in up.upsamplers or ():
            x = upsampler(x)
    x = decoder.conv_out(F.silu(decoder.conv_norm_out(x), inplace=True))
    over_time = x.unflatten(0, (-1, frames)).flatten(3).transpose(1, 2)  # (N, 3, T, S)
    over_time = temporal_conv(decoder.time_conv_out, over_time, as_2d)
    return over_time.transpose(1, 2).unflatten(3, x.shape[2:]).flatten(0, 1)
