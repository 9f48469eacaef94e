"""Training of the world model from an episode store.

In: a store of episodes (``data/store/episodes.py``) and an autoencoder, or a decoder of latents
that are cached beside the store. Out: a checkpoint folder for ``WorldModel.load``, with metrics
as JSON lines, sample videos, and a state to go on from. Frames are decoded once; latents are
computed once and cached beside the run.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldeval.data.fit import check_made_for, check_store, robot_of_checkpoint
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.learning.resuming import best_so_far
from worldeval.robots import RobotSpec
from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.autoencoder_training import check_size, jsonable
from worldeval.world_model.backbone import BackboneConfig
from worldeval.world_model.clips import (
    ClipSource,
    FrameTable,
    cache_latents,
    given_latents,
    joined,
    load_frames,
    measure_denoiser,
)
from worldeval.world_model.denoiser import DenoiserConfig, draw_sigma, weighted_error
from worldeval.world_model.few_recordings.clip_augmentation import Augmentation
from worldeval.world_model.few_recordings.decoder import LatentDecoder
from worldeval.world_model.few_recordings.own_replays import STILL, OwnReplays, measure_trust
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.world_model.loading import latents_of, open_codec
from worldeval.world_model.model import Context, WorldModel, WorldModelConfig, degrade
from worldeval.world_model.sampler import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class WorldModelTrainConfig:
    """Settings of ``worldeval train world-model``."""

    store: str
    """Folder of the store to train on."""
    autoencoder: str
    """Checkpoint of the autoencoder (`worldeval train autoencoder`)."""
    also: tuple[str, ...] = ()
    """More stores to train on, of the same robot."""
    validation: str | None = None
    """Store of held-out episodes; None validates on nothing."""
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(widths=(64, 128)))
    denoiser: DenoiserConfig | None = None
    """None measures the spread of the data and takes the default noise levels around it."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=60_000, batch=16))
    memory_slots: int = 3
    """Past frames shown to the model beside the current one."""
    warp_depths_m: tuple[float, ...] = (0.25, 0.45)
    """Where all cameras are calibrated; elsewhere nothing is warped and no geometry shown."""
    warp_memory: bool = True
    """Show each frame the nearest remembered one too, warped to its camera."""
    memory_mix: tuple[tuple[str, float], ...] = (("pose", 0.6), ("strided", 0.25), ("none", 0.15))
    """Retrieval strategies seen in training and their shares."""
    expectation: bool = False
    """Learn only what is to be expected, at the sampler's sigma_max with the frames to come shown
    as zeros: all that few episodes can teach. Sampled in one step with noise_scale "none"."""
    relative: bool = False
    """Count an error against how far the view is from the first memory frame, as a gain in dB over
    it does: to disturb a view at rest then costs as much as to miss a motion."""
    motion_weight: float = 0.0
    """Further weight of an error where the view changes, in units of the clip's own mean change: a
    puck of a few pixels would else count no more than the table beside it."""
    current_noise: float = 0.25
    """Conditioning noise of a sample is uniform below this (in units of the latents' spread)."""
    imagined: tuple[str, ...] = ()
    """Stores of imagined replays of training episodes (``worldeval replay``), matched by start_id:
    their frames then serve as conditioning with the true future as target, which teaches the model
    to correct its own drift."""
    imagined_share: float = 0.3
    """Share of the samples whose conditioning frames are imagined ones, where there are any."""
    own_replays_every: int = 0
    """Steps after which the model replays its training episodes in latents, and these then serve as
    ``imagined`` ones do; 0 for never."""
    held_out: tuple[str, ...] = ()
    """Keys of episodes of ``store`` that it is stopped by instead of trained on: their replays in
    latents are measured at every validation, and the best weights are what is kept."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    memory: str = "pose"
    """How past frames are picked when the model is used."""
    conditioning_noise: float = 0.05
    """Noise on the conditioning frames when the model is used, in units of the latents'
    spread."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    max_episodes: int | None = None
    """Learn from the first so many episodes; None takes all."""


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
    expectation: bool = False,
    relative: bool = False,
    motion_weight: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """EDM loss of ``rows`` of a global batch of ``count``; (scalar, mean error per view (V,)).

    All randomness is drawn for the global batch and then cut, so that the loss does not depend on
    how many processes share it. expectation, relative, motion_weight: as in
    ``WorldModelTrainConfig``.
    """

    def normal(like: Tensor) -> Tensor:
        return torch.randn((count, *like.shape[1:]), generator=generator)[rows]

    weight = 1 + motion_weight * moved(context.current, future).to(device) if motion_weight else 1.0
    level = (torch.rand(count, generator=generator) * noise_below)[rows]
    still = context.memory[:, :1] if context.memory.shape[1] else context.current[:, None]
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
    if expectation:
        noisy, sigma = (
            torch.zeros_like(noisy),
            torch.full_like(sigma, model.config.sampler.sigma_max),
        )
    error = weighted_error(module(prepared, noisy, sigma), clean, sigma, model.config.denoiser)
    by_view = error.detach().mean(dim=(0, 1, 3, 4, 5))
    error = error * weight
    if relative:
        change = (future - still).square().mean(dim=(1, 3, 4, 5), keepdim=True)
        error = error * (model.config.denoiser.sigma_data**2 / (change + STILL)).to(device)
    return error.mean(), by_view


