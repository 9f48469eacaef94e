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

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

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


def each_image(layer: Callable[..., Tensor], clip: Tensor, *more: Tensor) -> Tensor:
    """A layer of images (N, C, h, w) on every view of every frame of a clip (B, T, V, h, w, C)."""
    images = clip.flatten(0, 2).permute(0, 3, 1, 2)  # a view, channels last
    return layer(images, *more).permute(0, 2, 3, 1).unflatten(0, clip.shape[:3])


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

    def forward(self, clip: Tensor, answered: int) -> Tensor:
        """The last ``answered`` of the T frames of a clip (B, T, V, h, w, C)."""
        first = clip.shape[1] - answered
        y = each_image(lambda x: F.silu(self.norm(x)), clip)
        around = y.new_empty(y.shape[0], answered, *y.shape[2:-1], 3, y.shape[-1])
        around[:, 0 if first else 1 :, ..., 0, :] = y[:, max(first - 1, 0) : -1]
        around[..., 1, :] = y[:, first:]
        around[:, :-1, ..., 2, :] = y[:, first + 1 :]
        around[:, -1, ..., 2, :] = 0  # nothing is known beyond the clip
        if not first:
            around[:, 0, ..., 0, :] = 0
        return clip[:, first:] + self.mix(around.flatten(-2))


class ClipAttention(nn.Module):
    """Self-attention over all frames, views and places of a clip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        zero(self.out)

    def forward(self, clip: Tensor, answered: int) -> Tensor:
        """The last ``answered`` of the frames of a clip (B, T, V, h, w, C); all are looked at."""
        asking = clip[:, clip.shape[1] - answered :]
        tokens = each_image(self.norm, clip).flatten(1, 4)  # (B, N, C)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, C/heads)
            for part in self.qkv(tokens).chunk(3, dim=-1)
        )
        q = q[:, :, q.shape[2] - asking[0, ..., 0].numel() :]
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return asking + self.out(y).reshape(asking.shape)


class Stage(nn.Module):
    """Spatial block, temporal mixing and, where asked, attention over the clip."""

    def __init__(self, c_in: int, width: int, config: BackboneConfig, attention: bool) -> None:
        super().__init__()
        self.spatial = SpatialBlock(c_in, width, config.token_width)
        self.temporal = TemporalMix(width)
        self.attention = ClipAttention(width, config.heads) if attention else None

    def within(self, clip: Tensor, tokens: Tensor) -> Tensor:
        """The spatial block on a clip's last frames. tokens: (B, T, V, E), of all frames."""
        return each_image(self.spatial, clip, tokens[:, -clip.shape[1] :].flatten(0, 2))


class Still:
    """What the first frames of a clip, which are the same at every step of a sampler, come to.

    Until attention mixes all, a frame is told of the next one by each temporal mixing only: so what
    the first ones become is remembered at the first step and not computed at the others.
    frames: how many of the clip's first ones are the same; ``known`` once a step was taken.
    """

    def __init__(self, frames: int = 0) -> None:
        self.frames = frames
        self.known = False
        self._beside: list[Tensor] = []
        self._early = torch.empty(0)

    def mixed(self, stage: Stage, clip: Tensor, tokens: Tensor, depth: int) -> Tensor:
        """Spatial block and temporal mixing of the stage with ``depth`` mixings before it.

        clip: all T frames, or where they are known those that change; one more comes back.
        """
        clip, still = stage.within(clip, tokens), max(self.frames - depth, 0)
        if not self.known:
            self._beside.append(clip[:, max(still - 2, 0) : still].clone())
            return stage.temporal(clip, clip.shape[1])
        clip = torch.cat([self._beside[depth], clip], dim=1)
        return stage.temporal(clip, clip.shape[1] - (1 if still > 1 else 0))

    def whole(self, clip: Tensor, depth: int) -> Tensor:
        """All frames of the clip behind ``depth`` mixings."""
        if self.known:
            return torch.cat([self._early, clip], dim=1)
        self._early, self.known = clip[:, : max(self.frames - depth, 0)].clone(), True
        return clip


def stages(modules: nn.ModuleList) -> list[Stage]:
    """The stages of a level, by their type."""
    return cast(list[Stage], list(modules))


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

    def forward(
        self, x: Tensor, token: Tensor, answered: int | None = None, still: Still | None = None
    ) -> Tensor:
        """x (B, T, V, C_in, h, w), token (B, T, E) -> (B, T, V, C_out, h, w).

        answered: how many of the last frames are wanted (all if None): what only reaches others is
            not computed.
        still: of the clip's first frames; once it is known, x lacks these. At least ``answered``
            frames must change.
        """
        v, frames = x.shape[2], token.shape[1]
        if v > self.config.max_views:
            raise ConfigError(f"{v} views, but this backbone has at most {self.config.max_views}")
        patch = self.config.patch
        if x.shape[-2] % (2 * patch) or x.shape[-1] % (2 * patch):
            raise ConfigError(
                f"latents are {tuple(x.shape[-2:])}, this backbone with patch {patch} needs "
                f"multiples of {2 * patch}"
            )
        answered, still = answered or frames, still or Still()
        tokens = token[:, :, None] + self.views[:v]  # (B, T, V, E)
        clip = x.movedim(3, -1)
        if patch > 1:
            clip = each_image(lambda images: F.pixel_unshuffle(images, patch), clip)
        clip = each_image(self.stem, clip.contiguous())
        kept: list[Tensor] = []
        for stage in stages(self.down):
            clip = still.mixed(stage, clip, tokens, len(kept))
            kept.append(clip)
        clip = each_image(self.shrink, clip)
        for number, stage in enumerate(stages(self.middle)):
            if number == 0:
                clip = still.whole(still.mixed(stage, clip, tokens, len(kept)), len(kept) + 1)
            else:
                clip = stage.temporal(stage.within(clip, tokens), frames)
            last = number == len(self.middle) - 1
            assert stage.attention is not None
            clip = stage.attention(clip, min(answered + len(self.up), frames) if last else frames)
        clip = each_image(lambda images: F.pixel_shuffle(self.grow(images), 2), clip)
        for number, stage in enumerate(stages(self.up), start=1):
            clip = torch.cat([clip, kept.pop()[:, -clip.shape[1] :]], dim=-1)
            reached = min(answered + len(self.up) - number, frames)
            clip = stage.temporal(stage.within(clip, tokens), reached)
        clip = each_image(lambda images: self.head(F.silu(self.norm(images))), clip)
        if patch > 1:
            clip = each_image(lambda images: F.pixel_shuffle(images, patch), clip)
        return clip.movedim(-1, 3)
