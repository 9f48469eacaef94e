"""Training of the autoencoder and of the world model from an episode store.

In: a store of episodes (``data/episodes.py``). Out: checkpoint folders for ``Autoencoder.load`` and
``WorldModel.load``, with metrics as JSON lines, sample videos, and a state to go on from. Frames
are decoded once; latents are computed once and cached beside the run.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldeval.data import checkpoint
from worldeval.data.episodes import EpisodeStore
from worldeval.data.fit import check_store
from worldeval.data.normalize import ChannelNormalizer
from worldeval.data.video import to_model
from worldeval.errors import MismatchError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.robots import RobotSpec
from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig, reconstruction_loss
from worldeval.world_model.backbone import BackboneConfig
from worldeval.world_model.clips import (
    ClipSource,
    FrameTable,
    batched,
    cache_latents,
    load_frames,
    measure_denoiser,
    step_rows,
)
from worldeval.world_model.denoiser import DenoiserConfig, draw_sigma, weighted_error
from worldeval.world_model.dreamer import Dreamer
from worldeval.world_model.model import Context, WorldModel, WorldModelConfig, degrade


@dataclass(frozen=True, kw_only=True)
class AutoencoderTrainConfig:
    """Settings of ``worldeval train autoencoder``."""

    store: str
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=6000, batch=48, learning_rate=1e-3, ema=0.998)
    )
    latent_noise: float = 0.1
    """Noise on the latents while training, as a share of their spread."""
    max_episodes: int | None = None


@dataclass(frozen=True, kw_only=True)
class WorldModelTrainConfig:
    """Settings of ``worldeval train world-model``."""

    store: str
    autoencoder: str
    validation: str | None = None
    """Store of held-out episodes; None validates on nothing."""
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(widths=(64, 128)))
    denoiser: DenoiserConfig | None = None
    """None measures the spread of the data and takes the default noise levels around it."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=60_000, batch=16))
    memory_slots: int = 3
    warp_depths_m: tuple[float, ...] = (0.25, 0.45)
    memory_mix: tuple[tuple[str, float], ...] = (("pose", 0.6), ("strided", 0.25), ("none", 0.15))
    """Retrieval strategies seen in training and their shares."""
    current_noise: float = 0.25
    """Conditioning noise of a sample is uniform below this (in units of the latents' spread)."""
    imagined: tuple[str, ...] = ()
    """Stores of imagined replays of training episodes (``worldeval replay``), matched by start_id:
    their frames then serve as conditioning with the true future as target, which teaches the model
    to correct its own drift."""
    imagined_share: float = 0.3
    max_episodes: int | None = None


def train_autoencoder(config: AutoencoderTrainConfig, out: str | Path) -> Path:
    """Train, normalise the latents, save to ``out``; returns ``out``."""
    out = Path(out)
    table = load_frames(EpisodeStore.open(config.store), config.max_episodes)
    _check_size(table.frames.shape[2:4], config.model.image_size)
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
            "train": _jsonable(config),
            "episodes": len(table.keys),
            "psnr_train": quality,
            "seconds": time.time() - started,
            "threads": config.loop.threads,
        }
        model.save(out, card)
    return out


