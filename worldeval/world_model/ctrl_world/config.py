"""Settings of Ctrl-World at full size (arXiv 2510.10125), and its two presets.

``published()`` is the release to the letter; ``improved()`` names what we do otherwise on purpose.
Every deliberate difference is a field here, so a checkpoint's ``config.json`` tells which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from worldeval.data.normalize import BoundNormalizer
from worldeval.errors import ConfigError
from worldeval.motion.panda import POSE_HIGH, POSE_LOW
from worldeval.robots import RobotSpec
from worldeval.settings import settings_from
from worldeval.world_model.denoiser import DenoiserConfig
from worldeval.world_model.sampler import SamplerConfig

KIND = "ctrl-world"
DECODING = ("views", "chunks")
LATENT_TYPES = ("float32", "weights")

PUBLISHED_SAMPLER = SamplerConfig(
    solver="euler", steps=50, sigma_min=0.002, sigma_max=700.0, rho=7.0, noise_scale="total"
)
IMPROVED_SAMPLER = replace(PUBLISHED_SAMPLER, sigma_min=0.02, sigma_max=80.0, steps=30)
"""The same density of steps without the 20 outside what training saw (log sigma ~ N(0.7, 1.6))."""


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """Weight of classifier-free guidance, a ramp over the sampled frames.

    low, high: weight on the first and on the last sampled frame. 1 and 1: no guidance, and the
        unconditional branch is not computed.
    interval: (low, high) noise levels between which to guide; None guides at all of them.
    """

    low: float = 1.0
    high: float = 2.0
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.low < 0 or self.high < 0:
            raise ConfigError(f"guidance {self.low}..{self.high} must not be negative")
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            raise ConfigError(
                f"guidance interval {self.interval} must be two ascending noise levels"
            )

    def at(self, sigma: float) -> bool:
        """Whether this noise level is guided."""
        if self.low == self.high == 1.0:
            return False
        return self.interval is None or self.interval[0] <= sigma <= self.interval[1]


NO_GUIDANCE = GuidanceConfig(low=1.0, high=1.0)


@dataclass(frozen=True, kw_only=True)
class CtrlWorldConfig:
    """Everything a checkpoint needs to be run.

    unet, vae, text_encoder: the architectures, as diffusers and transformers write them.
    """

    preset: str = "published"
    robot: str = "droid-panda"
    views: tuple[str, ...] = ("exterior_1", "exterior_2", "wrist")
    """Stacked along height in this order before the backbone."""
    pose_low: tuple[float, ...] = POSE_LOW
    pose_high: tuple[float, ...] = POSE_HIGH
    frame_hz: float = 5.0
    latent_channels: int = 4
    latent_size: tuple[int, int] = (24, 40)
    """Of one view."""
    memory_slots: int = 6
    future: int = 4
    """New frames; the backbone samples one more, the current frame once again."""
    memory: str = "published"
    conditioning_noise: float = 0.0
    """Sampling gives the current and the past frames clean, as published."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    tokenizer: Mapping[str, str] = field(default_factory=dict)
    """File in ``tokenizer/`` -> its sha256."""
    autoencoder: str = "svd"
    """Name of the latent space, kept with every cache of latents."""
    scaling_factor: float = 0.18215

    denoiser: DenoiserConfig = field(
        default_factory=lambda: DenoiserConfig(
            sigma_data=1.0, log_sigma_mean=0.7, log_sigma_std=1.6
        )
    )
    sampler: SamplerConfig = PUBLISHED_SAMPLER
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    fps: int = 7
    motion_bucket: int = 127
    noise_augmentation: float = 0.02
    """Told to the backbone when sampling. Training told it 0.0, so 0.02 is a quirk."""
    decoding: str = "chunks"
    """How the temporal decoder sees views. "chunks": flattened with the frames and cut into
    ``decode_chunk`` images, so that it mixes them, as published. "views": each as a video."""
    decode_chunk: int = 7
    latent_type: str = "weights"
    """Of the latents over the steps: "weights" is as the weights are (bfloat16 latents when these
    are, as published), "float32" always float32."""

    current_noise: float = 0.2
    """In training, the noise on the current frame is uniform below this."""
    history_noise: float = 0.3
    """In training, the noise on a past frame is this times a normal number."""
    token_drop: float = 0.05
    """Share of training clips without tokens, for guidance."""

    def __post_init__(self) -> None:
        if self.decoding not in DECODING:
            raise ConfigError(f"decoding is {self.decoding!r}, expected one of {DECODING}")
        if self.latent_type not in LATENT_TYPES:
            raise ConfigError(
                f"latent_type is {self.latent_type!r}, expected one of {LATENT_TYPES}"
            )
        if self.future < 1 or self.memory_slots < 0 or self.decode_chunk < 1 or not self.views:
            raise ConfigError(
                f"future is {self.future}, memory_slots {self.memory_slots}, decode_chunk "
                f"{self.decode_chunk} and views {self.views}; expected at least 1, 0, 1 and one"
            )
        if any(not 1 <= size <= 1024 for size in self.latent_size):
            raise ConfigError(f"latent_size is {self.latent_size}, expected 1 to 1024 each")
        if len(self.pose_low) != len(self.pose_high):
            raise ConfigError(
                f"pose_low has {len(self.pose_low)} numbers and pose_high {len(self.pose_high)}"
            )
        if not 0 <= self.token_drop < 1:
            raise ConfigError(f"token_drop is {self.token_drop}, expected 0 or more and below 1")

    @classmethod
    def published(cls, **settings: Any) -> CtrlWorldConfig:
        """The release to the letter."""
        return cls(**{"preset": "published", **settings})

    @classmethod
    def improved(cls, **settings: Any) -> CtrlWorldConfig:
        """Views decoded apart, float32 latents, the noise augmentation and the noise levels that
        training saw."""
        return cls(**{"preset": "improved", **IMPROVEMENTS, **settings})

    def with_preset(self, preset: str) -> CtrlWorldConfig:
        """This model sampled as the preset says."""
        if preset not in PRESETS:
            raise ConfigError(f"preset is {preset!r}, expected one of {list(PRESETS)}")
        return replace(self, preset=preset, **PRESETS[preset])

    @property
    def frames(self) -> int:
        """In the clip that the backbone sees: memory, the current frame, the new ones."""
        return self.memory_slots + 1 + self.future

    @property
    def spec(self) -> RobotSpec | None:
        """Not kept: it is DROID's Panda, commanded as the user says."""
        return None

    @property
    def frame_rates(self) -> tuple[float, ...]:
        """5 Hz as trained, and 7.5 Hz: the release shows every second pose of 15 Hz control in
        fine tasks."""
        return (self.frame_hz, 1.5 * self.frame_hz)

    @property
    def image_size(self) -> tuple[int, int]:
        """Of one view in pixels."""
        return 8 * self.latent_size[0], 8 * self.latent_size[1]

    @property
    def latents(self) -> str:
        """Name of the latents it was trained on, as ``LatentCache`` files them."""
        return self.autoencoder

    @property
    def normalizer(self) -> BoundNormalizer:
        return BoundNormalizer(low=self.pose_low, high=self.pose_high)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> CtrlWorldConfig:
        return settings_from(cls, config)


IMPROVEMENTS: dict[str, Any] = {
    "sampler": IMPROVED_SAMPLER,
    "noise_augmentation": 0.0,
    "decoding": "views",
    "latent_type": "float32",
}
PRESETS: dict[str, dict[str, Any]] = {
    "published": {
        "sampler": PUBLISHED_SAMPLER,
        "noise_augmentation": 0.02,
        "decoding": "chunks",
        "latent_type": "weights",
    },
    "improved": IMPROVEMENTS,
}
