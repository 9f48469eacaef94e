"""Inverse dynamics: a small network reads the executed motion back from two frames.

Enters: frames some steps apart, view by view. Leaves: for every view by itself and for all together
the pose at the later frame and its change since the earlier one, in units of their spread over the
training data. On true frames the reading is wrong by the network's own error only; where imagined
frames show another motion than the commanded one, it is wrong by more::

    excess = |read - commanded| / (typical |read - commanded| on true frames)

The idea is that of inverse dynamics models in imitation from observation (Torabi et al. 2018),
used here as a measuring instrument: 1 means as true as reality reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldeval.errors import ConfigError
from worldeval.motion.rotations import angle_difference
from worldeval.world_model.autoencoder import Residual

TOGETHER = "together"
"""Name of the reading from all views at once, beside the names of the views."""
ANGLES = ("roll_rad", "pitch_rad", "yaw_rad")
"""How the names of angles in a pose end; a joint called wrist_roll.pos is in its own units."""


@dataclass(frozen=True, kw_only=True)
class InverseDynamicsConfig:
    """What the weights depend on: whose frames and poses, how far apart, and widths."""

    robot: str
    views: tuple[str, ...]
    pose_names: tuple[str, ...]
    image_size: tuple[int, int] = (64, 64)
    """(H, W), both divisible by 8."""
    most_frames: int = 4
    """Largest distance in frames between the two that are compared; a chunk."""
    widths: tuple[int, int, int] = (24, 48, 64)
    """Channels at 1/2, 1/4 and 1/8 of the resolution."""
    narrow: int = 8
    """Channels of the flattened feature map."""
    hidden: int = 96

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) != len(self.views) or TOGETHER in self.views:
            raise ConfigError(
                f"views is {self.views!r}, expected distinct camera names other than {TOGETHER!r}"
            )
        if not self.pose_names:
            raise ConfigError(f"pose_names is {self.pose_names!r}, expected at least one")
        if any(size < 8 or size % 8 for size in self.image_size):
            raise ConfigError(f"image_size is {self.image_size!r}, expected (H, W) divisible by 8")
        if any(width < 8 or width % 8 for width in self.widths):
            raise ConfigError(f"widths is {self.widths!r}, expected multiples of 8 (GroupNorm)")
        for name in ("most_frames", "narrow", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected at least 1")

    @property
    def readings(self) -> tuple[str, ...]:
        """Names along the axis R of what the network answers: each view, then all together."""
        return (*self.views, TOGETHER)


def pose_difference(to: np.ndarray, since: np.ndarray, pose_names: tuple[str, ...]) -> np.ndarray:
    """``to - since`` for poses (..., P); angles (see ``ANGLES``) by the shortest turn."""
    change = np.asarray(to, np.float64) - np.asarray(since, np.float64)
    angular = [name.endswith(ANGLES) for name in pose_names]
    if any(angular):
        turned = angle_difference(np.asarray(to)[..., angular], np.asarray(since)[..., angular])
        change[..., angular] = turned
    return change


class _View(nn.Module):
    """One view's two frames (B, 2, C, H, W) to features (B, hidden)."""

    def __init__(self, config: InverseDynamicsConfig) -> None:
        super().__init__()
        a, b, c = config.widths
        height, width = config.image_size
        self.trunk = nn.Sequential(
            nn.Conv2d(2 * 3 * 4, a, 3, padding=1),
            nn.GroupNorm(8, a),
            nn.SiLU(),
            nn.Conv2d(a, b, 4, 2, 1),
            Residual(b),
            nn.Conv2d(b, c, 4, 2, 1),
            Residual(c),
            nn.GroupNorm(8, c),
            nn.SiLU(),
            nn.Conv2d(c, config.narrow, 1),
            nn.Flatten(),
            nn.Linear(config.narrow * (height // 8) * (width // 8), config.hidden),
            nn.SiLU(),
        )

    def forward(self, pair: Tensor) -> Tensor:
        before, after = pair.unbind(1)
        # The difference as an input: small motions are small differences of large numbers.
        both = torch.cat([after, 2 * (after - before)], dim=1)
        both = F.pixel_unshuffle(both, 2).contiguous(memory_format=torch.channels_last)
        return self.trunk(both)


class InverseDynamics(nn.Module):
    """See the module's text. Views are read apart; only the last reading sees them together."""

    pose_centre: Tensor
    pose_spread: Tensor
    change_spread: Tensor

    def __init__(self, config: InverseDynamicsConfig) -> None:
        super().__init__()
        self.config = config
        poses = len(config.pose_names)
        self.eyes = nn.ModuleList([_View(config) for _ in config.views])
        self.heads = nn.ModuleList([nn.Linear(config.hidden, 2 * poses) for _ in config.views])
        self.mix = nn.Linear(config.hidden * len(config.views), config.hidden)
        self.head = nn.Linear(config.hidden, 2 * poses)
        self.register_buffer("pose_centre", torch.zeros(poses))
        self.register_buffer("pose_spread", torch.ones(poses))
        self.register_buffer("change_spread", torch.ones(poses))

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, 2, V, C, H, W) in [-1, 1], before and after -> (B, R, 2, P) in units of the spread:
        the pose after (about its centre) and its change, read as ``config.readings`` names."""
        features = [eye(pairs[:, :, v]) for v, eye in enumerate(self.eyes)]
        answers = [head(f) for head, f in zip(self.heads, features, strict=True)]
        # Views are not taught through the joint reading, or a bad eye would lean on a good one.
        answers.append(self.head(F.silu(self.mix(torch.cat(features, -1)))))
        return torch.stack(answers, 1).unflatten(-1, (2, -1))

    def targets(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Physical poses (B, P) twice -> what ``forward`` should answer, (B, 2, P) float32."""
        names = self.config.pose_names
        centre, spread, change = (
            tensor.cpu().numpy().astype(np.float64)
            for tensor in (self.pose_centre, self.pose_spread, self.change_spread)
        )
        place = pose_difference(after, np.broadcast_to(centre, np.shape(after)), names) / spread
        moved = pose_difference(after, before, names) / change
        return np.stack([place, moved], axis=-2).astype(np.float32)

    @torch.inference_mode()
    def read(self, video: Tensor, before: np.ndarray, after: np.ndarray, batch: int = 64) -> Tensor:
        """Readings (N, R, 2, P) of frame numbers ``before`` and ``after`` (N,) of one episode's
        video (T, V, C, H, W) in [-1, 1]."""
        device = self.pose_centre.device
        answers = [torch.zeros(0, len(self.config.readings), 2, len(self.config.pose_names))]
        for i in range(0, len(before), batch):
            some = np.stack([before[i : i + batch], after[i : i + batch]], 1)
            answers.append(self(video[torch.from_numpy(some)].to(device)).float().cpu())
        return torch.cat(answers)
