"""Autoregression: the world model rolled out on its own frames, a batch of rollouts at once.

In: start frames and poses, then commanded poses chunk by chunk. Out: latents and decoded frames,
with what was retrieved. Each rollout has its own memory bank and its own generator, so its frames
do not depend on which others share the batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from worldeval.data.normalize import BoundNormalizer
from worldeval.data.video import to_frames, to_model
from worldeval.errors import MismatchError, WorldError
from worldeval.world_model.memory import MemoryBank, Strategy, retrieve, strategy
from worldeval.world_model.model import Context, degrade
from worldeval.world_model.sampler import SamplerConfig


class DreamConfig(Protocol):
    """What the dreamer asks of a model's configuration; units and ranges as in WorldModelConfig."""

    @property
    def robot(self) -> str: ...
    @property
    def views(self) -> tuple[str, ...]: ...
    @property
    def pose_low(self) -> tuple[float, ...]: ...
    @property
    def pose_high(self) -> tuple[float, ...]: ...
    @property
    def frame_hz(self) -> float: ...
    @property
    def frame_rates(self) -> tuple[float, ...]:
        """Rates in Hz at which its frames may be spaced; ``frame_hz`` is the one of training."""
        ...

    @property
    def memory_slots(self) -> int: ...
    @property
    def future(self) -> int: ...
    @property
    def memory(self) -> str: ...
    @property
    def conditioning_noise(self) -> float: ...
    @property
    def sampler(self) -> SamplerConfig: ...
    @property
    def normalizer(self) -> BoundNormalizer: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def latents(self) -> str:
        """Name of the latents it was trained on, as ``LatentCache`` files them."""
        ...


class DreamModel(Protocol):
    """A world model of any size: the embedded one, or Ctrl-World as published."""

    @property
    def config(self) -> DreamConfig: ...

    def imagine(
        self,
        context: Context,
        generators: Sequence[torch.Generator],
        sampler: SamplerConfig | None = None,
    ) -> Tensor:
        """Latents (B, F, V, C, h, w) of the frames to come, one generator a rollout."""
        ...

    def to(self, device: str | torch.device) -> Any: ...


class LatentCodec(Protocol):
    """Frames to latents and back."""

    lead_frames: int
    """How many frames before the first wanted one ``decode`` should see (temporal decoders)."""
    beside_start: bool
    """Whether it is a ``StartCodec``, to be used as one."""

    def encode(self, video: Tensor) -> Tensor:
        """(..., 3, H, W) in [-1, 1] -> (..., C, h, w)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, T, V, C, h, w) -> (B, T, V, 3, H, W), about [-1, 1]."""
        ...

    def to(self, device: str | torch.device) -> Any: ...


class StartCodec(LatentCodec, Protocol):
    """A codec that makes use of the frame with which a rollout began."""

    def decode_beside(self, latents: Tensor, start: Tensor, start_video: Tensor) -> Tensor:
        """As ``decode``, with the start's latents (B, V, C, h, w) and video (B, V, 3, H, W)."""
        ...


class Dreamer:
    """Holds the state of a batch of imagined rollouts.

    memory: name of a strategy or a strategy; sampler: None takes the checkpoint's.
    """

    def __init__(
        self,
        model: DreamModel,
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
        self.sampler = sampler or model.config.sampler
        chosen = model.config.memory if memory is None else memory
        self.memory_name = chosen if isinstance(chosen, str) else type(chosen).__name__
        self.choose = strategy(chosen) if isinstance(chosen, str) else chosen
        self._banks: list[MemoryBank] = []
        self._instructions: list[str] = []
        self._starts: dict[int, np.ndarray] = {}  # frames, kept where they are decoded beside
        self._generators: list[torch.Generator] = []

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

        frames: (B, V, H, W, C) uint8. poses: (B, P) physical. seeds: one a rollout.
        instructions: one a rollout, for models that read them.
        latents: (B, V, C, h, w) of the frames, where they are known and need not be encoded.
        """
        count = len(frames)
        self._banks = [MemoryBank() for _ in range(count)]
        self._instructions = [""] * count
        self._generators = [torch.Generator() for _ in range(count)]
        self.reset_rows(range(count), frames, poses, seeds, instructions, latents)

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
        c = self.model.config
        if frames.shape[1] != len(c.views):
            raise MismatchError(
                f"start frames have {frames.shape[1]} views, the world model was trained on "
                f"{len(c.views)} ({', '.join(c.views)})"
            )
        if poses.shape[-1] != len(c.pose_low):
            raise MismatchError(
                f"start poses have {poses.shape[-1]} numbers, the world model expects "
                f"{len(c.pose_low)}"
            )
        if latents is None:
            first = self.autoencoder.encode(torch.from_numpy(to_model(frames)).to(self.device))
        else:
            first = torch.from_numpy(np.asarray(latents, np.float32))
        texts = [""] * len(frames) if instructions is None else instructions
        for row, latent, frame, pose, seed, text in zip(
            rows, first.cpu(), frames, poses, seeds, texts, strict=True
        ):
            self._banks[row] = MemoryBank()
            self._banks[row].add(latent, pose)
            self._instructions[row] = text
            if self.autoencoder.beside_start:
                self._starts[row] = frame
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
            bank = self._banks[row]
            indices, good = retrieve(
                self.choose,
                c.normalizer.normalize(bank.poses),
                c.normalizer.normalize(ahead),
                c.memory_slots,
            )
            memory.append(torch.stack([bank.latent(i) for i in indices]))
            current.append(bank.latent(len(bank) - 1))
            valid.append(good)
            clip_poses.append(np.concatenate([bank.poses[indices], bank.poses[-1:], ahead]))
            retrieved.append([int(i) for i, ok in zip(indices, good, strict=True) if ok])
            generator = self._generators[row]
            noises.append(
                [torch.randn(t.shape, generator=generator) for t in (current[-1], memory[-1])]
            )
        level = torch.full((len(rows),), c.conditioning_noise)
        context = Context(
            current=degrade(torch.stack(current), level, torch.stack([n[0] for n in noises])).to(
                self.device
            ),
            memory=degrade(torch.stack(memory), level, torch.stack([n[1] for n in noises])).to(
                self.device
            ),
            valid=torch.from_numpy(np.stack(valid)).to(self.device),
            poses=np.stack(clip_poses).astype(np.float32),
            level=level.to(self.device),
            instructions=tuple(self._instructions[row] for row in rows),
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
        frames = to_frames(self._decode(latents, rows).cpu().numpy())
        for row, latent, ahead in zip(rows, latents.cpu(), poses, strict=True):
            for frame, pose in zip(latent, ahead, strict=True):
                self._banks[row].add(frame, pose)
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

    def _decode(self, latents: Tensor, rows: Sequence[int]) -> Tensor:
        """Frames of the new latents (B, F, V, C, h, w) of rollouts ``rows``."""

        def known(frame: int) -> Tensor:
            return torch.stack([self._banks[row].latent(frame) for row in rows]).to(latents)

        codec = self.autoencoder
        if codec.beside_start:
            video = torch.from_numpy(to_model(np.stack([self._starts[row] for row in rows])))
            return cast(StartCodec, codec).decode_beside(latents, known(0), video.to(latents))
        if not codec.lead_frames:
            return codec.decode(latents)
        lead = known(-1)[:, None].expand(-1, codec.lead_frames, *[-1] * 4)
        return codec.decode(torch.cat([lead, latents], dim=1))[:, lead.shape[1] :]
