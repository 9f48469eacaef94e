"""Autoregression: the world model rolled out on its own frames, a batch of rollouts at once.

In: start frames and poses, then commanded poses chunk by chunk. Out: latents and decoded frames,
with what was retrieved. Each rollout has its own memory bank and its own generator, so its frames
do not depend on which others share the batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from worldeval.data.video import to_frames, to_model
from worldeval.errors import MismatchError, WorldError
from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.memory import MemoryBank, Strategy, retrieve, strategy
from worldeval.world_model.model import Context, WorldModel, degrade
from worldeval.world_model.sampler import SamplerConfig


class Dreamer:
    """Holds the state of a batch of imagined rollouts.

    memory: name of a strategy or a strategy; sampler: None takes the checkpoint's.
    """

    def __init__(
        self,
        model: WorldModel,
        autoencoder: Autoencoder,
        *,
        memory: str | Strategy | None = None,
        sampler: SamplerConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.model = model.to(device)
        self.autoencoder = autoencoder.to(device)
        self.device = torch.device(device)
        self.sampler = sampler or model.config.sampler
        chosen = model.config.memory if memory is None else memory
        self.memory_name = chosen if isinstance(chosen, str) else type(chosen).__name__
        self.choose = strategy(chosen) if isinstance(chosen, str) else chosen
        self._banks: list[MemoryBank] = []
        self._physical: list[list[np.ndarray]] = []
        self._generators: list[torch.Generator] = []

    @torch.inference_mode()
    def reset(self, frames: np.ndarray, poses: np.ndarray, seeds: Sequence[int]) -> None:
        """frames (B, V, H, W, C) uint8, poses (B, P) physical, one seed a rollout."""
        count = len(frames)
        self._banks = [MemoryBank() for _ in range(count)]
        self._physical = [[] for _ in range(count)]
        self._generators = [torch.Generator() for _ in range(count)]
        self.reset_rows(range(count), frames, poses, seeds)

    @torch.inference_mode()
    def reset_rows(
        self, rows: Sequence[int], frames: np.ndarray, poses: np.ndarray, seeds: Sequence[int]
    ) -> None:
        """Begin the rollouts ``rows`` of the batch anew; the others go on untouched."""
        views = len(self.model.config.views)
        if frames.shape[1] != views:
            raise MismatchError(
                f"start frames have {frames.shape[1]} views, the world model was trained on "
                f"{views} ({', '.join(self.model.config.views)})"
            )
        if poses.shape[-1] != len(self.model.config.pose_low):
            raise MismatchError(
                f"start poses have {poses.shape[-1]} numbers, the world model expects "
                f"{len(self.model.config.pose_low)}"
            )
        latents = self.autoencoder.encode(torch.from_numpy(to_model(frames)).to(self.device))
        normal = self.model.config.normalizer.normalize(poses)
        for row, latent, pose, raw, seed in zip(rows, latents, normal, poses, seeds, strict=True):
            self._banks[row] = MemoryBank()
            self._banks[row].add(latent.cpu(), pose)
            self._physical[row] = [np.asarray(raw, np.float32)]
            self._generators[row] = torch.Generator().manual_seed(int(seed))

    @torch.inference_mode()
    def step(
        self, poses: np.ndarray, rows: Sequence[int]
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Imagine the frames at ``poses`` (B, F, P) physical for rollouts ``rows``.

        Returns uint8 frames (B, F, V, H, W, C) and one dict a row.
        """
        c = self.model.config
        if poses.shape[1:] != (c.future, len(c.pose_low)):
            raise MismatchError(
                f"commanded poses are {poses.shape[1:]}, this world model imagines {c.future} "
                f"frames of {len(c.pose_low)} numbers at a time"
            )
        began = time.perf_counter()
        memory, current, valid, clip_poses, retrieved, noises = [], [], [], [], [], []
        for row, ahead in zip(rows, poses, strict=True):
            bank, physical = self._banks[row], self._physical[row]
            indices, good = retrieve(
                self.choose, bank.poses, c.normalizer.normalize(ahead), c.memory_slots
            )
            memory.append(torch.stack([bank.latent(i) for i in indices]))
            current.append(bank.latent(len(bank) - 1))
            valid.append(good)
            clip_poses.append(np.stack([physical[i] for i in indices] + [physical[-1], *ahead]))
            retrieved.append([int(i) for i, ok in zip(indices, good, strict=True) if ok])
            generator = self._generators[row]
            noises.append(
                [torch.randn(t.shape, generator=generator) for t in (current[-1], memory[-1])]
            )
        level = torch.full((len(rows),), c.conditioning_noise)
        context = Context(
            current=degrade(
                torch.stack(current).float(), level, torch.stack([n[0] for n in noises])
            ).to(self.device),
            memory=degrade(
                torch.stack(memory).float(), level, torch.stack([n[1] for n in noises])
            ).to(self.device),
            valid=torch.from_numpy(np.stack(valid)).to(self.device),
            poses=np.stack(clip_poses).astype(np.float32),
            level=level.to(self.device),
        )
        latents = self.model.imagine(
            context, [self._generators[r] for r in rows], self.sampler
        )  # (B, F, V, C, h, w)
        finite = torch.isfinite(latents).flatten(1).all(dim=1)
        if not bool(finite.all()):
            bad = [int(r) for r, ok in zip(rows, finite, strict=True) if not ok]
            raise WorldError(
                f"the world model imagined NaN for rows {bad}; check the checkpoint and the poses"
            )
        modelled = time.perf_counter()
        frames = to_frames(self.autoencoder.decode(latents).cpu().numpy())
        for row, latent, ahead in zip(rows, latents.cpu(), poses, strict=True):
            for frame, pose, raw in zip(latent, c.normalizer.normalize(ahead), ahead, strict=True):
                self._banks[row].add(frame, pose)
                self._physical[row].append(np.asarray(raw, np.float32))
        decoded = time.perf_counter()
        share = 1 / len(rows)
        info = [
            {
                "retrieved": found,
                "memory": self.memory_name,
                "solver": self.sampler.solver,
                "steps": self.sampler.steps,
                "nfe": self.sampler.evaluations,
                "model_s": (modelled - began) * share,
                "decode_s": (decoded - modelled) * share,
            }
            for found in retrieved
        ]
        return frames, info
