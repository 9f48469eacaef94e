"""The learned judges' network: moments of an episode in, one or several numbers per frame out.

Enters, per sample: all views of the start frame, (optionally) of a frame a little earlier, and of
the frame in question, the instruction as hashed words, and (optionally) the commanded pose now and
at the start. Leaves: one logit of "the task has been solved by this frame" (the classifier), or one
a distance to that (``progress.py``).

Each view passes one shared convolutional trunk, its moments in time stacked as channels so that
change against the start is a difference of channels. Instruction and view steer the trunk by FiLM
(Perez et al. 2018). Success depends on *where* things are, so the last feature map is not averaged
but narrowed and flattened.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from worldeval.data.text import token_buckets
from worldeval.errors import ConfigError

MOST_FRAMES = 100_000
"""Longer than any rollout."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Shape of a judge. Everything that its weights depend on."""

    views: tuple[str, ...]
    image_size: tuple[int, int] = (64, 64)
    """(H, W), both divisible by 8."""
    pose_dim: int = 4
    use_poses: bool = True
    """Whether commanded poses are an input; without them only pixels and words decide."""
    lag: int = 4
    """Frames between the earlier frame and the one in question; 0 leaves the earlier one out."""
    channels: tuple[int, int, int] = (24, 48, 64)
    narrow: int = 8
    """Channels of the flattened feature map."""
    hidden: int = 128
    text_buckets: int = 1024
    text_dim: int = 32
    outputs: int = 1
    """Numbers that are answered for a frame."""

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) != len(self.views):
            raise ConfigError(f"views is {self.views!r}, expected distinct camera names")
        if len(self.image_size) != 2 or any(s < 8 or s % 8 for s in self.image_size):
            raise ConfigError(f"image_size is {self.image_size!r}, expected (H, W) divisible by 8")
        if not 0 <= self.lag <= MOST_FRAMES:
            raise ConfigError(
                f"lag is {str(self.lag)[:40]}, expected 0 (none) to {MOST_FRAMES} frames"
            )
        if len(self.channels) != 3 or any(c < 8 or c % 8 for c in self.channels):
            raise ConfigError(
                f"channels is {self.channels!r}, expected three multiples of 8 (GroupNorm)"
            )
        for name in ("pose_dim", "narrow", "hidden", "text_buckets", "text_dim", "outputs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected at least 1")

    @property
    def moments(self) -> int:
        """How many frames of each view the network sees: start, (earlier), now."""
        return 3 if self.lag else 2


class _Block(nn.Module):
    """3x3 convolution, GroupNorm, FiLM, SiLU; residual where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, condition: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.GroupNorm(outputs // 8, outputs)
        self.film = nn.Linear(condition, 2 * outputs)
        self.residual = inputs == outputs and stride == 1
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        y = F.silu(self.norm(self.convolution(x)) * (1 + scale) + shift)
        return x + y if self.residual else y


class JudgeNetwork(nn.Module):
    """See the module's text. All operations act on one sample alone: batches never mix."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.channels
        views, condition = len(config.views), 2 * config.text_dim
        self.words = nn.EmbeddingBag(config.text_buckets, config.text_dim, mode="mean")
        self.view = nn.Embedding(views, config.text_dim)
        self.blocks = nn.ModuleList(
            [
                _Block(config.moments * 3 * 4, first, 1, condition),
                _Block(first, second, 2, condition),
                _Block(second, second, 1, condition),
                _Block(second, third, 2, condition),
                _Block(third, third, 1, condition),
            ]
        )
        self.narrow = nn.Conv2d(third, config.narrow, 1)
        height, width = config.image_size
        flat = views * config.narrow * (height // 8) * (width // 8)
        self.gather = nn.Linear(flat, config.hidden)
        extra = config.text_dim + (2 * config.pose_dim + 1 if config.use_poses else 0)
        self.mix = nn.Linear(config.hidden + extra, config.hidden)
        self.answer = nn.Linear(config.hidden, config.outputs)
        self.pose_centre: torch.Tensor
        self.pose_spread: torch.Tensor
        self.register_buffer("pose_centre", torch.zeros(config.pose_dim))
        self.register_buffer("pose_spread", torch.ones(config.pose_dim))

    def forward(
        self,
        images: torch.Tensor,
        words: tuple[torch.Tensor, torch.Tensor],
        poses: torch.Tensor,
        pose_known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B,) of "solved by now"; (B, outputs) where there are several.

        The rest is as of ``look``. pose_known: (B,) 0 hides the poses (training only).
        """
        seen, text = self.look(images, words)
        return self.conclude(seen, text, poses, pose_known)

    def look(
        self, images: torch.Tensor, words: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is seen in the frames, (B, hidden), and the instructions, (B, text_dim).

        images: (B, moments, V, C, H, W) in [-1, 1], moments in order start, (earlier), now.
        words: ids and offsets of the instructions, see ``bag``.
        """
        batch, moments, views, channels, height, width = images.shape
        x = images.transpose(1, 2).reshape(batch * views, moments * channels, height, width)
        text = self.words(*words)
        place = self.view.weight.expand(batch, views, -1)
        condition = torch.cat([text[:, None].expand_as(place), place], -1).flatten(0, 1)
        x = F.pixel_unshuffle(x, 2)
        for block in self.blocks:
            x = block(x, condition)
        return F.silu(self.gather(self.narrow(x).reshape(batch, -1))), text

    def conclude(
        self,
        seen: torch.Tensor,
        text: torch.Tensor,
        poses: torch.Tensor,
        pose_known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The answers (B,) or (B, outputs) to what was seen. poses: (B, 2, P), start and now."""
        parts = [seen, text]
        if self.config.use_poses:
            unit = (poses - self.pose_centre) / self.pose_spread
            known = poses.new_ones(len(poses)) if pose_known is None else pose_known
            change = torch.cat([unit[:, 1], unit[:, 1] - unit[:, 0]], -1)
            parts += [change * known[:, None], known[:, None]]
        answer = self.answer(F.silu(self.mix(torch.cat(parts, -1))))
        return answer.squeeze(-1) if self.config.outputs == 1 else answer

    def bag(self, instructions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Instructions as the (ids, offsets) of an embedding bag, on the weights' device."""
        ids: list[int] = []
        offsets = []
        for instruction in instructions:
            offsets.append(len(ids))
            ids += token_buckets(instruction, self.config.text_buckets)
        device = self.words.weight.device
        return torch.tensor(ids, dtype=torch.long, device=device), torch.tensor(
            offsets, dtype=torch.long, device=device
        )
