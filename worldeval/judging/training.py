"""Trains a learned judge, calibrates it on validation rollouts, and says how good it is.

Enters: episode stores with true outcomes, recorded and imagined. Leaves, in ``out``: the judge's
checkpoint, ``validation.json`` (counts per world, task, and both), ``validation.parquet`` (one row
a rollout) and, in ``training``, the metrics and the state of ``learning/loop.py``, from which a
killed training goes on exactly where it was: batches and augmentation depend on seed and step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldeval.data.fit import check_made_for
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, MismatchError
from worldeval.judging.augmentation import AugmentConfig, augment
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.learned import LearnedJudge
from worldeval.judging.loading import load_judge
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.samples import Batch, FrameCache, Sampler
from worldeval.judging.validation import (
    JudgeReport,
    calibrate_judge,
    score_stores,
    write_validation,
)
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.robots import RobotSpec

LossOf = Callable[[Tensor, Batch], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class CalibratedTraining:
    """What the trainings of all learned judges have: a loop, a score, and its calibration."""

    loop: LoopConfig
    smooth: int = 3
    """A rollout's score is the highest mean of so many successive looks."""
    target_precision: float = 0.95
    """Share of its successes, and of its failures, that must be right on the validation stores;
    what is less certain stays undecided."""
    max_abstention: float = 0.2
    """Largest share of rollouts that may stay undecided, even if the precision is then missed."""

    def __post_init__(self) -> None:
        self.check_counts("smooth")
        self.check_shares("target_precision", "max_abstention")

    def check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected at least 1")

    def check_shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected between 0 and 1")

    def identity(self) -> dict[str, Any]:
        """What must be equal for a training to be the same one: all but how it is carried out."""
        # tuples as lists and paths as text, as they come back
        values = json.loads(json.dumps(asdict(self), default=str))
        del values["loop"]
        return {**values, **self.loop.identity()}