def clip_loss(
    model: WorldModel,
    module: nn.Module,
    context: Context,
    future: Tensor,
    noise_below: float,
    generator: torch.Generator,
    count: int,
    rows: slice,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """EDM loss of ``rows`` of a global batch of ``count``; (scalar, mean error per view (V,)).

    All chance is drawn for the global batch and then cut, so that the loss does not depend on how
    many processes share it.
    """

    def normal(like: Tensor) -> Tensor:
        return torch.randn((count, *like.shape[1:]), generator=generator)[rows]

    level = (torch.rand(count, generator=generator) * noise_below)[rows]
    context = replace(
        context,
        level=level.to(device),
        valid=context.valid.to(device),
        current=degrade(context.current, level, normal(context.current)).to(device),
        memory=degrade(context.memory, level, normal(context.memory)).to(device),
    )
    prepared = model.prepare(context)
    clean = future.to(device) - prepared["anchor"]
    sigma = draw_sigma(count, model.config.denoiser, generator)[rows].to(device)
    noise = normal(future).to(device)
    noisy = clean + sigma.reshape(-1, 1, 1, 1, 1, 1) * noise
    error = weighted_error(module(prepared, noisy, sigma), clean, sigma, model.config.denoiser)
    return error.mean(), error.detach().mean(dim=(0, 1, 3, 4, 5))


class _Denoise(nn.Module):
    """Puts ``WorldModel.denoise`` behind ``forward``, which data parallelism wraps."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, prepared: dict[str, Tensor], x: Tensor, sigma: Tensor) -> Tensor:
        return self.model.denoise(prepared, x, sigma)


def train_world_model(
    config: WorldModelTrainConfig,
    out: str | Path,
    robot: RobotSpec,
    start_from: str | None = None,
) -> Path:
    """Train on cached latents and save to ``out``. ``start_from``: checkpoint to fine-tune."""
    from worldeval.world_model.validation import replay_quality

    out = Path(out)
    stores = {
        folder: EpisodeStore.open(folder)
        for folder in (config.store, config.validation, *config.imagined)
        if folder is not None
    }
    for store in stores.values():
        check_store(store, robot)
    autoencoder = Autoencoder.load(config.autoencoder)
    _check_size(robot.image_size, autoencoder.config.image_size)
    table = load_frames(stores[config.store], config.max_episodes)
    digest = checkpoint.digest(config.autoencoder)
    latents = cache_latents(table, autoencoder, out / "training" / "latents.npy", digest)
    torch.manual_seed(config.loop.seed)
    settings = WorldModelConfig.for_robot(
        robot,
        latent_channels=autoencoder.config.latent_channels,
        latent_size=autoencoder.config.latent_size,
        memory_slots=config.memory_slots,
        warp_depths_m=config.warp_depths_m,
        autoencoder=digest,
        backbone=config.backbone,
        denoiser=config.denoiser or measure_denoiser(table, latents, robot.frames_per_chunk),
    )
    model = WorldModel(settings)
    if start_from:
        model.adopt(WorldModel.load(start_from))
    model.train().requires_grad_(True)
    source = ClipSource(table, np.asarray(latents), model.config, config.memory_mix)
    for folder in config.imagined:
        source.add_imagined(stores[folder], autoencoder)
    del table.frames
    started = time.time()
    loop = Loop(_Denoise(model), config.loop, out / "training")
    device = loop.device
    views = model.config.views

    def loss(module: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        share = config.imagined_share if source.alternative else 0.0
        context, future = source.draw(config.loop.batch, generator, loop.share, share)
        value, per_view = clip_loss(
            model,
            module,
            context,
            future,
            config.current_noise,
            generator,
            config.loop.batch,
            loop.share,
            device,
        )
        return value, {f"loss_{v}": float(e) for v, e in zip(views, per_view, strict=True)}

    validation = stores[config.validation] if config.validation else None

    def validate(step: int) -> dict[str, Any]:
        model.save(out, _card(config, table, loop, started))
        if validation is None:
            return {}
        return replay_quality(
            Dreamer(model, autoencoder, device=device),  # else it would move the model away
            validation,
            episodes=8,
            video=out / "training" / f"{step:07d}.mp4",
        )

    loop.run(loss, validate, title="world model")
    with loop.averaged_weights():
        model.save(out, _card(config, table, loop, started))
    return out


def _card(config: WorldModelTrainConfig, table: FrameTable, loop: Loop, started: float) -> dict:
    return {
        "train": _jsonable(config),
        "episodes": len(table.keys),
        "steps": loop.step,
        "clips": loop.step * config.loop.batch,
        "seconds_this_run": time.time() - started,
        "device": str(loop.device),
        "processes": loop.accelerator.num_processes,
        "threads": config.loop.threads,
    }


def _psnr(decoded: Tensor, video: Tensor) -> float:
    """PSNR in dB of tensors in [-1, 1] (peak to peak 2)."""
    return float(10 * torch.log10(4 / (decoded.detach() - video).square().mean()))


def _check_size(found: tuple[int, ...], expected: tuple[int, int]) -> None:
    if tuple(found) != tuple(expected):
        raise MismatchError(
            f"frames are {tuple(found)}, the autoencoder expects {tuple(expected)}; record with "
            "that image size or change model.image_size"
        )


def _jsonable(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config), default=str))
