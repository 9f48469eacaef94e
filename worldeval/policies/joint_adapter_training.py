"""Trains the learned adapter on recorded arms: velocity commands in, where the joints went out.

Enters: datasets in the layout of Ctrl-World's first variant (arrays at 15 Hz). Leaves: a checkpoint
of kind "action-adapter" and its errors on the episodes held out. Every 15 steps of an episode are
one sample: joints q_t, commands v_t ... v_(t+14), moves q_(t+k) - q_t.

The joints that the network sees are blurred, because how the arm follows depends little on them: so
a few episodes are not learned by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from worldeval.data.readers.ctrl_world import CtrlWorldDataset
from worldeval.errors import ConfigError, DataError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import STATE_FILE, Loop
from worldeval.motion import panda
from worldeval.motion.rotations import rotation_angle
from worldeval.policies.joint_adapter import BOUNDS, JOINTS, STEPS, AdapterNetwork, LearnedAdapter

_NARROWEST = 1e-3
"""A joint that never moved still gets bounds this far apart."""


@dataclass(frozen=True, kw_only=True)
class AdapterTrainConfig:
    """How the adapter is trained."""

    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(
            steps=400,
            batch=128,
            learning_rate=1e-3,
            warmup=30,
            weight_decay=1e-2,
            ema=0.98,
            validate_every=100,
        )
    )
    hidden: int = 512
    """Width of the two hidden layers; 512 is the published one."""
    start: Path | None = None
    """Go on from this adapter (.pth or a folder) instead of beginning anew."""
    joint_noise_rad: float = 0.1
    """Blur of the joints that the network sees."""

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ConfigError(f"hidden is {self.hidden!r}, expected 1 or more")
        if not self.joint_noise_rad >= 0:
            raise ConfigError(f"joint_noise_rad is {self.joint_noise_rad!r}, expected 0 or more")

    def identity(self) -> dict[str, Any]:
        start = None if self.start is None else str(self.start)
        return asdict(self) | {"loop": self.loop.identity(), "start": start}


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Samples of 15 steps: joints (N, 7) rad, velocity (N, 15, 7), moves (N, 15, 7) rad."""

    joints: np.ndarray
    velocity: np.ndarray
    moves: np.ndarray

    def __len__(self) -> int:
        return len(self.joints)


def windows_of(sources: Sequence[str | Path], split: str, *, stride: int = 1) -> Windows:
    """Every window of 15 steps of the episodes of ``split``; raises DataError where there is none.

    Episodes without commands at 15 Hz (the second variant of the layout) cannot be used.
    """
    joints, velocity, moves = [], [], []
    for source in sources:
        dataset = CtrlWorldDataset(source, split)
        for identity in dataset.ids:
            raw = dataset.episode(identity)
            positions, commands = raw.joint_position, raw.actions.get("joint_velocity")
            if positions is None or commands is None or len(positions) != len(commands):
                raise DataError(
                    f"{raw.described_in} has no joint positions and joint velocities at 15 Hz, "
                    "which the adapter learns from; give episodes of DROID's variant"
                )
            for t in range(0, len(positions) - STEPS, stride):
                joints.append(positions[t])
                velocity.append(commands[t : t + STEPS])
                moves.append(positions[t + 1 : t + 1 + STEPS] - positions[t])
    if not joints:
        raise DataError(
            f"{[str(s) for s in sources]}: no episode of split {split!r} lasts {STEPS} steps, "
            "expected at least one; record longer ones"
        )
    return Windows(
        joints=np.asarray(joints, np.float64),
        velocity=np.asarray(velocity, np.float64),
        moves=np.asarray(moves, np.float64),
    )


def bounds_of(windows: Windows) -> dict[str, tuple[float, ...]]:
    """1st and 99th percentiles of each joint's commands and moves."""
    found: dict[str, tuple[float, ...]] = {}
    for what, values in (("velocity", windows.velocity), ("delta", windows.moves)):
        low, high = np.percentile(values.reshape(-1, JOINTS), (1, 99), axis=0)
        wide = np.maximum(high, low + _NARROWEST)
        found |= {f"{what}_low": tuple(low.tolist()), f"{what}_high": tuple(wide.tolist())}
    return {name: found[name] for name in BOUNDS}


def flange_errors(found: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far apart poses (..., 6) are: in mm (...) and in degrees (...)."""
    one, other = panda.matrix_from_pose(found), panda.matrix_from_pose(true)
    place = 1000 * np.linalg.norm(one[..., :3, 3] - other[..., :3, 3], axis=-1)
    return place, np.degrees(rotation_angle(one[..., :3, :3], other[..., :3, :3]))


def validation_error(adapter: LearnedAdapter, windows: Windows) -> dict[str, float]:
    """Error of the joints over all steps, and of the flange after the last."""
    found = adapter.joints(windows.joints, windows.velocity)
    true = windows.joints[:, None] + windows.moves
    place, turn = flange_errors(panda.forward_pose(found[:, -1]), panda.forward_pose(true[:, -1]))
    return {
        "joint_rmse_rad": float(np.sqrt(np.mean((found - true) ** 2))),
        "flange_error_mm": float(place.mean()),
        "flange_error_deg": float(turn.mean()),
    }


def train_adapter(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    config: AdapterTrainConfig | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Train on the "train" episodes of ``sources``; resumable. Returns the error on "val" ones."""
    config = config or AdapterTrainConfig()
    windows, held_out = windows_of(sources, "train"), windows_of(sources, "val")
    network = _network(config, windows)
    out = Path(out)
    loop = Loop(network, config.loop, out / "training", settings=config.identity(), shared=True)
    tensors = [
        torch.as_tensor(values, dtype=torch.float32).to(loop.device)
        for values in (windows.joints, windows.velocity, windows.moves)
    ]

    def loss(
        module: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        joints, velocity, moves = drawn(config, tensors, generator, loop.share)
        answer = module(joints, velocity)
        return (answer - network.normalised(moves)).square().mean(), {}

    def validate(step: int) -> dict[str, float]:
        adapter = LearnedAdapter(network)
        return validation_error(adapter, held_out)

    loop.run(loss, validate, title="action adapter", progress=progress)
    with loop.averaged_weights():
        adapter = LearnedAdapter(network)
        errors = validation_error(adapter, held_out)
        if loop.is_main:
            card = {
                "training": config.identity(),
                "windows": len(windows),
                "held_out": len(held_out),
                "seconds": round(loop.seconds, 1),
                "torch": torch.__version__,
            }
            adapter.save(out, card | errors)
            (loop.folder / STATE_FILE).unlink(missing_ok=True)
    return errors


def drawn(
    config: AdapterTrainConfig,
    tensors: Sequence[Tensor],
    generator: torch.Generator,
    share: slice,
) -> tuple[Tensor, Tensor, Tensor]:
    """Joints, velocities and moves of a step's samples: the rows ``share`` of the global batch."""
    joints, velocity, moves = tensors
    batch = config.loop.batch
    rows = torch.randint(len(joints), (batch,), generator=generator)[share].to(joints.device)
    noise = torch.randn(batch, JOINTS, generator=generator)[share].to(joints.device)
    return joints[rows] + config.joint_noise_rad * noise, velocity[rows], moves[rows]


def _network(config: AdapterTrainConfig, windows: Windows) -> AdapterNetwork:
    if config.start is not None:
        network = LearnedAdapter.load(config.start).network.train()
        if network.hidden != config.hidden:
            raise ConfigError(
                f"hidden is {config.hidden}, but {config.start} has {network.hidden}; give its "
                "width, or leave start out"
            )
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        return AdapterNetwork(config.hidden, bounds_of(windows))
