"""Stable Video Diffusion's autoencoder: images to latents of an eighth of their size, and back.

In: video in [-1, 1], any leading axes, (..., 3, H, W). Out: latents (..., C, H/8, W/8), the mode of
the encoder's normal distribution times the scaling factor. The decoder looks across frames
(``AutoencoderKLTemporalDecoder``), so ``decode`` takes whole clips: each view is a video of its
own, or views and frames are cut into chunks as published (``decoding`` of the configuration).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, MismatchError
from worldeval.learning.weights import Bounded, check_weights
from worldeval.world_model.ctrl_world.config import KIND, CtrlWorldConfig
from worldeval.world_model.ctrl_world.execution import decode

PREFIX = "vae."
IMAGES_AT_ONCE = 16
"""Upper bound of the images in one pass; at 192x320 each takes about 150 MB in float32."""


class SvdAutoencoder(nn.Module):
    """``encode`` and ``decode``; see the module's docstring for the spaces."""

    lead_frames = 1
    """The decoder looks across frames: it should see the one before the first that is wanted."""
    beside_start = False

    def __init__(self, config: CtrlWorldConfig, vae: nn.Module | None = None) -> None:
        """vae: diffusers' AutoencoderKLTemporalDecoder; made from the configuration if None."""
        from diffusers import AutoencoderKLTemporalDecoder

        super().__init__()
        self.config = config
        self.lean = True
        """Decode without gradient by our executor (execution.py), the same within rounding."""
        self.vae: Any = vae or AutoencoderKLTemporalDecoder.from_config(dict(config.vae))

    @property
    def digest(self) -> str:
        """Name of the latent space."""
        return self.config.autoencoder

    @property
    def dtype(self) -> torch.dtype:
        return next(self.vae.parameters()).dtype

    def encode(self, video: Tensor) -> Tensor:
        """(..., 3, H, W) in [-1, 1] -> latents (..., C, H/8, W/8), float32."""
        h, w = video.shape[-2:]
        if h % 8 or w % 8:
            raise MismatchError(
                f"frames are {h}x{w}, the autoencoder expects multiples of 8; resize them"
            )
        flat = video.flatten(0, -4).to(self.dtype)
        parts = [self.vae.encode(part).latent_dist.mode() for part in flat.split(IMAGES_AT_ONCE)]
        latents = torch.cat(parts).float() * self.config.scaling_factor
        return latents.reshape(*video.shape[:-3], *latents.shape[1:])

    def decode(self, latents: Tensor, views: Sequence[int] | None = None) -> Tensor:
        """(B, T, V, C, h, w) -> (B, T, V, 3, 8h, 8w), about [-1, 1], float32.

        views: indices of those that are wanted; the others are not decoded where views are apart.
        """
        b, t, v = latents.shape[:3]
        wanted = list(range(v)) if views is None else list(views)
        scaled = latents.to(self.dtype) / self.config.scaling_factor
        if self.config.decoding == "views":
            video = scaled[:, :, wanted].transpose(1, 2).flatten(0, 1)  # (B*V, T, C, h, w)
            frames = self._videos(video)
            return frames.unflatten(0, (b, len(wanted))).transpose(1, 2)
        flat = scaled.transpose(1, 2).flatten(1, 2)  # (B, V*T, C, h, w), a view after the other
        chunks = [self._videos(chunk) for chunk in flat.split(self.config.decode_chunk, dim=1)]
        frames = torch.cat(chunks, dim=1).unflatten(1, (v, t))
        return frames[:, wanted].transpose(1, 2)

    def _videos(self, latents: Tensor) -> Tensor:
        """Each row one video: (N, T, C, h, w) -> (N, T, 3, H, W)."""
        t = latents.shape[1]
        rows = max(1, IMAGES_AT_ONCE // t)
        lean = self.lean and not torch.is_grad_enabled()
        parts = []
        for part in latents.split(rows):
            flat = part.flatten(0, 1)
            if lean:
                images = decode(self.vae.decoder, flat, t)
            else:
                images = self.vae.decode(flat, num_frames=t).sample
            parts.append(images.unflatten(0, (-1, t)))
        return torch.cat(parts).float()

    @classmethod
    def load(cls, folder: str | Path) -> SvdAutoencoder:
        """From the checkpoint folder of a Ctrl-World; raises CheckpointError if it has none."""
        header = checkpoint.read_header(folder, kind=KIND)
        with checkpoint.fitting(folder):
            config = CtrlWorldConfig.from_json(header["config"])
            with Bounded.by_header(folder, header), torch.device("meta"):
                model = cls(config)
            tensors = dict(checkpoint.stream(folder, kind=KIND, prefix=PREFIX))
            if not tensors:
                raise CheckpointError(
                    f"{folder} holds no autoencoder (no tensor begins with {PREFIX!r}); save it "
                    "with one, or import the release again"
                )
            check_weights(model.vae.state_dict(), tensors, folder)
            model.vae.load_state_dict(tensors, assign=True)
        return model.eval().requires_grad_(False)
