"""Training of the autoencoder from an episode store.

In: a store of episodes (``data/store/episodes.py``). Out: a checkpoint folder for
``Autoencoder.load``, with metrics as JSON lines and a state to go on from.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldeval.data.normalize import ChannelNormalizer
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import to_model
from worldeval.errors import MismatchError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.metrics.psnr import psnr_of_mse
from worldeval.robots import RobotSpec
from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig, reconstruction_loss
from worldeval.world_model.clips import batched, load_frames, step_rows


@dataclass(frozen=True, kw_only=True)
class AutoencoderTrainConfig:
    """Settings of ``worldeval train autoencoder``."""

    store: str
    """Folder of the store whose frames it learns."""
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=6000, batch=48, learning_rate=1e-3, ema=0.998)
    )
    latent_noise: float = 0.1
    """Noise on the latents while training, as a share of their spread."""
    max_episodes: int | None = None
    """Learn from the first so many episodes; None takes all."""


def train_autoencoder(
    config: AutoencoderTrainConfig, out: str | Path, robot: RobotSpec | None = None
) -> Path:
    """Train, normalise the latents, save to ``out``; returns ``out``. robot: whose store it is."""
    out = Path(out)
    table = load_frames(EpisodeStore.open(config.store), config.max_episodes)
    check_size(table.frames.shape[2:4], config.model.image_size)
    flat = table.frames.reshape(-1, *table.frames.shape[2:])  # (N*V, H, W, C)
    torch.manual_seed(config.loop.seed)
    model = Autoencoder(config.model)
    started = time.time()
    loop = Loop(model, config.loop, out / "training")
    size = config.loop.batch

    def loss(module: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        rows = torch.randint(len(flat), (size,), generator=generator)[loop.share]
        video = torch.from_numpy(to_model(flat[rows.numpy()]))
        # a shift by whole pixels, so that the latents do not depend on where the 8x8 grid lies
        dy, dx = torch.randint(-4, 5, (2,), generator=generator).tolist()
        video = video.roll((dy, dx), dims=(2, 3)).to(loop.device)
        raw: Autoencoder = loop.raw  # type: ignore[assignment]
        latents = raw.raw_latents(video)
        spread = latents.detach().std(dim=(0, 2, 3), keepdim=True)
        noise = torch.randn((size, *latents.shape[1:]), generator=generator)[loop.share]
        decoded = raw.decoder(latents + config.latent_noise * spread * noise.to(latents.device))
        value = reconstruction_loss(decoded, video) + 1e-4 * latents.square().mean()
        return value, {"psnr": _psnr(decoded, video)}

    loop.run(loss, title="autoencoder")
    with loop.averaged_weights():
        model.cpu()
        sample = flat[step_rows(len(flat), 4096)]
        model.set_normalizer(ChannelNormalizer.fit(batched(model.raw_latents, to_model(sample))))
        decoded = batched(lambda x: model.decode(model.encode(x)), to_model(sample[:512]))
        quality = {
            "psnr_db": _psnr(torch.from_numpy(decoded), torch.from_numpy(to_model(sample[:512])))
        }
        card = {
            "train": jsonable(config),
            "episodes": len(table.keys),
            "psnr_train": quality,
            "seconds": time.time() - started,
            "threads": config.loop.threads,
        }
        if loop.is_main:
            model.save(out, card, robot)
    return out


def _psnr(decoded: Tensor, video: Tensor) -> float:
    """PSNR in dB of tensors in [-1, 1] (peak to peak 2)."""
    return float(psnr_of_mse(float((decoded.detach() - video).square().mean()), peak=2))


def check_size(found: tuple[int, ...], expected: tuple[int, int]) -> None:
    if tuple(found) != tuple(expected):
        raise MismatchError(
            f"frames are {tuple(found)}, the autoencoder expects {tuple(expected)}; record with "
            "that image size or change model.image_size"
        )


def jsonable(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config), default=str))
