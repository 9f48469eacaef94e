"""The autoencoder: one 64x64 view to an 8x8 latent and back, frame by frame, view by view.

In: video in [-1, 1], any leading axes, (..., 3, H, W). Out: latents (..., C, H/8, W/8) of zero mean
and unit spread per channel, which is the scale that the denoiser is trained on. Gentle noise on the
latents during training keeps the decoder smooth around them, so that a denoiser's small errors stay
small in pixels (the role of the KL term in Stable Diffusion's autoencoder, without its blur).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldeval.data import checkpoint
from worldeval.data.normalize import ChannelNormalizer
from worldeval.errors import ConfigError
from worldeval.learning.weights import filled
from worldeval.robots import RobotSpec, robot_as_json
from worldeval.settings import settings_from
from worldeval.world_model.side_by_side import side_by_side

KIND = "autoencoder"
AT_ONCE = 48
"""Pictures that are decoded together on a CPU. More take no less time each and more memory, which
the system takes back and gives anew for each layer."""
LARGEST_SIDE = 8192
"""In pixels; more is no picture but a slip, and would only be noticed when memory is full."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Widths at 1/2, 1/4 and 1/8 of the resolution, and the channels of the latent."""

    widths: tuple[int, int, int] = (32, 64, 96)
    """Channels at 1/2, 1/4 and 1/8 of the resolution."""
    latent_channels: int = 8
    """Channels of a latent."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width of its images, in pixels."""

    def __post_init__(self) -> None:
        if self.latent_channels < 1 or min(self.widths) < 8:
            raise ConfigError(
                f"autoencoder: widths {self.widths} must be at least 8 and latent_channels "
                f"{self.latent_channels} at least 1"
            )
        if any(not 8 <= size <= LARGEST_SIDE or size % 8 for size in self.image_size):
            raise ConfigError(
                f"image_size is {self.image_size}, expected multiples of 8 up to {LARGEST_SIDE}"
            )

    @property
    def latent_size(self) -> tuple[int, int]:
        return self.image_size[0] // 8, self.image_size[1] // 8


class Residual(nn.Module):
    """Two 3x3 convolutions around a skip, group-normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def frame_decoder(latent_channels: int, widths: tuple[int, int, int]) -> nn.Sequential:
    """Latents (N, C, h, w) to images (N, 3, 8h, 8w); widths at 1/2, 1/4 and 1/8 of the size."""
    a, b, c = widths
    return nn.Sequential(
        nn.Conv2d(latent_channels, c, 3, padding=1),
        Residual(c),
        Residual(c),
        nn.Conv2d(c, 4 * b, 1),
        nn.PixelShuffle(2),
        Residual(b),
        nn.Conv2d(b, 4 * a, 1),
        nn.PixelShuffle(2),
        Residual(a),
        nn.GroupNorm(8, a),
        nn.SiLU(),
        nn.Conv2d(a, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )


class Autoencoder(nn.Module):
    """``encode`` and ``decode``; see the module's docstring for the spaces."""

    lead_frames = 0  # frames are decoded one by one
    beside_start = False
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c = config.widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, a, 3, padding=1),
            Residual(a),
            nn.Conv2d(a, b, 4, 2, 1),
            Residual(b),
            nn.Conv2d(b, c, 4, 2, 1),
            Residual(c),
            Residual(c),
            nn.GroupNorm(8, c),
            nn.SiLU(),
            nn.Conv2d(c, config.latent_channels, 1),
        )
        self.decoder = frame_decoder(config.latent_channels, config.widths)
        channels = config.latent_channels
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def set_normalizer(self, normalizer: ChannelNormalizer) -> None:
        self.latent_mean.copy_(torch.tensor(normalizer.mean))
        self.latent_std.copy_(torch.tensor(normalizer.std))

    def raw_latents(self, video: Tensor) -> Tensor:
        """Latents before normalisation: (N, 3, H, W) in [-1, 1] -> (N, C, H/8, W/8)."""
        return self.encoder(video.contiguous(memory_format=torch.channels_last))

    def encode(self, video: Tensor) -> Tensor:
        """(..., 3, H, W) in [-1, 1] -> normalised latents (..., C, H/8, W/8)."""
        flat = video.flatten(0, -4)
        latents = self.raw_latents(flat)
        latents = (latents - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]
        return latents.reshape(*video.shape[:-3], *latents.shape[1:])

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (..., C, h, w) -> (..., 3, 8h, 8w), about [-1, 1]."""
        flat = latents.flatten(0, -4)
        flat = flat * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        flat = flat.contiguous(memory_format=torch.channels_last)
        if torch.is_grad_enabled():
            video = self.decoder(flat)
        else:
            video = side_by_side(lambda part: self._decoded(flat[part]), len(flat), flat.device)
        return video.reshape(*latents.shape[:-3], *video.shape[1:])

    def _decoded(self, flat: Tensor) -> Tensor:
        most = AT_ONCE if flat.device.type == "cpu" else max(len(flat), 1)
        return torch.cat([self.decoder(part) for part in flat.split(most)])

    def save(
        self,
        folder: str | Path,
        card: dict[str, Any] | None = None,
        robot: RobotSpec | None = None,
    ) -> None:
        """Write a checkpoint; robot: whose frames it learned, kept whole beside it."""
        checkpoint.save(
            folder,
            kind=KIND,
            config=asdict(self.config),
            tensors={name: t.detach().numpy() for name, t in self.state_dict().items()},
            card=card,
            robot=None if robot is None else robot_as_json(robot),
        )

    @classmethod
    def load(cls, folder: str | Path) -> Autoencoder:
        """From a checkpoint folder; raises CheckpointError if it is missing or damaged."""
        config, tensors = checkpoint.load(folder, kind=KIND)
        with checkpoint.fitting(folder):
            settings = settings_from(AutoencoderConfig, config, whole=True)
            model = filled(lambda: cls(settings), tensors, folder)
        return model.eval().requires_grad_(False)


def reconstruction_loss(decoded: Tensor, video: Tensor) -> Tensor:
    """Mean of |error| and squared error, plus the error of image gradients, which keeps edges.

    Both are (N, 3, H, W); small objects live in edges, and a plain squared error fades them.
    """
    error = decoded - video
    horizontal, vertical = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2 * F.mse_loss(decoded, video) + 0.5 * (horizontal + vertical)