def moved(current: Tensor, future: Tensor) -> Tensor:
    """Where a clip changes: (B, F, V, 1, h, w), mean 1 over a clip, at most 8.

    current: (B, V, C, h, w), future: (B, F, V, C, h, w) latents.
    """
    change = (future - current[:, None]).square().mean(3, keepdim=True).sqrt()
    return (change / change.mean(dim=(1, 2, 3, 4, 5), keepdim=True).clamp(min=1e-6)).clamp(max=8.0)


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
        for folder in (config.store, *config.also, config.validation, *config.imagined)
        if folder is not None
    }
    for store in stores.values():
        check_store(store, robot)
    for what, folder in (("autoencoder", config.autoencoder), ("world model", start_from)):
        if folder is not None:
            kept = robot_of_checkpoint(folder)
            check_made_for(f"{what} {folder}", kept, robot, rates=False)
    autoencoder, digest = _codec(config), latents_of(Path(config.autoencoder))
    check_size(robot.image_size, autoencoder.config.image_size)
    known = stores[config.store].keys
    if unknown := sorted(set(config.held_out) - known):
        shown = sorted(known)[:3]
        raise DataError(f"held_out has {unknown}, {config.store} has such as {shown}")
    table, latents = _latents_of_store(config, stores[config.store], autoencoder, digest, out)
    for number, folder in enumerate(config.also):
        name = f"latents-{number + 1}.npy"
        more = _latents_of_store(config, stores[folder], autoencoder, digest, out, name=name)
        table, latents = joined(table, more[0]), np.concatenate([latents, more[1]])
    torch.manual_seed(config.loop.seed)
    # What a camera sees is told from where the hand is.
    placed = all(camera.mount != "uncalibrated" for camera in robot.cameras)
    calibrated = placed and bool(robot.hands)
    settings = WorldModelConfig.for_robot(
        robot,
        latent_channels=autoencoder.config.latent_channels,
        latent_size=autoencoder.config.latent_size,
        memory_slots=config.memory_slots,
        geometry=calibrated and robot.workspace_m is not None,
        warp_depths_m=config.warp_depths_m if calibrated else (),
        warp_memory=config.warp_memory and calibrated,
        angles=robot.angles,
        memory=config.memory,
        conditioning_noise=config.conditioning_noise,
        sampler=config.sampler,
        autoencoder=digest,
        backbone=config.backbone,
        denoiser=config.denoiser or measure_denoiser(table, latents, robot.frames_per_chunk),
    )
    model = WorldModel(settings)
    if start_from:
        model.adopt(WorldModel.load(start_from))
    model.train().requires_grad_(True)
    source = ClipSource(
        table, np.asarray(latents), model.config, config.memory_mix, config.augmentation
    )
    if isinstance(autoencoder, Autoencoder):
        for folder in config.imagined:
            source.add_imagined(stores[folder], autoencoder)
    started = time.time()
    loop = Loop(_Denoise(model), config.loop, out / "training", shared=True)
    device = loop.device
    views = model.config.views
    drift = OwnReplays(model, source, loop, config.own_replays_every)

    def loss(module: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        drift.refresh(step)
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
            config.expectation,
            config.relative,
            config.motion_weight,
        )
        return value, {f"loss_{v}": float(e) for v, e in zip(views, per_view, strict=True)}

    validation = stores[config.validation] if config.validation else None
    if config.held_out:
        held_out = _latents_of_store(
            config, stores[config.store], autoencoder, digest, out, config.held_out
        )

    def validate(step: int) -> dict[str, Any]:
        if config.held_out:
            with loop.accelerator.autocast():
                trust, row = measure_trust(model, *held_out, config.augmentation.exchangeable)
            if row["gain_db"] > best_so_far(loop.metrics, "gain_db"):
                model.config, before = replace(model.config, trust=trust), model.config
                model.save(out, _card(config, table, loop, started) | {"held_out": row})
                model.config = before
            return row
        model.save(out, _card(config, table, loop, started))
        if validation is None:
            return {}
        return replay_quality(
            FrameRollouts(model, autoencoder, device=device),  # else it would move the model away
            validation,
            episodes=8,
            video=out / "training" / f"{step:07d}.mp4",
        )

    loop.run(loss, validate, title="world model")
    if loop.is_main and not config.held_out:
        with loop.averaged_weights():
            model.save(out, _card(config, table, loop, started))
    return out