def judge_loop(*, steps: int, batch: int, learning_rate: float) -> LoopConfig:
    """How judges learn; see ``LoopConfig``."""
    return LoopConfig(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        warmup=100,
        schedule="cosine",
        weight_decay=0.02,
        beta2=0.999,
        ema=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class JudgeTrainConfig(CalibratedTraining):
    """How a judge is trained and calibrated."""

    loop: LoopConfig = field(
        default_factory=lambda: judge_loop(steps=3000, batch=64, learning_rate=2e-3)
    )
    solved_share: float = 0.6
    """Of the draws from a successful episode, those at frames where it is solved."""
    near_share: float = 0.5
    """Of the unsolved frames, those from the last ``near_frames`` unsolved ones."""
    near_frames: int = 8
    """How many of the last unsolved frames of a successful episode are near ones."""
    opposed_share: float = 0.15
    """Of the draws from successes of an opposed task, those shown with the opposite words."""
    rewording_share: float = 0.5
    """Draws that use another wording of their own task."""
    border_share: float = 0.0
    """Draws from frames near the limit of success, where the distance to it is known."""
    pose_dropout: float = 0.3
    """Draws whose poses are hidden, lest the pixels be ignored."""
    start_from: Path | None = None
    """Checkpoint of a learned judge of the same inputs, whose weights are gone on from; what it
    answers may be another thing."""
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    stride: int = 2
    """The judge looks at every so many frames of a rollout, and always at the last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("near_frames", "stride")
        self.check_shares(
            "solved_share", "near_share", "opposed_share", "rewording_share", "border_share",
            "pose_dropout",
        )  # fmt: skip


def train_judge(
    config: JudgeConfig,
    out: str | Path,
    *,
    training: JudgeTrainConfig,
    stores: Sequence[EpisodeStore],
    validation: Sequence[EpisodeStore],
    instructions: Mapping[str, Sequence[str]] | None = None,
    opposed: Mapping[str, str] | None = None,
    robot: RobotSpec | None = None,
    progress: bool = True,
) -> JudgeReport:
    """Train (or go on training) the classifier in ``out`` and calibrate it.

    instructions: wordings of each task; opposed: task -> the task that cannot hold at the same
    time, for hard negatives. robot: whose stores these are, kept whole beside it. Decoded frames
    are cached beside ``out`` until the end.
    """

    def loss(logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        labels = torch.from_numpy(batch.labels).to(logits.device)
        right = ((logits > 0) == (labels > 0.5)).float().mean().item()
        return F.binary_cross_entropy_with_logits(logits, labels), {"accuracy": right}

    return train_learned(
        SuccessClassifier,
        loss,
        config,
        out,
        training=training,
        stores=stores,
        validation=validation,
        instructions=instructions,
        opposed=opposed,
        robot=robot,
        progress=progress,
    )


def train_learned(
    make: Callable[..., LearnedJudge],
    loss_of: LossOf,
    config: JudgeConfig,
    out: str | Path,
    *,
    training: JudgeTrainConfig,
    stores: Sequence[EpisodeStore],
    validation: Sequence[EpisodeStore],
    instructions: Mapping[str, Sequence[str]] | None = None,
    opposed: Mapping[str, str] | None = None,
    robot: RobotSpec | None = None,
    progress: bool = True,
) -> JudgeReport:
    """Train (or go on training) any learned judge in ``out``; the rest is as of ``train_judge``.

    make: the judge's class, or what makes one from (network, calibration, stride, smooth, device).
    loss_of: (the network's outputs, batch) -> (mean loss, what else to report).
    """
    out = Path(out)
    cache_folder = out.with_name(f".{out.name}.frames")
    out.mkdir(parents=True, exist_ok=True)
    cache = FrameCache.build(stores, cache_folder, config.views)
    check_fit(config, cache)
    sampler = Sampler(
        cache,
        lag=config.lag,
        batch=training.loop.batch,
        seed=training.loop.seed,
        solved_share=training.solved_share,
        near_share=training.near_share,
        near_frames=training.near_frames,
        opposed_share=training.opposed_share,
        rewording_share=training.rewording_share,
        border_share=training.border_share,
        instructions=instructions or {},
        opposed=opposed or {},
    )
    network = _optimise(config, training, sampler, loss_of, out, robot, progress)
    judge = make(
        network,
        Calibration(),
        stride=training.stride,
        smooth=training.smooth,
        device=next(network.parameters()).device.type,
    )
    judge.robot = robot
    report = finished(
        judge,
        out,
        training=training,
        validation=validation,
        groups={"/".join(map(str, name)): len(of) for name, of in sampler.groups.items()},
        card={"training": training.identity(), "opposed": dict(opposed or {})},
    )
    shutil.rmtree(cache_folder, ignore_errors=True)
    return report


def finished(
    judge: LearnedJudge,
    out: Path,
    *,
    training: CalibratedTraining,
    validation: Sequence[EpisodeStore],
    groups: Mapping[str, int],
    card: Mapping[str, Any],
) -> JudgeReport:
    """Calibrate a judge that has learned, and write it and how good it is to ``out``.

    groups: name -> how many training episodes of that kind there were. card: what else its
    checkpoint tells.
    """
    # Weights are kept as float16; the calibration has to belong to exactly those.
    weights = judge.network.state_dict()
    judge.network.load_state_dict({name: value.half().float() for name, value in weights.items()})
    rollouts = score_stores(judge, validation)
    summary = calibrate_judge(
        judge, rollouts, target=training.target_precision, max_abstention=training.max_abstention
    )
    summary["groups"] = dict(groups)
    judge.save(out, card={**card, "validation": summary})
    write_validation(out, rollouts, summary)
    return JudgeReport(checkpoint=out, steps=training.loop.steps, summary=summary)


def _optimise(
    config: JudgeConfig,
    training: JudgeTrainConfig,
    sampler: Sampler,
    loss_of: LossOf,
    out: Path,
    robot: RobotSpec | None,
    progress: bool,
) -> JudgeNetwork:
    network = _first_network(config, training, sampler.cache.poses, robot)
    loop = Loop(
        network,
        training.loop,
        out / "training",
        settings={**asdict(config), **training.identity()},
        parameters=[
            {"params": [p for p in network.parameters() if p.ndim > 1]},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
    )

    def loss(
        module: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        batch = sampler.draw(step)
        rng = np.random.default_rng([training.loop.seed, step, 1])  # apart from the sampler's own
        images = torch.from_numpy(batch.images).to(loop.device)
        images = augment(images, training.augmentation, rng)
        known = (rng.random(len(images)) >= training.pose_dropout).astype(np.float32)
        poses = torch.from_numpy(batch.poses).to(loop.device)
        words = network.bag(batch.instructions)
        outputs = module(images, words, poses, torch.from_numpy(known).to(loop.device))
        return loss_of(outputs.float(), batch)

    loop.run(loss, title="judge", progress=progress)
    network.load_state_dict(loop.averaged)
    return network.eval()


def _first_network(
    config: JudgeConfig, training: JudgeTrainConfig, poses: np.ndarray, robot: RobotSpec | None
) -> JudgeNetwork:
    """The network that training begins with; poses: (N, P), for their unit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.loop.seed)
        network = JudgeNetwork(config)
    if training.start_from is None:
        network.pose_centre.copy_(torch.from_numpy(poses.mean(0)))
        network.pose_spread.copy_(torch.from_numpy(poses.std(0).clip(1e-3)))
        return network
    earlier = load_judge(training.start_from)
    if not isinstance(earlier, LearnedJudge):
        raise ConfigError(f"start_from is {training.start_from}, expected a learned judge")
    if robot is not None:
        check_made_for(f"judge {training.start_from}", earlier.robot, robot)
    if replace(earlier.network.config, outputs=config.outputs) != config:
        raise MismatchError(
            f"{training.start_from} was trained with {earlier.network.config}, now it is {config}; "
            "start from a judge of the same views, size and shape, or from nothing"
        )
    tensors = network.state_dict() | {
        name: tensor
        for name, tensor in earlier.network.state_dict().items()
        if not name.startswith("answer.") or earlier.network.config.outputs == config.outputs
    }
    network.load_state_dict(tensors)
    return network


def check_fit(config: JudgeConfig, cache: FrameCache) -> None:
    size, pose_dim = tuple(cache.frames.shape[2:4]), cache.poses.shape[1]
    if size != tuple(config.image_size) or pose_dim != config.pose_dim:
        raise MismatchError(
            f"the stores have frames of {size} pixels and poses of {pose_dim} numbers, the judge "
            f"is configured for {tuple(config.image_size)} and {config.pose_dim}"
        )
