"""``PathJudge``: a margin judge that has watched the whole rollout, and the hand's path in it.

Enters: episodes. Leaves: the margin (``margin.py``) at every frame as it is known by then, and
verdicts. What a margin judge sees in each frame by itself (its last features and its margin) and
where the hand is, has come from and moves to, go frame by frame through a recurrent network (GRU,
Cho et al. 2014). In imagination the hand's motion is truer than the picture: whether a window that
is too blurred to be read has been closed shows in where the hand went against the place of its
handle, which the first frame, a true one, shows sharply.

Causal: the answer at a frame does not depend on later ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from worldeval.errors import ConfigError
from worldeval.judging.margin import MarginJudge
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.types import Episode

FARTHEST = 6.0
"""Inputs are cut here, in units of their spread over the training frames."""


@dataclass(frozen=True, kw_only=True)
class PathConfig(JudgeConfig):
    """Shape of a path judge: that of the margin judge whose looks it follows, and of its memory."""

    memory: int = 128
    """Numbers that are carried from frame to frame."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ConfigError(f"memory is {self.memory!r}, expected at least 1")
        if self.outputs != 1:
            raise ConfigError(f"outputs is {self.outputs!r}, expected 1: the margin of a frame")


class PathHead(nn.Module):
    """From looks and poses, frame by frame, to margins."""

    def __init__(self, config: PathConfig) -> None:
        super().__init__()
        inputs = config.hidden + 1 + 3 * config.pose_dim
        self.enter = nn.Linear(inputs + config.text_dim, config.memory)
        self.carry = nn.GRU(config.memory, config.memory, batch_first=True)
        self.answer = nn.Sequential(
            nn.Linear(2 * config.memory, config.memory), nn.SiLU(), nn.Linear(config.memory, 1)
        )
        self.centre: torch.Tensor
        self.spread: torch.Tensor
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))

    @staticmethod
    def gathered(looks: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
        """(B, T, hidden + 1 + 3 P): looks (B, T, hidden + 1); poses (B, T, P) as they are, against
        the start and against the frame before."""
        step = torch.diff(poses, dim=1, prepend=poses[:, :1])
        return torch.cat([looks, poses, poses - poses[:, :1], step], dim=-1)

    def forward(self, inputs: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Margins (B, T). inputs: ``gathered``, in units of ``unit``; text: (B, text_dim)."""
        words = text[:, None].expand(-1, inputs.shape[1], -1)
        entered = F.silu(self.enter(torch.cat([inputs, words], dim=-1)))
        carried, _ = self.carry(entered)
        margins: torch.Tensor = self.answer(torch.cat([entered, carried], dim=-1))
        return margins.squeeze(-1)

    def unit(self, gathered: torch.Tensor) -> torch.Tensor:
        return ((gathered - self.centre) / self.spread).clamp(-FARTHEST, FARTHEST)


class PathNetwork(JudgeNetwork):
    """A margin judge's network, which looks at single frames, and a ``PathHead``."""

    config: PathConfig

    def __init__(self, config: PathConfig) -> None:
        super().__init__(config)
        self.path = PathHead(config)

    def looks(
        self,
        images: torch.Tensor,
        words: tuple[torch.Tensor, torch.Tensor],
        poses: torch.Tensor,
    ) -> torch.Tensor:
        """(B, hidden + 1): what is seen in frames by themselves, and their margin; arguments as of
        ``forward``."""
        seen, text = self.look(images, words)
        margin = self.conclude(seen, text, poses)
        return torch.cat([seen, margin[:, None]], dim=-1)


class PathJudge(MarginJudge):
    """A judge of the checkpoint kind "path-judge", which ``train_path`` makes."""

    kind = "path-judge"
    title = "path-judge"
    shape = PathConfig
    network_of = PathNetwork
    network: PathNetwork

    @torch.inference_mode()
    def outputs(self, episode: Episode, times: np.ndarray) -> np.ndarray:
        """Margins (n,) at the frames ``times`` (n,), each from all frames up to it."""
        if not len(times):
            return np.zeros(0, np.float32)
        until = np.arange(int(np.max(times)) + 1)
        looks = torch.cat([self.network.looks(*inputs) for inputs in self.moments(episode, until)])
        poses = torch.from_numpy(episode.poses[until].astype(np.float32)).to(looks.device)
        head, text = self.network.path, self.network.words(*self.network.bag([episode.instruction]))
        margins = head(head.unit(head.gathered(looks[None], poses[None])), text)[0]
        return self.checked(margins.cpu().numpy()[times], episode)


def path_network(trunk: JudgeNetwork, memory: int) -> PathNetwork:
    """A ``PathNetwork`` that looks as ``trunk`` does; its head is new."""
    network = PathNetwork(PathConfig(**asdict(trunk.config), memory=memory))
    network.load_state_dict(trunk.state_dict(), strict=False)
    return network
