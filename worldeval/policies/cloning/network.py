"""The cloned policy's network: views, pose and words in, one chunk of actions out.

Enters: images float32 (B, V, C, H, W) in [-1, 1], poses (B, P) scaled to [-1, 1], word buckets
(B, L) with weights. Leaves: actions (B, K, A) scaled so that the robot's bounds are -1 and 1 (not
squashed: a saturated action is simply beyond).

Each view has a small convolutional encoder whose channels are scaled and shifted by the
instruction (FiLM, Perez et al. 2018). What it sees leaves it twice: as expected coordinates of
learned keypoints on a grid of a quarter of the image (spatial softmax, Finn et al. 2016; a lateral
connection adds precision to meaning), and as a thin map flattened with its places. GroupNorm, not
BatchNorm: a rollout must not feel its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldeval.data.text import token_buckets
from worldeval.policies.cloning.config import GROUP_CHANNELS, BCConfig


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


class PolicyNetwork(nn.Module):
    """What all families are: (images, poses, words, weights) to a chunk, by a configuration."""

    def __init__(self, config: BCConfig) -> None:
        super().__init__()
        self.config = config


class BCNetwork(PolicyNetwork):
    """Encoders of all views, then an MLP from (views, words, pose) to the chunk."""

    def __init__(self, config: BCConfig) -> None:
        super().__init__(config)
        dim = config.text_dim
        self.words = nn.Embedding(config.text_buckets, dim) if config.use_text else None
        self.context = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        encoders = [ViewEncoder(config, dim) for _ in config.cameras]
        self.views = nn.ModuleList(encoders)
        seen = sum(encoder.width for encoder in encoders)
        self.see = nn.Linear(seen, config.hidden)
        self.read = nn.Linear(dim, config.hidden, bias=False)
        self.feel = (
            nn.Linear(len(config.pose_low), config.hidden, bias=False) if config.use_state else None
        )
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
        seen = torch.cat(
            [
                encoder(images[:, v].contiguous(memory_format=torch.channels_last), context)
                for v, encoder in enumerate(self.views)
            ],
            dim=1,
        )
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
            ids[i, : len(row)] = torch.tensor(row)
            weights[i, : len(row)] = 1.0 / len(row)
    return ids, weights


def scaled(values: Tensor, low: Sequence[float], high: Sequence[float]) -> Tensor:
    """(..., D) from [low, high] to [-1, 1]."""
    low_t, high_t = torch.tensor(low), torch.tensor(high)
    return (values - low_t) / (high_t - low_t) * 2 - 1


def unscaled(values: Tensor, low: Sequence[float], high: Sequence[float]) -> Tensor:
    """(..., D) from [-1, 1], clipped, to [low, high]."""
    low_t, high_t = torch.tensor(low), torch.tensor(high)
    return low_t + (values.clamp(-1, 1) + 1) / 2 * (high_t - low_t)
