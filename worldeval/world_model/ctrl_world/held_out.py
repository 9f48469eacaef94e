"""How good a Ctrl-World in training is on episodes that it does not see.

In: stores of held-out episodes with latents. Out: a loss that falls only if the model gets better
(the same clips, noise and noise levels each time), and how close replays of whole episodes come to
what was recorded, with a video of imagined (top) beside true (bottom).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from worldeval.data.store.episodes import EpisodeStore
from worldeval.learning.loop import Loop, step_generator
from worldeval.metrics.learned import Lpips, missing
from worldeval.world_model.ctrl_world.clips import LatentClips, read_stores
from worldeval.world_model.ctrl_world.model import CtrlWorld

if TYPE_CHECKING:
    from worldeval.world_model.ctrl_world.training import CtrlWorldTrainConfig

CHANCE = 20_230_517
"""Seed of the clips and the noise of every validation."""


class HeldOut:
    """Measures a model on the held-out stores of a training; lives on the main process alone."""

    def __init__(self, config: CtrlWorldTrainConfig, model: CtrlWorld, loop: Loop) -> None:
        from worldeval.world_model.ctrl_world.training import draw

        self.config, self.model, self.loop = config, model, loop
        self._lpips: Lpips | None = None
        if config.replays:
            lacking = missing()
            self._lpips = None if "LPIPS" in lacking else Lpips.load()
            for line in lacking.values():
                print(line, file=sys.stderr)
        episodes = read_stores(config.validation, model.config, config.max_episodes)
        clips = LatentClips(episodes, model.config, config.clips)
        count = config.validation_clips
        rows = config.loop.batch // (loop.accelerator.num_processes * config.loop.accumulate)
        self._batches = []
        for first in range(0, count, rows):
            part = slice(first, min(first + rows, count))
            generator = step_generator(CHANCE, 0)
            context, future, draws = draw(clips, count, generator, part, torch.device("cpu"))
            # every part of the distribution of noise levels is met equally often
            even = (torch.arange(count, dtype=torch.float64)[part] + 0.5) / count
            draws = replace(draws, sigma=torch.special.ndtri(even).float())
            self._batches.append((context, future, draws))

    def measure(self, module: nn.Module, step: int) -> dict[str, Any]:
        """One row of metrics; ``module`` is the training's, with averaged weights in place."""
        return {**self.loss(module), **self.replays(step)}

    @torch.no_grad()
    def loss(self, module: nn.Module) -> dict[str, float]:
        """Mean loss over all clips, and for each view."""
        device = self.loop.device
        total, by_view, count = 0.0, torch.zeros(len(self.model.config.views)), 0
        for context, future, draws in self._batches:
            here = replace(
                context,
                current=context.current.to(device),
                memory=context.memory.to(device),
                valid=context.valid.to(device),
                level=context.level.to(device),
            )
            with self.loop.accelerator.autocast():
                value, per_view = module(here, future.to(device), draws.to(device))
            rows = len(future)
            total, count = total + float(value) * rows, count + rows
            by_view += per_view.cpu().float() * rows
        names = (f"validation_loss_{view}" for view in self.model.config.views)
        views = dict(zip(names, (by_view / count).tolist(), strict=True))
        return {"validation_loss": total / count, **views}

    def replays(self, step: int) -> dict[str, Any]:
        """PSNR and SSIM of imagined episodes, and a video of them."""
        from worldeval.world_model.ctrl_world.autoencoder import SvdAutoencoder
        from worldeval.world_model.latent_rollout import FrameRollouts
        from worldeval.world_model.validation import replay_quality

        config = self.config
        if not config.replays:
            return {}
        sampler = self.model.config.sampler
        if config.replay_steps is not None:
            sampler = replace(sampler, steps=config.replay_steps)
        frame_rollouts = FrameRollouts(
            self.model,
            SvdAutoencoder.load(config.start_from),
            sampler=sampler,
            device=self.loop.device,
        )
        found: dict[str, Any] = {}
        for number, folder in enumerate(config.validation):
            name = f"{step:07d}" + (f"-{number}" if number else "")
            quality = replay_quality(
                frame_rollouts,
                EpisodeStore.open(folder),
                episodes=config.replays,
                chunks=config.replay_chunks,
                with_ssim=True,
                lpips=self._lpips,
                video=self.loop.folder / f"{name}.mp4",
            )
            found |= {key + (f"_{number}" if number else ""): v for key, v in quality.items()}
        return found
