"""A small decoder for SVD latents that came with the data, and the detail of a known start frame.

In: latents (..., C, h, w) of an autoencoder that is not at hand (Stable Video Diffusion's, which
the release of Ctrl-World has for DROID's videos) and, where a rollout began at a known frame, that
frame. Out: images (..., 3, 8h, 8w) in about [-1, 1]. The decoder alone is D(z). Beside a start
frame x_0 with latent z_0 it is

    D(z) + g(z, z_0) (x_0 - D(z_0)),    0 <= g <= 1,

because what the decoder misses of a place is missed alike as long as the place does not change. The
gate g is a small network on both latents that says where that is so. A world model that is unsure
disturbs places that stay: a change below ``rest`` is therefore taken for none. The start frame is
what any user of the world model has; the residual adds nothing of a later frame, and where the gate
is shut (the arm, what it moved, a wrist view) the picture is the decoder's alone.

There is no encoder: latents of start frames come from the cache beside the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldeval.data import checkpoint
from worldeval.errors import ConfigError, MismatchError
from worldeval.learning.weights import filled
from worldeval.settings import settings_from
from worldeval.world_model.autoencoder import LARGEST_SIDE, frame_decoder

KIND = "latent-decoder"
SCALE = 8
"""Pixels of an image along one side of a latent."""


@dataclass(frozen=True, kw_only=True)
class LatentDecoderConfig:
    """Widths at 1/8, 1/4 and 1/2 of the resolution, of the gate, and the latents it is for."""

    widths: tuple[int, int, int] = (128, 64, 32)
    gate_width: int = 32
    latent_channels: int = 4
    latent_size: tuple[int, int] = (24, 40)
    latents: str = "svd"
    """Digest of the latents, as the cache of a store is named."""
    rest: tuple[float, ...] = ()
    """Of each view, the change of a latent (root mean square over channels and 3x3 places) up to
    which a place counts as at rest and is shown as in the start frame; from twice that on it is
    shown as decoded. () shows all as decoded."""

    def __post_init__(self) -> None:
        if any(w < 8 or w % 8 for w in (*self.widths, self.gate_width)):
            raise ConfigError(
                f"latent decoder: widths {self.widths} and gate_width {self.gate_width} must be "
                "positive multiples of 8"
            )
        sizes = self.latent_size
        if self.latent_channels < 1 or min(sizes) < 1 or max(sizes) > LARGEST_SIDE // SCALE:
            raise ConfigError(
                f"latent decoder: latent_channels {self.latent_channels} and latent_size {sizes} "
                f"must be at least 1, a size at most {LARGEST_SIDE // SCALE}"
            )

        if any(not r >= 0 for r in self.rest):
            raise ConfigError(f"latent decoder: rest is {self.rest}, expected none below 0")

    @property
    def image_size(self) -> tuple[int, int]:
        return SCALE * self.latent_size[0], SCALE * self.latent_size[1]


class LatentDecoder(nn.Module):
    """``decode`` and ``decode_beside``; see the module's docstring."""

    beside_start = True
    lead_frames = 0  # frames are decoded one by one

    def __init__(self, config: LatentDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = frame_decoder(config.latent_channels, config.widths[::-1])
        g = config.gate_width
        self.gate = nn.Sequential(  # 4x4 values a latent pixel, so that it can follow an edge
            nn.Conv2d(4 * config.latent_channels, g, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(g, g, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(g, 16, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, video: Tensor) -> NoReturn:
        """Raises MismatchError: a decoder cannot encode."""
        raise MismatchError(
            f"frames {tuple(video.shape)} cannot be encoded by a decoder of {self.config.latents!r}"
            " latents; start from the latents that are cached beside the store"
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (..., C, h, w) -> (..., 3, 8h, 8w), about [-1, 1]."""
        flat = latents.flatten(0, -4).contiguous(memory_format=torch.channels_last)
        video = self.decoder(flat)
        return video.reshape(*latents.shape[:-3], *video.shape[1:])

    def openness(self, latents: Tensor, start: Tensor) -> Tensor:
        """The gate g for latents and start latents (N, C, h, w): (N, 1, 8h, 8w) in [0, 1]."""
        change = latents - start
        # what it has to tell is a small change from a smaller one
        seen = torch.cat([latents, start, change, (change.abs() + 1e-2).log()], dim=1)
        fine = self.gate(seen.contiguous(memory_format=torch.channels_last))
        return F.interpolate(fine.sigmoid(), scale_factor=2, mode="bilinear", align_corners=False)

    def decode_beside(self, latents: Tensor, start: Tensor, start_video: Tensor) -> Tensor:
        """Latents (B, T, V, C, h, w) of rollouts that began at known frames, to (B, T, V, 3, H, W).

        start: (B, V, C, h, w) latents and start_video: (B, V, 3, H, W) pixels in [-1, 1] of those.
        """
        if start.shape != latents[:, 0].shape:
            raise MismatchError(
                f"start latents are {tuple(start.shape)}, expected {tuple(latents[:, 0].shape)}: "
                "those of the rollouts' start frames, batch and views alike"
            )
        rest = self.config.rest
        if rest and len(rest) != latents.shape[2]:
            raise MismatchError(
                f"latents have {latents.shape[2]} views, rest is set for {len(rest)}: {rest}"
            )
        missed = start_video - self.decode(start)  # (B, V, 3, H, W)
        repeated = start[:, None].expand_as(latents)
        gate = self.openness(latents.flatten(0, 2), repeated.flatten(0, 2))
        gate = gate.reshape(*latents.shape[:3], 1, *gate.shape[-2:])
        shown = self.decode(latents) + gate * missed[:, None]
        if not rest:
            return shown
        still = start_video[:, None]
        return still + moved(latents - start[:, None], rest) * (shown - still)

    def save(self, folder: str | Path, card: dict[str, Any] | None = None) -> None:
        tensors = {name: t.detach().cpu().float().numpy() for name, t in self.state_dict().items()}
        checkpoint.save(folder, kind=KIND, config=asdict(self.config), tensors=tensors, card=card)

    @classmethod
    def load(cls, folder: str | Path) -> LatentDecoder:
        """From a checkpoint folder; raises CheckpointError if it is missing or damaged."""
        config, tensors = checkpoint.load(folder, kind=KIND)
        with checkpoint.fitting(folder):
            settings = settings_from(LatentDecoderConfig, config)
            model = filled(lambda: cls(settings), tensors, folder)
        return model.eval().requires_grad_(False)


def moved(change: Tensor, rest: Sequence[float]) -> Tensor:
    """Which places of a change of latents (B, T, V, C, h, w) are not at rest: (B, T, V, 1, H, W).

    0 up to ``rest`` of the view, 1 from twice that on, in between linear.
    """
    square = change.square().mean(dim=-3).flatten(0, 2)[:, None]  # (B*T*V, 1, h, w)
    size = F.avg_pool2d(square, 3, 1, 1, count_include_pad=False).sqrt()
    limit = change.new_tensor(rest).repeat(change.shape[0] * change.shape[1])
    share = (size / limit.clamp_min(1e-6)[:, None, None, None] - 1).clamp(0, 1)
    wide = F.interpolate(share, scale_factor=SCALE, mode="bilinear", align_corners=False)
    return wide.reshape(*change.shape[:3], 1, *wide.shape[-2:])
