"""Fine-tuning of Ctrl-World at full size on stores of episodes with cached latents.

In: a checkpoint that ``worldeval import`` or an earlier training wrote, stores of episodes, and
held-out ones. Out: a checkpoint of the same kind, metrics as JSON lines, sample videos, and a state
to go on from. The backbone and the action encoder are trained; the autoencoder and the text encoder
are frozen, so latents come from the cache and each instruction is encoded once.

The loss is EDM's on the present and the new frames, with noise on what conditions them
(``CtrlWorld.clip_loss``). All its randomness is drawn for the global batch and then cut, so that
the loss does not depend on how many processes and micro-batches share it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldeval.errors import ConfigError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.world_model.ctrl_world.clips import ClipConfig, LatentClips, read_stores
from worldeval.world_model.ctrl_world.held_out import HeldOut
from worldeval.world_model.ctrl_world.model import CtrlWorld, LossDraws
from worldeval.world_model.model import Context


@dataclass(frozen=True, kw_only=True)
class CtrlWorldTrainConfig:
    """Settings of ``worldeval train ctrl-world``."""

    store: tuple[str, ...]
    """Stores of episodes to learn from, with latents (``worldeval prepare``)."""
    start_from: str
    """Checkpoint that ``worldeval import ctrl-world``, ``import svd`` or a training wrote."""
    validation: tuple[str, ...] = ()
    """Stores of held-out episodes; none validates on nothing."""
    clips: ClipConfig = field(default_factory=ClipConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=100_000,
            batch=64,
            learning_rate=1e-5,
            warmup=500,
            decay=0.1,
            weight_decay=1e-2,
            beta2=0.999,
            ema=0.9995,
            save_every_s=1800,
            validate_every=2000,
        )
    )
    validation_clips: int = 64
    """Clips of the held-out episodes, and their noise, that every validation loss is taken over."""
    replays: int = 4
    """Held-out episodes that each validation imagines from their first frame; 0 for none."""
    replay_chunks: int = 10
    """How far."""
    replay_steps: int | None = None
    """Steps of the sampler then; None takes the checkpoint's."""
    max_episodes: int | None = None
    """So many of each store; all, if not given."""

    def __post_init__(self) -> None:
        if not self.store:
            raise ConfigError("store names no store of episodes; give one or more")
        for name in ("validation_clips", "replay_chunks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 1 or more")
        if self.replays < 0:
            raise ConfigError(f"replays is {self.replays!r}, expected 0 or more")


class Learned(nn.Module):
    """The parts of a ``CtrlWorld`` that learn, with its loss as ``forward``, which data parallelism
    wraps; its frozen parts are neither averaged nor saved with the state."""

    def __init__(self, model: CtrlWorld) -> None:
        super().__init__()
        self.unet, self.action_encoder = model.unet, model.action_encoder
        self._whole = (model,)  # in a tuple, so that it is no part of this module
        self.requires_grad_(True).train()

    def forward(self, context: Context, future: Tensor, draws: LossDraws) -> tuple[Tensor, Tensor]:
        return self._whole[0].clip_loss(context, future, draws)


def train_ctrl_world(config: CtrlWorldTrainConfig, out: str | Path) -> Path:
    """Fine-tune ``config.start_from`` and save to ``out``; returns ``out``."""
    out = Path(out)
    model = CtrlWorld.load(config.start_from, dtype=torch.float32)
    episodes = read_stores(config.store, model.config, config.max_episodes)
    clips = LatentClips(episodes, model.config, config.clips)
    learned = Learned(model)
    loop = Loop(
        learned,
        config.loop,
        out / "training",
        settings={**_jsonable(config), "loop": config.loop.identity()},
        shared=True,
    )
    model.to(loop.device)
    held_out = HeldOut(config, model, loop) if config.validation and loop.is_main else None

    def loss(module: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        value, per_view = module(
            *draw(clips, config.loop.batch, generator, loop.share, loop.device)
        )
        names = (f"loss_{view}" for view in model.config.views)
        return value, dict(zip(names, per_view.tolist(), strict=True))

    def save() -> None:
        card = {
            "train": _jsonable(config),
            "episodes": len(episodes),
            "episodes_too_short": clips.too_short,
            "frames_outside_pose_range": round(clips.outside, 4),
            "steps": loop.step,
            "clips": loop.step * config.loop.batch,
            "seconds": round(loop.seconds, 1),
            "device": str(loop.device),
            "processes": loop.accelerator.num_processes,
            "torch": torch.__version__,
        }
        model.save(out, autoencoder=config.start_from, card=card)

    def validate(step: int) -> dict[str, Any]:
        if step:
            save()
        return {} if held_out is None else held_out.measure(learned, step)

    loop.run(loss, validate, title="Ctrl-World", validate_first=True)
    return out


def draw(
    clips: LatentClips,
    count: int,
    generator: torch.Generator,
    rows: slice,
    device: torch.device,
) -> tuple[Context, Tensor, LossDraws]:
    """``rows`` of a global batch of ``count`` clips and of the randomness in their loss."""
    context, future = clips.draw(count, generator, rows)
    draws = LossDraws.draw(count, clips.model, generator).rows(rows)
    context = replace(
        context,
        current=context.current.to(device),
        memory=context.memory.to(device),
        valid=context.valid.to(device),
        level=context.level.to(device),
    )
    return context, future.to(device), draws.to(device)


def _jsonable(config: CtrlWorldTrainConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return found
