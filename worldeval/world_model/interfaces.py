"""What a rollout asks of a world model and of what turns its latents into frames.

The embedded model and Ctrl-World as published both answer; axes as in ``types.py``, h and w are
those of a view's latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from worldeval.data.normalize import BoundNormalizer
from worldeval.robots import RobotSpec
from worldeval.world_model.model import Context
from worldeval.world_model.sampler import SamplerConfig


class LatentModelConfig(Protocol):
    """What a rollout asks of a model's configuration; units and ranges as in WorldModelConfig."""

    @property
    def robot(self) -> str: ...
    @property
    def spec(self) -> RobotSpec | None:
        """The whole robot; None where the checkpoint keeps only its name."""
        ...

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


class LatentModel(Protocol):
    """A world model of any size: the embedded one, or Ctrl-World as published."""

    @property
    def config(self) -> LatentModelConfig: ...

    def imagine(
        self,
        context: Context,
        generators: Sequence[torch.Generator],
        sampler: SamplerConfig | None = None,
    ) -> Tensor:
        """Latents (B, F, V, C, h, w) of the frames to come, one generator per rollout."""
        ...

    def evaluations(self, sampler: SamplerConfig) -> int:
        """Passes of the network (NFE) that one sample costs."""
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
