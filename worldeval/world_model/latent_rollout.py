"""Autoregression: the world model rolled out on its own frames, a batch of rollouts at once.

In: start frames and poses, then commanded poses chunk by chunk. Out: latents and decoded frames,
with what was retrieved. Each rollout has its own memory bank and its own generator, so its frames
do not depend on which others share the batch. ``LatentRollouts`` knows latents alone,
``FrameRollouts`` puts frames around them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from worldeval.data.video import to_frames, to_model
from worldeval.errors import MismatchError, WorldError
from worldeval.world_model.interfaces import LatentCodec, LatentModel, StartCodec
from worldeval.world_model.memory import MemoryBank, Strategy, retrieve, strategy
from worldeval.world_model.model import Context, degrade
from worldeval.world_model.sampler import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class RolloutState:
    """All that decides how one imagined rollout goes on: what it has seen, and its randomness."""

    bank: MemoryBank
    generator: Tensor
    instruction: str
    start: np.ndarray | None
    """(V, H, W, C), where frames are decoded beside it."""


class LatentRollouts:
    """Memory and randomness of a batch of imagined rollouts, and the next latents of any of them.

    memory: name of a strategy or a strategy; sampler: None takes the checkpoint's.
    """

    def __init__(
        self,
        model: LatentModel,
        *,
        memory: str | Strategy | None = None,
        sampler: SamplerConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        self.sampler = sampler or model.config.sampler
        chosen = model.config.memory if memory is None else memory
        self.memory_name = chosen if isinstance(chosen, str) else type(chosen).__name__
        self.choose = strategy(chosen, model.config.spec) if isinstance(chosen, str) else chosen
        self.banks: dict[int, MemoryBank] = {}
        self.generators: dict[int, torch.Generator] = {}
        self._instructions: dict[int, str] = {}

    def begin(
        self,
        rows: Sequence[int],
        latents: Tensor,
        poses: np.ndarray,
        seeds: Sequence[int],
        instructions: Sequence[str] | None = None,
    ) -> None:
        """Begin the rollouts ``rows`` at latents (B, V, C, h, w) and physical poses (B, P)."""
        expected = len(self.model.config.pose_low)
        if poses.shape[-1] != expected:
            raise MismatchError(
                f"start poses have {poses.shape[-1]} numbers, the world model expects {expected}"
            )
        texts = [""] * len(seeds) if instructions is None else instructions
        for row, latent, pose, seed, text in zip(
            rows, latents.float().cpu(), poses, seeds, texts, strict=True
        ):
            self.banks[row] = MemoryBank()
            self.banks[row].add(latent, pose)
            self.generators[row] = torch.Generator().manual_seed(int(seed))
            self._instructions[row] = text

    @torch.inference_mode()
    def imagine(self, poses: np.ndarray, rows: Sequence[int]) -> tuple[Tensor, list[list[int]]]:
        """Latents (B, T, V, C, h, w) at ``poses`` (B, T, P), and which frames were looked at.

        The model imagines ``config.future`` frames F at a time. Of fewer, 1 <= T < F, it imagines
        them and the rest with the last pose held, which is dropped: nobody has commanded it.
        ``remember`` makes the T frames part of the rollouts.
        """
        c = self.model.config
        count = poses.shape[1]
        if not 1 <= count <= c.future or poses.shape[2:] != (len(c.pose_low),):
            raise MismatchError(
                f"commanded poses are {poses.shape[1:]}, this world model imagines 1 to {c.future} "
                f"frames of {len(c.pose_low)} numbers at a time"
            )
        memory, current, valid, clip_poses, retrieved, noises = [], [], [], [], [], []
        for row, ahead in zip(rows, poses, strict=True):
            bank, generator = self.banks[row], self.generators[row]
            indices, good = retrieve(
                self.choose,
                c.normalizer.normalize(bank.poses),
                c.normalizer.normalize(ahead),
                c.memory_slots,
            )
            memory.append(torch.stack([bank.latent(i) for i in indices]))
            current.append(bank.latent(-1))
            valid.append(good)
            held = np.repeat(ahead[-1:], c.future - count, axis=0)
            clip_poses.append(np.concatenate([bank.poses[indices], bank.poses[-1:], ahead, held]))
            retrieved.append([int(i) for i, ok in zip(indices, good, strict=True) if ok])
            noises.append(
                [torch.randn(t.shape, generator=generator) for t in (current[-1], memory[-1])]
            )
        level = torch.full((len(rows),), c.conditioning_noise)
        now, past = (
            degrade(torch.stack(clean), level, torch.stack(noise)).to(self.device)
            for clean, noise in zip((current, memory), zip(*noises, strict=True), strict=True)
        )
        context = Context(
            current=now,
            memory=past,
            valid=torch.from_numpy(np.stack(valid)).to(self.device),
            poses=np.stack(clip_poses).astype(np.float32),
            level=level.to(self.device),
            instructions=tuple(self._instructions[row] for row in rows),
        )
        latents = self.model.imagine(context, [self.generators[r] for r in rows], self.sampler)
        latents = latents[:, :count]
        finite = torch.isfinite(latents).flatten(1).all(dim=1)
        if not bool(finite.all()):
            bad = [int(r) for r, ok in zip(rows, finite, strict=True) if not ok]
            raise WorldError(
                f"the world model imagined NaN for rows {bad}; check the checkpoint and the poses"
            )
        return latents, retrieved

    def remember(self, latents: Tensor, poses: np.ndarray, rows: Sequence[int]) -> None:
        """Add imagined frames (B, T, V, C, h, w) at ``poses`` (B, T, P) to the rollouts."""
        for row, latent, ahead in zip(rows, latents.float().cpu(), poses, strict=True):
            for frame, pose in zip(latent, ahead, strict=True):
                self.banks[row].add(frame, pose)


class FrameRollouts:
    """A batch of imagined rollouts as frames. memory, sampler: as for ``LatentRollouts``."""

    def __init__(
        self,
        model: LatentModel,
        autoencoder: LatentCodec,
        *,
        memory: str | Strategy | None = None,
        sampler: SamplerConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.model, self.autoencoder = model, autoencoder
        model.to(device)
        autoencoder.to(device)
        self.device = torch.device(device)
        self.rollouts = LatentRollouts(model, memory=memory, sampler=sampler, device=device)
        self._starts: dict[int, np.ndarray] = {}  # frames, kept where they are decoded beside

    @torch.inference_mode()
    def reset(
        self,
        frames: np.ndarray,
        poses: np.ndarray,
        seeds: Sequence[int],
        instructions: Sequence[str] | None = None,
        latents: np.ndarray | None = None,
    ) -> None:
        """Begin a batch of rollouts.

        frames: (B, V, H, W, C) uint8. poses: (B, P) physical. seeds: one per rollout.
        instructions: one per rollout, for models that read them.
        latents: (B, V, C, h, w) of the frames, where they are known and need not be encoded.
        """
        self.reset_rows(range(len(frames)), frames, poses, seeds, instructions, latents)

    @torch.inference_mode()
    def reset_rows(
        self,
        rows: Sequence[int],
        frames: np.ndarray,
        poses: np.ndarray,
        seeds: Sequence[int],
        instructions: Sequence[str] | None = None,
        latents: np.ndarray | None = None,
    ) -> None:
        """Begin the rollouts ``rows`` of the batch anew; the others go on untouched."""
        views = self.model.config.views
        if frames.shape[1] != len(views):
            raise MismatchError(
                f"start frames have {frames.shape[1]} views, the world model was trained on "
                f"{len(views)} ({', '.join(views)})"
            )
        if latents is None:
            first = self.autoencoder.encode(torch.from_numpy(to_model(frames)).to(self.device))
        else:
            first = torch.from_numpy(np.asarray(latents, np.float32))
        self.rollouts.begin(rows, first, poses, seeds, instructions)
        if self.autoencoder.beside_start:
            self._starts |= dict(zip(rows, frames, strict=True))

    @torch.inference_mode()
    def step(
        self, poses: np.ndarray, rows: Sequence[int]
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Imagine the frames at ``poses`` (B, T, P) physical, T <= F, for rollouts ``rows``.

        Returns uint8 frames (B, T, V, H, W, C) and one dict per row. If it fails, for want of
        memory for example, the rollouts are as they were and can be stepped again.
        """
        began, rollouts = time.perf_counter(), self.rollouts
        states = [rollouts.generators[row].get_state() for row in rows]
        try:
            latents, retrieved = rollouts.imagine(poses, rows)
            modelled = time.perf_counter()
            frames = to_frames(self._decode(latents, rows).cpu().numpy())
        except BaseException:
            for row, state in zip(rows, states, strict=True):
                rollouts.generators[row].set_state(state)
            raise
        rollouts.remember(latents, poses, rows)
        decoded = time.perf_counter()
        share, evaluations = 1 / len(rows), self.model.evaluations(rollouts.sampler)
        info = [
            {
                "retrieved": found,
                "memory": rollouts.memory_name,
                "solver": rollouts.sampler.solver,
                "steps": rollouts.sampler.steps,
                "nfe": evaluations,
                "model_s": (modelled - began) * share,
                "decode_s": (decoded - modelled) * share,
            }
            for found in retrieved
        ]
        return frames, info

    def snapshot(self, row: int) -> RolloutState:
        """The rollout as it is now; costs nothing, later steps do not change it."""
        latent = self.rollouts
        return RolloutState(
            bank=latent.banks[row].upto(len(latent.banks[row])),
            generator=latent.generators[row].get_state().clone(),
            instruction=latent._instructions[row],
            start=self._starts.get(row),
        )

    def restore(self, row: int, state: RolloutState, frames: int | None = None) -> None:
        """Make the rollout ``row`` go on from ``state``, to the bit as it did then.

        frames: how many of its frames count as seen, at least 1; all if None.
        """
        count = len(state.bank) if frames is None else frames
        if not 1 <= count <= len(state.bank):
            raise MismatchError(
                f"the rollout is to go on from {count} frames, expected 1 to {len(state.bank)}"
            )
        latent = self.rollouts
        latent.banks[row] = state.bank.upto(count)
        latent.generators[row] = torch.Generator()
        latent.generators[row].set_state(state.generator)
        latent._instructions[row] = state.instruction
        if state.start is not None:
            self._starts[row] = state.start

    def _decode(self, latents: Tensor, rows: Sequence[int]) -> Tensor:
        """Frames of the new latents (B, T, V, C, h, w) of rollouts ``rows``."""

        def known(frame: int) -> Tensor:
            return torch.stack([self.rollouts.banks[row].latent(frame) for row in rows]).to(latents)

        codec = self.autoencoder
        if codec.beside_start:
            video = torch.from_numpy(to_model(np.stack([self._starts[row] for row in rows])))
            return cast(StartCodec, codec).decode_beside(latents, known(0), video.to(latents))
        if not codec.lead_frames:
            return codec.decode(latents)
        lead = known(-1)[:, None].expand(-1, codec.lead_frames, *[-1] * 4)
        return codec.decode(torch.cat([lead, latents], dim=1))[:, lead.shape[1] :]
