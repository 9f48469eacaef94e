"""The world model: from what was seen and a commanded motion to what will be seen, as latents.

In: latents of the current frame and of retrieved memory frames, the poses of all of them and of the
frames to come. Out: latents of the F future frames of all views. Ties the rooms together: geometry
maps and tokens (conditioning), the U-Net (backbone), EDM (denoiser), the solver (sampler).
Noise on the conditioning during training (Ctrl-World, section 3.3) is what keeps autoregression
from drifting; its level is told to the network, so sampling can ask for "nearly clean".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldeval.data import checkpoint
from worldeval.data.normalize import BoundNormalizer
from worldeval.errors import ConfigError, MismatchError
from worldeval.learning.weights import filled
from worldeval.robots import CameraSpec, RobotSpec, read_robot
from worldeval.settings import settings_from
from worldeval.world_model.autoencoder import LARGEST_SIDE
from worldeval.world_model.backbone import Backbone, BackboneConfig, Still
from worldeval.world_model.conditioning import (
    GEOMETRY_CHANNELS,
    ROLES,
    FrameToken,
    PoseParts,
    WorkspaceFrame,
    geometry_maps,
    nearest_memory,
    turned_pose_width,
    turned_poses,
    warp_grids,
)
from worldeval.world_model.denoiser import DenoiserConfig, precondition
from worldeval.world_model.sampler import SamplerConfig, sample
from worldeval.world_model.side_by_side import side_by_side

log = logging.getLogger(__name__)

KIND = "world-model"
SAWYER = "metaworld-sawyer"
"""Whose table the geometry maps of checkpoints that keep no robot show."""
ANCHORS = ("current", "zero")


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """Everything a checkpoint needs to be run; the robot's part is copied from its RobotSpec."""

    robot: str
    views: tuple[str, ...]
    cameras: tuple[CameraSpec, ...]
    pose_low: tuple[float, ...]
    pose_high: tuple[float, ...]
    frame_hz: float
    latent_channels: int
    latent_size: tuple[int, int]
    memory_slots: int = 3
    future: int = 4
    anchor: str = "current"
    geometry: bool = True
    angles: tuple[int, ...] = ()
    """Places of roll, pitch and yaw in the pose, where the hand turns: the token then has their
    sines and cosines, and the motion as the hand sees it. () for a hand that does not turn."""
    warp_depths_m: tuple[float, ...] = ()
    """The current frame is also shown as each frame's camera would see it if all lay at these
    depths: a camera on the hand then finds what it saw where it now must be."""
    warp_memory: bool = False
    """The remembered frame whose hand was nearest is shown to each frame in the same way, so that
    a place that was seen long ago reappears as it was."""
    conditioning_noise: float = 0.05
    """Noise level that sampling claims for (and adds to) its conditioning."""
    memory: str = "pose"
    trust: tuple[float, ...] = ()
    """Share of an imagined change of each view that is believed: below 1 for a model of few data,
    which is surer of itself than it should be. () for all of it."""
    autoencoder: str = ""
    """Digest of the autoencoder whose latents it was trained on."""
    spec: RobotSpec | None = None
    """The whole robot; None in checkpoints of versions that kept only the fields above."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        if self.anchor not in ANCHORS:
            raise ConfigError(f"anchor is {self.anchor!r}, expected one of {ANCHORS}")
        if self.future < 1 or self.memory_slots < 0:
            raise ConfigError(
                f"future is {self.future} and memory_slots {self.memory_slots}; expected at least "
                "1 and 0"
            )
        if any(not 1 <= size <= LARGEST_SIDE // 8 for size in self.latent_size):
            raise ConfigError(
                f"latent_size is {self.latent_size}, expected 1 to {LARGEST_SIDE // 8} each"
            )
        _ = self.normalizer  # raises for bounds that are none
        if self.trust and (
            len(self.trust) != len(self.views) or not all(0 <= t <= 1 for t in self.trust)
        ):
            raise ConfigError(
                f"trust is {self.trust}, expected none or one share from 0 to 1 for each of the "
                f"views {self.views}"
            )
        if len(self.angles) not in (0, 3) or any(
            not 3 <= i < len(self.pose_low) for i in self.angles
        ):
            raise ConfigError(
                f"angles are {self.angles}, expected none or the places of roll, pitch and yaw "
                f"behind the position in a pose of {len(self.pose_low)} numbers"
            )

    @classmethod
    def for_robot(cls, robot: RobotSpec, **settings: Any) -> WorldModelConfig:
        return cls(
            robot=robot.name,
            views=robot.views,
            cameras=robot.cameras,
            pose_low=robot.pose_low,
            pose_high=robot.pose_high,
            frame_hz=robot.frame_hz,
            future=robot.frames_per_chunk,
            spec=robot,
            **settings,
        )

    @cached_property
    def workspace(self) -> WorkspaceFrame:
        """The part of the table that its geometry maps show.

        Checkpoints that keep no robot were all trained with that of the Sawyer, whatever their
        robot; ConfigError for a robot that names none.
        """
        return WorkspaceFrame.of(read_robot(SAWYER) if self.spec is None else self.spec)

    @cached_property
    def parts(self) -> PoseParts:
        """Which numbers of its poses are hands and grippers."""
        return PoseParts.of(self.spec)

    @property
    def frames(self) -> int:
        return self.memory_slots + 1 + self.future

    @property
    def normalizer(self) -> BoundNormalizer:
        return BoundNormalizer(low=self.pose_low, high=self.pose_high)

    @property
    def frame_rates(self) -> tuple[float, ...]:
        return (self.frame_hz,)

    @property
    def image_size(self) -> tuple[int, int]:
        return 8 * self.latent_size[0], 8 * self.latent_size[1]

    @property
    def latents(self) -> str:
        """Name of the latents it was trained on, as ``LatentCache`` files them."""
        return self.autoencoder

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> WorldModelConfig:
        return settings_from(cls, config)


@dataclass(kw_only=True)
class Context:
    """What a batch of clips is conditioned on.

    current: (B, V, C, h, w) latents; memory: (B, M, V, C, h, w); valid: (B, M) bool.
    poses: (B, M+1+F, P) float32 numpy, physical, in clip order.
    level: (B,) noise level of the conditioning latents.
    instructions: B texts, for models that read them.
    """

    current: Tensor
    memory: Tensor
    valid: Tensor
    poses: np.ndarray
    level: Tensor
    instructions: tuple[str, ...] | None = None

    def rows(self, part: slice) -> Context:
        """Of some clips of the batch."""
        return Context(
            current=self.current[part],
            memory=self.memory[part],
            valid=self.valid[part],
            poses=self.poses[part],
            level=self.level[part],
            instructions=None if self.instructions is None else self.instructions[part],
        )


class WorldModel(nn.Module):
    """F network, its conditioning, and ``imagine``; trained by ``world_model/training.py``."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.token_width
        own, relative = (len(config.pose_low),) * 2
        if config.angles:
            own, relative = turned_pose_width(len(config.pose_low))
        self.token = FrameToken(own, relative, config.frames, width)
        geometry = GEOMETRY_CHANNELS if config.geometry else 0
        shown = 2 + len(config.warp_depths_m) * (2 if config.warp_memory else 1)
        self.backbone = Backbone(
            config.backbone, shown * config.latent_channels + geometry, config.latent_channels
        )

    def adopt(self, other: WorldModel) -> None:
        """Take over the weights of a trained model that may lack this one's last input channels;
        those begin at zero, so the function is the same at first."""
        weights = other.state_dict()
        stem = weights["backbone.stem.weight"]
        missing = self.backbone.stem.in_channels - stem.shape[1]
        if missing < 0:
            raise ConfigError(
                f"the model to start from has {-missing} input channels more than this one; give "
                "this one its warp_depths_m"
            )
        weights["backbone.stem.weight"] = torch.cat(
            [stem, stem.new_zeros(len(stem), missing, *stem.shape[2:])], dim=1
        )
        self.load_state_dict(weights)

    def prepare(self, context: Context) -> dict[str, Tensor]:
        """Everything that stays the same over the steps of one sample."""
        c = self.config
        device = context.current.device
        b, m, t = len(context.current), c.memory_slots, c.frames
        if c.angles:
            own, apart = turned_poses(context.poses, m, c.angles, c.normalizer, c.parts)
            poses, relative = torch.from_numpy(own).to(device), torch.from_numpy(apart).to(device)
        else:
            poses = torch.from_numpy(c.normalizer.normalize(context.poses)).to(device)
            relative = (poses - poses[:, m : m + 1]) * 2
        roles = torch.full((b, t), ROLES.index("future"), device=device)
        roles[:, :m] = torch.where(context.valid, ROLES.index("memory"), ROLES.index("empty"))
        roles[:, m] = ROLES.index("current")
        keep = context.valid[:, :, None, None, None, None]
        past = torch.where(keep, context.memory - context.current[:, None], 0.0)
        still = torch.zeros_like(context.current)[:, None]
        repeated = context.current[:, None].expand(b, t, *context.current.shape[1:])
        fixed = [repeated]
        if c.geometry:
            maps = geometry_maps(context.poses, c.cameras, c.latent_size, c.workspace, c.parts)
            fixed.append(torch.from_numpy(maps).to(device))
        fixed += self._warped(context.poses, context.poses[:, m], repeated)
        if c.warp_memory:
            fixed += self._warped(context.poses, *self._remembered(context))
        return {
            "poses": poses,
            "relative": relative,
            "roles": roles,
            "history": torch.cat([past, still], dim=1),  # (B, M+1, V, C, h, w)
            "fixed": torch.cat(fixed, dim=3),  # (B, T, V, C+G, h, w)
            "level": (context.level + 1e-2).log() / 4,
            "anchor": context.current[:, None]
            if c.anchor == "current"
            else torch.zeros_like(context.current[:, None]),
        }

    def _remembered(self, context: Context) -> tuple[np.ndarray, Tensor]:
        """Of every frame's nearest memory: its pose (B, T, P) and latents (B, T, V, C, h, w)."""
        nearest = nearest_memory(
            context.poses,
            self.config.memory_slots,
            context.valid.cpu().numpy(),
            self.config.parts,
        )
        rows = np.arange(len(nearest))[:, None]
        found = torch.from_numpy(nearest).to(context.memory.device)
        seen = context.memory[torch.from_numpy(rows).to(found.device), found.clamp(min=0)]
        seen = torch.where(found[:, :, None, None, None, None] >= 0, seen, 0.0)
        return context.poses[rows, np.maximum(nearest, 0)], seen

    def _warped(self, poses: np.ndarray, origin: np.ndarray, seen: Tensor) -> list[Tensor]:
        """What was ``seen`` (B, T, V, C, h, w) from the pose ``origin`` as it must look at every
        frame's pose, if all lay at one depth: one such tensor for each of the depths."""
        c = self.config
        warped = []
        for depth_m in c.warp_depths_m:
            grids = warp_grids(poses, origin, c.cameras, c.latent_size, depth_m, c.parts)
            warped.append(
                F.grid_sample(
                    seen.flatten(0, 2),
                    torch.from_numpy(grids).to(seen.device).flatten(0, 2),
                    align_corners=False,
                    padding_mode="zeros",
                ).reshape(seen.shape)
            )
        return warped

    def network(
        self,
        prepared: dict[str, Tensor],
        x: Tensor,
        c_noise: Tensor,
        still: Still | None = None,
    ) -> Tensor:
        """F(c_in x; c_noise) for the future frames: x (B, F, V, C, h, w), c_noise (B,).

        still: of the frames before them, which this sample's steps share.
        """
        c = self.config
        known = 0
        if still is not None and still.known:
            known = still.frames
        else:
            x = torch.cat([prepared["history"] / c.denoiser.sigma_data, x], dim=1)
        clip = torch.cat([x, prepared["fixed"][:, known:]], dim=3)
        noise = prepared["level"][:, None].repeat(1, c.frames)
        noise[:, c.memory_slots + 1 :] = c_noise[:, None]
        token = self.token(prepared["poses"], prepared["relative"], prepared["roles"], noise)
        return self.backbone(clip, token, c.future, still)

    def denoise(
        self, prepared: dict[str, Tensor], x: Tensor, sigma: Tensor, still: Still | None = None
    ) -> Tensor:
        """D(x; sigma): expected clean difference to the anchor, (B, F, V, C, h, w)."""
        return precondition(
            lambda y, c_noise: self.network(prepared, y, c_noise, still),
            x,
            sigma,
            self.config.denoiser,
        )

    @torch.inference_mode()
    def imagine(
        self,
        context: Context,
        generators: Sequence[torch.Generator],
        sampler: SamplerConfig | None = None,
    ) -> Tensor:
        """Latents (B, F, V, C, h, w) of the frames to come, one generator per rollout."""
        c = self.config
        sampler = sampler or c.sampler
        shape = (c.future, len(c.views), c.latent_channels, *c.latent_size)
        if context.current.shape[1:] != shape[1:]:
            raise MismatchError(
                f"current latents are {tuple(context.current.shape[1:])}, this model expects "
                f"{shape[1:]} (views, channels, height, width)"
            )
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return side_by_side(
            lambda part: self._imagined(context.rows(part), noise[part], sampler),
            len(noise),
            context.current.device,
        )

    def _imagined(self, context: Context, noise: Tensor, sampler: SamplerConfig) -> Tensor:
        """``imagine`` from unit noise (B, F, V, C, h, w)."""
        c, device = self.config, context.current.device
        prepared, still = self.prepare(context), Still(c.memory_slots + 1)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            levels = torch.full((len(x),), sigma, device=device)
            return self.denoise(prepared, x, levels, still)

        change = sample(denoise, noise.to(device), sampler)
        if c.trust:
            change = change * torch.tensor(c.trust, device=device)[:, None, None, None]
        return change + prepared["anchor"]

    def evaluations(self, sampler: SamplerConfig) -> int:
        """Passes of the network (NFE) that one sample costs."""
        return sampler.evaluations

    def save(self, folder: str | Path, card: dict[str, Any] | None = None) -> None:
        tensors = {name: t.detach().cpu().float().numpy() for name, t in self.state_dict().items()}
        checkpoint.save(folder, kind=KIND, config=asdict(self.config), tensors=tensors, card=card)

    @classmethod
    def load(cls, folder: str | Path) -> WorldModel:
        """From a checkpoint folder; raises CheckpointError if it is missing or damaged."""
        config, tensors = checkpoint.load(folder, kind=KIND)
        with checkpoint.fitting(folder):
            settings = WorldModelConfig.from_json(config)
            model = filled(lambda: cls(settings), tensors, folder)
        if settings.spec is None and settings.geometry and settings.robot != SAWYER:
            log.warning(
                "%s keeps no robot: as it was trained, its geometry maps show %s the table of %s",
                folder,
                settings.robot,
                SAWYER,
            )
        return model.eval().requires_grad_(False)


def degrade(latents: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Conditioning noise: latents (B, ...) plus ``level`` (B,) times unit noise."""
    return latents + level.reshape(-1, *[1] * (latents.ndim - 1)) * noise
