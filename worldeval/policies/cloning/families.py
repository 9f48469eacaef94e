"""Networks of other families than the candidates': what strangers' policies look like.

Enters and leaves each of them what enters and leaves ``bc_network.BCNetwork``: views, pose and
words in, one chunk of scaled actions out. They differ in how they see, and so in how they fail:

plain: one convolutional trunk over all views stacked as channels, flattened.
keypoints: expected coordinates of learned keypoints and nothing else (Finn et al. 2016).
patches: patches of all views, words and pose as tokens of a transformer (Dosovitskiy et al. 2021).
thumbnails: 16 px thumbnails into a perceptron.
nearest: the chunk that followed the nearest remembered thumbnail of the same instruction; nothing
    is trained (``remember`` instead).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldeval.policies.cloning.config import BCConfig
from worldeval.policies.cloning.network import BCNetwork, PolicyNetwork

PATCH = 8
THUMBNAIL = 16
NEIGHBOURS = 3


def network_of(config: BCConfig) -> PolicyNetwork:
    """A fresh network of the family that the configuration names."""
    return FAMILIES[config.family](config)


class _Instructed(PolicyNetwork):
    """Words to a vector, and the layers that every family ends with."""

    def __init__(self, config: BCConfig, seen: int) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.text_buckets, config.text_dim)
        pose = len(config.pose_low) if config.use_state else 0
        text = config.text_dim if config.use_text else 0
        self.head = nn.Sequential(
            nn.Linear(seen + text + pose, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
        )
        self.out = nn.Linear(config.hidden, config.chunk * len(config.action_low))

    def read(self, words: Tensor, weights: Tensor) -> Tensor:
        return (self.words(words) * weights[..., None]).sum(1)

    def answer(self, seen: Tensor, poses: Tensor, text: Tensor) -> Tensor:
        parts = [seen]
        if self.config.use_text:
            parts.append(text)
        if self.config.use_state:
            parts.append(poses)
        x = self.out(self.head(torch.cat(parts, dim=1)))
        return x.view(len(seen), self.config.chunk, -1)


class PlainNetwork(_Instructed):
    def __init__(self, config: BCConfig) -> None:
        height, width = config.image_size
        c1, c2, c3 = config.channels
        super().__init__(config, c3 * -(-height // 16) * -(-width // 16))
        self.see = nn.Sequential(
            nn.Conv2d(3 * len(config.cameras), c1, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(c1, c2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(c2, c3, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(c3, c3, 3, stride=2, padding=1),
            nn.ReLU(),
        )

    def forward(self, images: Tensor, poses: Tensor, words: Tensor, weights: Tensor) -> Tensor:
        seen = self.see(images.flatten(1, 2)).flatten(1)  # views are channels here
        return self.answer(seen, poses, self.read(words, weights))


class KeypointNetwork(_Instructed):
    def __init__(self, config: BCConfig) -> None:
        c1, c2, c3 = config.channels
        super().__init__(config, 2 * c3 * len(config.cameras))
        self.see = nn.Sequential(
            nn.Conv2d(3, c1, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(c1, c2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(c2, c3, 3, padding=1),
        )

    def forward(self, images: Tensor, poses: Tensor, words: Tensor, weights: Tensor) -> Tensor:
        batch, views = images.shape[:2]
        heat = self.see(images.flatten(0, 1))  # (B V, c3, H/4, W/4)
        rows = torch.linspace(-1, 1, heat.shape[-2], device=heat.device)
        columns = torch.linspace(-1, 1, heat.shape[-1], device=heat.device)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        points = heat.flatten(2).softmax(-1) @ grid
        seen = points.reshape(batch, views * points.shape[1] * 2)
        return self.answer(seen, poses, self.read(words, weights))


class PatchNetwork(_Instructed):
    def __init__(self, config: BCConfig) -> None:
        dim = 64
        super().__init__(config, dim)
        height, width = config.image_size
        tokens = len(config.cameras) * (height // PATCH) * (width // PATCH)
        self.embed = nn.Linear(3 * PATCH * PATCH, dim)
        self.place = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.told = nn.Linear(config.text_dim, dim)
        self.felt = nn.Linear(len(config.pose_low), dim)
        layer = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout=0.0, batch_first=True, norm_first=True
        )
        self.mix = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images: Tensor, poses: Tensor, words: Tensor, weights: Tensor) -> Tensor:
        flat = images.flatten(0, 1)  # (B V, 3, H, W)
        patches = functional.unfold(flat, PATCH, stride=PATCH).mT  # (B V, N, 3 p p)
        tokens = self.embed(patches).reshape(len(images), -1, self.embed.out_features) + self.place
        text = self.read(words, weights)
        told = self.told(text if self.config.use_text else torch.zeros_like(text))
        felt = self.felt(poses if self.config.use_state else torch.zeros_like(poses))
        mixed = self.mix(torch.cat([(told + felt)[:, None], tokens], dim=1))
        return self.answer(mixed[:, 0], poses, text)


class ThumbnailNetwork(_Instructed):
    def __init__(self, config: BCConfig) -> None:
        super().__init__(config, 3 * THUMBNAIL * THUMBNAIL * len(config.cameras))

    def forward(self, images: Tensor, poses: Tensor, words: Tensor, weights: Tensor) -> Tensor:
        return self.answer(thumbnails(images), poses, self.read(words, weights))


class NearestNetwork(PolicyNetwork):
    """Remembers samples. ``remember`` fills it; a distance counts pictures, pose and words."""

    SIZE = 12

    def __init__(self, config: BCConfig) -> None:
        super().__init__(config)
        width = 3 * self.SIZE**2 * len(config.cameras)
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        self.seen: Tensor
        self.told: Tensor
        self.felt: Tensor
        self.done: Tensor
        count, answer = config.remembered, (config.chunk, len(config.action_low))
        self.register_buffer("seen", torch.zeros(count, width))
        self.register_buffer("told", torch.zeros(count, config.text_buckets))
        self.register_buffer("felt", torch.zeros(count, len(config.pose_low)))
        self.register_buffer("done", torch.zeros(count, *answer))

    def remember(
        self, images: Tensor, poses: Tensor, words: Tensor, weights: Tensor, targets: Tensor
    ) -> None:
        """Keep ``config.remembered`` samples, targets (N, K, A) scaled like the answers."""
        self.seen.copy_(thumbnails(images, self.SIZE))
        self.told.copy_(self._bag(words, weights))
        self.felt.copy_(poses)
        self.done.copy_(targets)

    def forward(self, images: Tensor, poses: Tensor, words: Tensor, weights: Tensor) -> Tensor:
        distance = torch.cdist(thumbnails(images, self.SIZE), self.seen).square()
        distance = distance / self.seen.shape[1] * 40
        if self.config.use_state:
            distance = distance + torch.cdist(poses[:, :3], self.felt[:, :3]).square() * 2
        if self.config.use_text:
            distance = distance + torch.cdist(self._bag(words, weights), self.told).square() * 10
        near, index = distance.topk(NEIGHBOURS, largest=False)
        share = (-(near - near[:, :1]) * self.sharpness).softmax(-1)
        return (self.done[index] * share[..., None, None]).sum(1)

    def _bag(self, words: Tensor, weights: Tensor) -> Tensor:
        bag = weights.new_zeros(len(words), self.config.text_buckets)
        return bag.scatter_add_(1, words, weights)


def thumbnails(images: Tensor, size: int = THUMBNAIL) -> Tensor:
    """(B, V, C, H, W) to (B, V C size size), by averaging areas."""
    small = functional.adaptive_avg_pool2d(images.flatten(1, 2), size)
    return small.flatten(1)


FAMILIES: dict[str, type[PolicyNetwork]] = {
    "film": BCNetwork,
    "plain": PlainNetwork,
    "keypoints": KeypointNetwork,
    "patches": PatchNetwork,
    "thumbnails": ThumbnailNetwork,
    "nearest": NearestNetwork,
}
