"""The backbone: a spatio-temporal U-Net over all views of a clip at once. Knows no sigma schedule.

In: per-frame, per-view feature maps (B, T, V, C_in, h, w) and one token per frame (B, T, E).
Out: (B, T, V, C_out, h, w). Views share every weight and differ by an embedding and by what the
geometry maps say, so any number of views up to ``max_views`` goes through one network. Convolutions
see one view of one frame; a temporal mixing layer sees three neighbouring frames; at the coarse
level attention runs over all frames, views and places together, which is how a memory frame reaches
the future wherever it shows the same thing. Same family as the U-Net of Stable Video Diffusion
(spatial residual block, temporal block, attention), at a width that a laptop CPU can run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Widths of the fine and the coarse level, blocks in each, and the limits of its embeddings."""

    widths: tuple[int, int] = (48, 96)
    """Channels of the fine and of the coarse level."""
    blocks: int = 2
    """Blocks on the fine level each way; the coarse one has twice as many."""
    token_width: int = 128
    """Width of the embedding of noise level, view and moment in time."""
    heads: int = 4
    """Attention heads; they must divide the coarse width."""
    max_views: int = 4
    """Most camera views that it can take."""
    patch: int = 1
    """Latent pixels along one side of what the network takes for one: a patch becomes channels at
    its door and pixels again behind it, so large latents cost patch^2 less."""

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise ConfigError(f"backbone patch is {self.patch}, expected 1 or more")
        if any(w % 8 for w in self.widths) or self.widths[1] % self.heads:
            raise ConfigError(
                f"backbone widths {self.widths} must be multiples of 8, the coarse one also of "
                f"the {self.heads} heads"
            )


def zero(layer: nn.Conv2d | nn.Linear) -> None:
    """Begin as nothing: a residual branch that starts at zero leaves the skip alone."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class SpatialBlock(nn.Module):
    """Residual 3x3 convolutions within one view of one frame, modulated by the frame's token."""

    def __init__(self, c_in: int, width: int, token: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(8, c_in)
        self.conv_in = nn.Conv2d(c_in, width, 3, padding=1)
        self.norm_out = nn.GroupNorm(8, width)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(token, 2 * width)
        self.skip = nn.Conv2d(c_in, width, 1) if c_in != width else nn.Identity()
        zero(self.conv_out)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """x (N, C, h, w), token (N, E) with N = B*T*V."""
        y = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.modulate(token)[:, :, None, None].chunk(2, dim=1)
        y = self.conv_out(F.silu(self.norm_out(y) * (1 + scale) + shift))
        return self.skip(x) + y


class TemporalMix(nn.Module):
    """Each place sees itself one frame earlier and later: a (3, 1) convolution over time.

    Written as one matrix product over channels, which is the same sum and far faster on a CPU.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.mix = nn.Linear(3 * width, width)
        zero(self.mix)

    def forward(self, x: Tensor, frames: int, views: int) -> Tensor:
        n, c, h, w = x.shape
        y = F.silu(self.norm(x)).permute(0, 2, 3, 1).reshape(-1, frames, views * h * w * c)
        padded = F.pad(y, (0, 0, 1, 1))  # (B, T+2, V*h*w*C)
        parts = [padded[:, i : i + frames].reshape(-1, c) for i in range(3)]
        mixed = self.mix(torch.cat(parts, dim=-1)).reshape(n, h, w, c)
        return x + mixed.permute(0, 3, 1, 2)


class ClipAttention(nn.Module):
    """Self-attention over all frames, views and places of a clip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        zero(self.out)

    def forward(self, x: Tensor, frames: int, views: int) -> Tensor:
        n, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(-1, frames * views * h * w, c)
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, N, c/heads)
            for part in self.qkv(tokens).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape)
        return x + self.out(y).reshape(n, h, w, c).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Spatial block, temporal mixing and, where asked, attention over the clip."""

    def __init__(self, c_in: int, width: int, config: BackboneConfig, attention: bool) -> None:
        super().__init__()
        self.spatial = SpatialBlock(c_in, width, config.token_width)
        self.temporal = TemporalMix(width)
        self.attention = ClipAttention(width, config.heads) if attention else None

    def forward(self, x: Tensor, token: Tensor, frames: int, views: int) -> Tensor:
        x = self.temporal(self.spatial(x, token), frames, views)
        return self.attention(x, frames, views) if self.attention is not None else x


class Backbone(nn.Module):
    """Two-level U-Net; see the module's docstring."""

    def __init__(self, config: BackboneConfig, c_in: int, c_out: int) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.widths
        self.views = nn.Parameter(0.02 * torch.randn(config.max_views, config.token_width))
        area = config.patch**2
        self.stem = nn.Conv2d(area * c_in, fine, 3, padding=1)
        self.down = nn.ModuleList([Stage(fine, fine, config, False) for _ in range(config.blocks)])
        self.shrink = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(
            [Stage(coarse, coarse, config, True) for _ in range(2 * config.blocks)]
        )
        self.grow = nn.Conv2d(coarse, 4 * fine, 1)
        self.up = nn.ModuleList(
            [Stage(2 * fine, fine, config, False) for _ in range(config.blocks)]
        )
        self.norm = nn.GroupNorm(8, fine)
        self.head = nn.Conv2d(fine, area * c_out, 3, padding=1)
        zero(self.head)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """x (B, T, V, C_in, h, w), token (B, T, E) -> (B, T, V, C_out, h, w)."""
        b, t, v = x.shape[:3]
        if v > self.config.max_views:
            raise ConfigError(f"{v} views, but this backbone has at most {self.config.max_views}")
        patch = self.config.patch
        if x.shape[-2] % (2 * patch) or x.shape[-1] % (2 * patch):
            raise ConfigError(
                f"latents are {tuple(x.shape[-2:])}, this backbone with patch {patch} needs "
                f"multiples of {2 * patch}"
            )
        tokens = (token[:, :, None] + self.views[:v]).flatten(0, 2)  # (B*T*V, E)
        x = F.pixel_unshuffle(x.flatten(0, 2), patch)  # the same for a patch of 1
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        kept = []
        for stage in self.down:
            x = stage(x, tokens, t, v)
            kept.append(x)
        x = self.shrink(x)
        for stage in self.middle:
            x = stage(x, tokens, t, v)
        x = F.pixel_shuffle(self.grow(x), 2)
        for stage in self.up:
            x = stage(torch.cat([x, kept.pop()], dim=1), tokens, t, v)
        x = F.pixel_shuffle(self.head(F.silu(self.norm(x))), patch)
        return x.reshape(b, t, v, *x.shape[1:])
