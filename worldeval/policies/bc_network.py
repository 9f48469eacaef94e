"""The cloned policy's network: views, pose and words in, one chunk of actions out.

Enters: images float32 (B, V, C, H, W) in [-1, 1], poses (B, P) scaled to [-1, 1], word buckets
(B, L) with weights. Leaves: actions (B, K, A) scaled so that the robot's bounds are -1 and 1 (not
squashed: a saturated action is simply beyond).

Each view has a small convolutional encoder whose channels are scaled and shifted by the instruction
(FiLM, Perez et al. 2018). What it sees leaves it twice: as expected coordinates of learned keypoints
on a grid of a quarter of the image (spatial softmax, Finn et al. 2016; a lateral connection adds
precision to meaning), and as a thin map flattened with its places. GroupNorm, not BatchNorm: a
rollout must not feel its neighbours in the batch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldeval.data.text import token_buckets
from worldeval.errors import ConfigError
from worldeval.robots import RobotSpec

GROUP_CHANNELS = 8


@dataclass(frozen=True, kw_only=True)
class BCConfig:
    """What the network looks like and what its numbers mean; all of it goes into the checkpoint."""

    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    action_space: str
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    pose_low: tuple[float, ...]
    pose_high: tuple[float, ...]
    rate_hz: float
    chunk: int
    execute: int
    use_text: bool = True
    use_state: bool = True
    channels: tuple[int, int, int] = (16, 32, 64)
    keypoints: int = 24
    flat_channels: int = 4
    text_buckets: int = 512
    text_dim: int = 32
    hidden: int = 192

    def __post_init__(self) -> None:
        for name in ("cameras", "image_size", "action_low", "action_high", "pose_low", "pose_high",
                     "channels"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.cameras:
            raise ConfigError("cameras is empty, expected at least one view")
        if any(size < 16 or size % 8 for size in self.image_size):
            raise ConfigError(f"image_size is {self.image_size}, expected multiples of 8 from 16")
        if any(c < GROUP_CHANNELS or c % GROUP_CHANNELS for c in self.channels[1:]):
            raise ConfigError(f"channels is {self.channels}, expected multiples of "
                              f"{GROUP_CHANNELS} after the first")
        if not 1 <= self.execute <= self.chunk:
            raise ConfigError(f"execute is {self.execute}, expected 1 to chunk = {self.chunk}")
        if len(self.action_low) != len(self.action_high):
            raise ConfigError("action_low and action_high differ in length")
        if len(self.pose_low) != len(self.pose_high):
            raise ConfigError("pose_low and pose_high differ in length")

    @classmethod
    def for_robot(cls, robot: RobotSpec, **settings: Any) -> BCConfig:
        """The config that fits ``robot``; ``settings`` override its fields."""
        return cls.from_json({
            "cameras": robot.views, "image_size": robot.image_size,
            "action_space": robot.action_space, "action_low": robot.action_low,
            "action_high": robot.action_high, "pose_low": robot.pose_low,
            "pose_high": robot.pose_high, "rate_hz": robot.control_hz,
            "chunk": robot.chunk_steps, "execute": robot.chunk_steps, **settings})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BCConfig:
        """The inverse of ``to_json``; an unknown key raises."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                raise ConfigError(f"unknown policy setting {key!r}"
                                  + (f" (did you mean {close[0]!r}?)" if close else ""))
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class ViewEncoder(nn.Module):
    """One view to a vector, looked at in the light of a context vector (FiLM)."""

    def __init__(self, config: BCConfig, context: int) -> None:
        super().__init__()
        c1, c2, c3 = config.channels
        height, width = config.image_size
        self.conv1 = nn.Conv2d(3, c1, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.norm2 = nn.GroupNorm(c2 // GROUP_CHANNELS, c2)
        # where on the image a feature sits: the general form of coordinate channels
        self.place = nn.Parameter(torch.zeros(1, c2, height // 4, width // 4))
        self.conv3 = nn.Conv2d(c2, c3, 3, stride=2, padding=1)
        self.norm3 = nn.GroupNorm(c3 // GROUP_CHANNELS, c3)
        self.conv4 = nn.Conv2d(c3, c3, 3, padding=1)
        self.norm4 = nn.GroupNorm(c3 // GROUP_CHANNELS, c3)
        self.film = nn.Linear(context, 2 * (c2 + c3 + c3))
        nn.init.normal_(self.film.weight, std=0.02)
        nn.init.zeros_(self.film.bias)
        self.lateral = nn.Conv2d(c2, c2, 1)
        self.down = nn.Conv2d(c3, c2, 1)
        self.keypoints = nn.Conv2d(c2, config.keypoints, 1)
        self.flat = nn.Conv2d(c3, config.flat_channels, 1)
        rows = torch.linspace(-1, 1, height // 4)
        columns = torch.linspace(-1, 1, width // 4)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        self.register_buffer("grid", grid, persistent=False)
        self.width = 2 * config.keypoints + config.flat_channels * (height // 8) * (width // 8)
        self.splits = (c2, c2, c3, c3, c3, c3)

    def forward(self, image: Tensor, context: Tensor) -> Tensor:
        film = self.film(context)[:, :, None, None].split(self.splits, dim=1)
        x = functional.relu(self.conv1(image))
        fine = self.norm2(self.conv2(x)) * (1 + film[0]) + (film[1] + self.place)
        fine = functional.relu(fine)  # (B, c2, H/4, W/4)
        x = functional.relu(self.norm3(self.conv3(fine)) * (1 + film[2]) + film[3])
        x = functional.relu(self.norm4(self.conv4(x)) * (1 + film[4]) + film[5])  # (B, c3, H/8, .)
        meaning = functional.interpolate(self.down(x), scale_factor=2.0, mode="nearest")
        heat = self.keypoints(functional.relu(self.lateral(fine) + meaning))
        points = heat.flatten(2).softmax(-1) @ self.grid  # (B, keypoints, 2)
        return torch.cat([points.flatten(1), functional.relu(self.flat(x)).flatten(1)], dim=1)


class BCNetwork(nn.Module):
    """Encoders of all views, then an MLP from (views, words, pose) to the chunk."""

    def __init__(self, config: BCConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.text_dim
        self.words = nn.Embedding(config.text_buckets, dim) if config.use_text else None
        self.context = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.views = nn.ModuleList([ViewEncoder(config, dim) for _ in config.cameras])
        seen = sum(int(view.width) for view in self.views)  # type: ignore[arg-type]
        self.see = nn.Linear(seen, config.hidden)
        self.read = nn.Linear(dim, config.hidden, bias=False)
        self.feel = (nn.Linear(len(config.pose_low), config.hidden, bias=False)
                     if config.use_state else None)
        self.norm = nn.LayerNorm(config.hidden)
        self.middle = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, config.chunk * len(config.action_low))

    def forward(self, images: Tensor, poses: Tensor, words: Tensor, weights: Tensor) -> Tensor:
        """See the module docstring. ``words`` (B, L) int64, ``weights`` (B, L) sum to 1 or 0."""
        batch = len(images)
        if self.words is None:
            text = images.new_zeros(batch, self.config.text_dim)
        else:
            text = (self.words(words) * weights[..., None]).sum(1)
        context = self.context(text)
        seen = torch.cat([encoder(images[:, v].contiguous(memory_format=torch.channels_last),
                                  context)
                          for v, encoder in enumerate(self.views)], dim=1)
        x = self.see(seen) + self.read(context)
        if self.feel is not None:
            x = x + self.feel(poses)
        x = functional.relu(self.norm(x))
        x = functional.relu(self.middle(x)) + x
        return self.out(x).view(batch, self.config.chunk, -1)


def buckets_of(texts: Sequence[str], buckets: int) -> tuple[Tensor, Tensor]:
    """Texts as padded bucket ids (B, L) and weights (B, L) of a mean over each one's tokens."""
    rows = [token_buckets(text, buckets) for text in texts]
    longest = max([1, *map(len, rows)])
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    weights = torch.zeros(len(rows), longest)
    for i, row in enumerate(rows):
        if row:
            ids[i, :len(row)] = torch.tensor(row)
            weights[i, :len(row)] = 1.0 / len(row)
    return ids, weights


def scaled(values: Tensor, low: Sequence[float], high: Sequence[float]) -> Tensor:
    """(..., D) from [low, high] to [-1, 1]."""
    low_t, high_t = torch.tensor(low), torch.tensor(high)
    return (values - low_t) / (high_t - low_t) * 2 - 1


def unscaled(values: Tensor, low: Sequence[float], high: Sequence[float]) -> Tensor:
    """(..., D) from [-1, 1], clipped, to [low, high]."""
    low_t, high_t = torch.tensor(low), torch.tensor(high)
    return low_t + (values.clamp(-1, 1) + 1) / 2 * (high_t - low_t)
