"""The randomness in a batch of training clips of Ctrl-World, apart from what it is used for.

In: a generator and the size of the global batch. Out: ``LossDraws``, whose rows a process takes, so
that a loss does not depend on how many processes share the batch. ``CtrlWorld.clip_loss`` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from worldeval.world_model.ctrl_world.config import CtrlWorldConfig


@dataclass(frozen=True, kw_only=True)
class LossDraws:
    """All randomness in a batch of training clips, so that it can be drawn for a whole global
    batch.

    current: (B,) uniform, times ``current_noise`` the noise level of the current frame.
    keep: (B,) uniform; tokens are dropped where it is not above ``token_drop``.
    sigma: (B,) normal, the noise level of the frames that are learned.
    history: (B, M) normal, times ``history_noise`` the noise level of each memory frame.
    noise: (B, F+1, V, C, h, w), current_noise: (B, V, C, h, w), history_noise: (B, M, V, C, h, w).
    """

    current: Tensor
    keep: Tensor
    sigma: Tensor
    history: Tensor
    noise: Tensor
    current_noise: Tensor
    history_noise: Tensor

    @classmethod
    def draw(cls, count: int, config: CtrlWorldConfig, generator: torch.Generator) -> LossDraws:
        c = config
        frame = (len(c.views), c.latent_channels, *c.latent_size)

        def normal(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=generator)

        return cls(
            current=torch.rand(count, generator=generator),
            keep=torch.rand(count, generator=generator),
            sigma=normal(),
            history=normal(c.memory_slots),
            noise=normal(c.future + 1, *frame),
            current_noise=normal(*frame),
            history_noise=normal(c.memory_slots, *frame),
        )

    def rows(self, rows: slice) -> LossDraws:
        """Those of a part of the batch."""
        return LossDraws(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device | str) -> LossDraws:
        return LossDraws(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})
