"""Fitting a ``LatentDecoder``: frames with the latents that came with them, to a checkpoint.

In: frames and latents of episodes, and some that are held out. Out: a folder for
``LatentDecoder.load``, of the step that was best on what was held out, with metrics as JSON lines.
Decoder and gate learn together from pieces of views: the decoder to give the piece back, the gate
to add what the decoder misses of an earlier frame where that helps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldeval.data.video import to_model
from worldeval.errors import ConfigError, DataError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.learning.resuming import best_so_far
from worldeval.metrics.psnr import psnr_of_mse
from worldeval.world_model.autoencoder import reconstruction_loss
from worldeval.world_model.few_recordings.decoder import SCALE, LatentDecoder, LatentDecoderConfig


@dataclass(frozen=True, kw_only=True)
class DecoderTrainConfig:
    """How a latent decoder is fitted."""

    model: LatentDecoderConfig = field(default_factory=LatentDecoderConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=3000, batch=16, learning_rate=1e-3, ema=0.995, validate_every=500
        )
    )
    crop: tuple[int, int] = (12, 20)
    """Latent pixels of the piece of a view that a sample is."""
    latent_noise: float = 0.2
    """Noise on the latents of a sample is uniform below this, so that a world model's small errors
    stay small in pixels and leave the gate open."""
    reach: int = 40
    """Frames between a sample and the frame that stands for its start, at most."""

    def __post_init__(self) -> None:
        if not all(0 < c <= s for c, s in zip(self.crop, self.model.latent_size, strict=True)):
            raise ConfigError(
                f"crop is {self.crop}, expected from 1 to the latents' {self.model.latent_size}"
            )
        if self.latent_noise < 0 or self.reach < 1:
            raise ConfigError(
                f"latent_noise is {self.latent_noise} and reach {self.reach}, expected at least 0 "
                "and 1"
            )


@dataclass(frozen=True, kw_only=True)
class LatentVideos:
    """Frames and their latents, episode after episode.

    frames: (N, V, H, W, 3) uint8; latents: (N, V, C, h, w); first: (E+1,) row of each episode's
    first frame, and the end.
    """

    frames: np.ndarray
    latents: np.ndarray
    first: np.ndarray

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.latents) or self.first[-1] != len(self.frames):
            raise DataError(
                f"{len(self.frames)} frames, {len(self.latents)} latents and episodes of "
                f"{self.first[-1]} frames in all, expected as many of each; compute the latents of "
                "all episodes with `worldeval prepare`"
            )
        height, width = (SCALE * s for s in self.latents.shape[-2:])
        if self.frames.shape[2:4] != (height, width):
            raise DataError(
                f"frames are {self.frames.shape[2:4]}, latents {self.latents.shape[-2:]} are of "
                f"{(height, width)}"
            )

    def episodes(self, picked: Sequence[int]) -> LatentVideos:
        """Some of the episodes, by number."""
        rows = [np.arange(self.first[e], self.first[e + 1]) for e in picked]
        return LatentVideos(
            frames=self.frames[np.concatenate(rows)],
            latents=self.latents[np.concatenate(rows)],
            first=np.concatenate([[0], np.cumsum([len(r) for r in rows])]),
        )

    def start_of(self, rows: np.ndarray) -> np.ndarray:
        """First row of the episodes that rows belong to."""
        return self.first[np.searchsorted(self.first, rows, side="right") - 1]


def train_decoder(
    config: DecoderTrainConfig,
    videos: LatentVideos,
    held_out: LatentVideos,
    out: str | Path,
) -> Path:
    """Fit a decoder on ``videos`` and keep in ``out`` what was best on ``held_out``."""
    out = Path(out)
    torch.manual_seed(config.loop.seed)
    model = LatentDecoder(config.model)
    loop = Loop(model, config.loop, out / "training", settings=_settings(config))
    views = videos.latents.shape[1]

    def loss(module: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        raw: LatentDecoder = loop.raw  # type: ignore[assignment]
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        picks = _Picks.draw(rng, config, videos, views)
        video, latents = picks.cut(videos, picks.rows, loop.share)
        start_video, start = picks.cut(videos, picks.starts, loop.share)
        level = torch.from_numpy(rng.random((config.loop.batch, 1, 1, 1), np.float32))
        noise = torch.randn((config.loop.batch, *latents.shape[1:]), generator=generator)
        latents = latents + (config.latent_noise * level * noise)[loop.share]
        video, latents, start_video, start = (
            t.to(loop.device) for t in (video, latents, start_video, start)
        )
        decoded = raw.decode(latents)
        with torch.no_grad():
            missed = start_video - raw.decode(start)
        # the gate is judged on the decoder as it is; the decoder owes it nothing
        beside = decoded.detach() + raw.openness(latents, start) * missed
        value = reconstruction_loss(decoded.float(), video)
        gated = (beside.float() - video).square().mean()
        return value + 2 * gated, {"mse": float((decoded - video).square().mean().detach())}

    def validate(step: int) -> dict[str, Any]:
        row = decoder_quality(model, held_out)
        best = best_so_far(loop.metrics, "psnr_beside")
        if row["psnr_beside"] > best:
            model.save(out, {"train": _settings(config), "step": step, "held_out": row})
        return row

    loop.run(loss, validate, title="decoder")
    return out


@dataclass(frozen=True, kw_only=True)
class _Picks:
    """Pieces of views: a batch of them at some frames and at the frames that stand for a start."""

    rows: np.ndarray
    starts: np.ndarray
    view: np.ndarray
    corner: np.ndarray
    crop: tuple[int, int]

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        config: DecoderTrainConfig,
        videos: LatentVideos,
        views: int,
    ) -> _Picks:
        count = config.loop.batch
        rows = rng.integers(len(videos.frames), size=count)
        room = [s - c + 1 for s, c in zip(config.model.latent_size, config.crop, strict=True)]
        return cls(
            rows=rows,
            starts=np.maximum(
                rows - rng.integers(1, config.reach + 1, size=count), videos.start_of(rows)
            ),
            view=rng.integers(views, size=count),
            corner=np.stack([rng.integers(r, size=count) for r in room], axis=1),
            crop=config.crop,
        )

    def cut(self, videos: LatentVideos, rows: np.ndarray, share: slice) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, 8h, 8w) in [-1, 1] and latents (N, C, h, w) of the pieces at ``rows``."""
        h, w = self.crop
        pixels, latents = [], []
        for row, view, (y, x) in zip(
            rows[share], self.view[share], self.corner[share], strict=True
        ):
            latents.append(videos.latents[row, view, :, y : y + h, x : x + w])
            pixels.append(
                videos.frames[row, view, SCALE * y : SCALE * (y + h), SCALE * x : SCALE * (x + w)]
            )
        return (
            torch.from_numpy(to_model(np.stack(pixels))),
            torch.from_numpy(np.stack(latents).astype(np.float32)),
        )