def _codec(config: WorldModelTrainConfig) -> Autoencoder | LatentDecoder:
    codec = open_codec(config.autoencoder)
    if not isinstance(codec, Autoencoder | LatentDecoder):
        raise MismatchError(
            f"{config.autoencoder} is of the published model, expected an autoencoder or a decoder "
            "of given latents; Ctrl-World is trained by `worldeval train ctrl-world`"
        )
    if config.imagined and not isinstance(codec, Autoencoder):
        raise ConfigError(
            f"imagined is {config.imagined}, but {config.autoencoder} cannot encode frames; leave "
            "it out and set own_replays_every"
        )
    return codec


def _latents_of_store(
    config: WorldModelTrainConfig,
    store: EpisodeStore,
    codec: Autoencoder | LatentDecoder,
    digest: str,
    out: Path,
    keys: Collection[str] = (),
    name: str = "latents.npy",
) -> tuple[FrameTable, np.ndarray]:
    """Frames with their latents (N, V, C, h, w): of ``keys``, by default all but those held out.

    What an autoencoder makes of the frames; for a codec that cannot encode, what came with them.
    """
    wanted = keys or [key for key in store.keys if key not in config.held_out]
    encodes = isinstance(codec, Autoencoder)
    table = load_frames(store, config.max_episodes, keys_wanted=wanted, pixels=encodes)
    if not isinstance(codec, Autoencoder):
        return table, given_latents(table, store, digest)
    path = out / "training" / ("held-out.npy" if keys else name)
    latents = cache_latents(table, codec, path, digest)
    table.frames = np.empty((len(table.frames), 0), np.uint8)  # gigabytes that nobody needs now
    return table, latents


def _card(config: WorldModelTrainConfig, table: FrameTable, loop: Loop, started: float) -> dict:
    return {
        "train": jsonable(config),
        "episodes": len(table.keys),
        "steps": loop.step,
        "clips": loop.step * config.loop.batch,
        "seconds_this_run": time.time() - started,
        "device": str(loop.device),
        "processes": loop.accelerator.num_processes,
        "threads": config.loop.threads,
    }