@torch.inference_mode()
def decoder_quality(model: LatentDecoder, videos: LatentVideos, every: int = 4) -> dict[str, Any]:
    """PSNR in dB, mean over every ``every``-th frame of all views: decoder alone, beside the start.

    The start frames themselves are left out: beside themselves they are exact.
    """
    device = next(model.parameters()).device
    rows = np.setdiff1d(np.arange(0, len(videos.frames), every), videos.first)
    alone, beside = [], []
    for row, first in zip(rows, videos.start_of(rows), strict=True):
        truth, start_video = (
            torch.from_numpy(to_model(videos.frames[i])).to(device) for i in (row, first)
        )
        latents, start = (
            torch.from_numpy(videos.latents[i].astype(np.float32)).to(device) for i in (row, first)
        )
        alone.append(_psnr(model.decode(latents), truth))
        seen = model.decode_beside(latents[None, None], start[None], start_video[None])
        beside.append(_psnr(seen[0, 0], truth))
    return {"psnr_alone": float(np.mean(alone)), "psnr_beside": float(np.mean(beside))}


def _psnr(decoded: Tensor, video: Tensor) -> list[float]:
    """PSNR in dB of each view (V, 3, H, W) in [-1, 1] (peak to peak 2), clipped to that range."""
    error = (decoded.clamp(-1, 1) - video).square().mean(dim=(1, 2, 3))
    most = 10 * np.log10(4 / 1e-8)  # what an exact view counts in a mean
    found: list[float] = psnr_of_mse(error.cpu().numpy(), peak=2, most=most).tolist()
    return found


def _settings(config: DecoderTrainConfig) -> dict[str, Any]:
    model = {name: value for name, value in asdict(config.model).items() if name != "rest"}
    return json.loads(json.dumps({"model": model, "crop": config.crop}))  # rest is set afterwards
