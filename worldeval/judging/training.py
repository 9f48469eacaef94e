"""Trains a ``SuccessClassifier``, calibrates it on validation rollouts, and says how good it is.

Enters: episode stores with true outcomes, recorded and imagined. Leaves, in ``out``: the judge's
checkpoint, ``metrics.jsonl``, ``validation.json`` (counts per world, task, and both),
``validation.parquet`` (one row a rollout) and ``state.pt``, from which a killed training goes on
exactly where it was: batches, augmentation and learning rate depend on seed and step alone.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from worldeval.data.episodes import EpisodeStore
from worldeval.data.resuming import (
    append_row,
    forget_rows_after,
    load_state,
    save_state,
    uninterrupted,
)
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.judging.augmentation import AugmentConfig, augment
from worldeval.judging.calibration import Calibration
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.samples import FrameCache, Sampler
from worldeval.judging.validation import (
    JudgeReport,
    calibrate_judge,
    score_stores,
    write_validation,
)

Progress = Callable[[dict[str, Any]], None]
_FREE_FIELDS = ("log_every", "save_every", "device")  # may differ when a training goes on


@dataclass(frozen=True, kw_only=True)
class JudgeTrainConfig:
    """How a judge is trained and calibrated."""

    steps: int = 3000
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_steps: int = 100
    solved_share: float = 0.6
    """Of the draws from a successful episode, those at frames where it is solved."""
    near_share: float = 0.5
    """Of the unsolved frames, those from the last ``near_frames`` unsolved ones."""
    near_frames: int = 8
    opposed_share: float = 0.15
    """Of the draws from successes of an opposed task, those shown with the opposite words."""
    rewording_share: float = 0.5
    """Draws that use another wording of their own task."""
    pose_dropout: float = 0.3
    """Draws whose poses are hidden, lest the pixels be ignored."""
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    stride: int = 2
    smooth: int = 3
    target_precision: float = 0.95
    max_abstention: float = 0.2
    seed: int = 0
    precision: str = "float32"
    """"bfloat16" halves the time on CPUs with AMX and on GPUs; weights stay float32."""
    log_every: int = 50
    save_every: int = 250
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "near_frames", "stride", "smooth", "log_every",
                     "save_every"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected at least 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate!r}, expected above 0")
        if self.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision is {self.precision!r}, expected 'float32' or 'bfloat16'")
        for name in ("solved_share", "near_share", "opposed_share", "rewording_share",
                     "pose_dropout", "target_precision", "max_abstention"):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected between 0 and 1")


def train_judge(
    config: JudgeConfig,
    out: str | Path,
    *,
    training: JudgeTrainConfig,
    stores: Sequence[EpisodeStore],
    validation: Sequence[EpisodeStore],
    instructions: Mapping[str, Sequence[str]] | None = None,
    opposed: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> JudgeReport:
    """Train (or go on training) the judge in ``out`` and calibrate it.

    instructions: wordings of each task; opposed: task -> the task that cannot hold at the same
    time, for hard negatives. Decoded frames are cached beside ``out`` until the end.
    """
    out = Path(out)
    cache_folder = out.with_name(f".{out.name}.frames")
    out.mkdir(parents=True, exist_ok=True)
    cache = FrameCache.build(stores, cache_folder, config.views)
    _check_fit(config, cache)
    sampler = Sampler(
        cache,
        lag=config.lag,
        batch=training.batch,
        seed=training.seed,
        solved_share=training.solved_share,
        near_share=training.near_share,
        near_frames=training.near_frames,
        opposed_share=training.opposed_share,
        rewording_share=training.rewording_share,
        instructions=instructions or {},
        opposed=opposed or {},
    )
    network = _optimise(config, training, sampler, out, progress)
    judge = SuccessClassifier(
        network,
        Calibration(),
        stride=training.stride,
        smooth=training.smooth,
        device=training.device,
    )
    # Weights are kept as float16; the calibration has to belong to exactly those.
    network.load_state_dict(
        {name: value.half().float() for name, value in network.state_dict().items()}
    )
    rollouts = score_stores(judge, validation)
    summary = calibrate_judge(
        judge, rollouts, target=training.target_precision, max_abstention=training.max_abstention
    )
    summary["groups"] = {"/".join(map(str, n)): len(m) for n, m in sampler.groups.items()}
    judge.save(
        out,
        card={"training": asdict(training), "validation": summary,
              "opposed": dict(opposed or {})},
    )  # fmt: skip
    write_validation(out, rollouts, summary)
    shutil.rmtree(cache_folder, ignore_errors=True)
    return JudgeReport(checkpoint=out, steps=training.steps, summary=summary)


def _optimise(
    config: JudgeConfig,
    training: JudgeTrainConfig,
    sampler: Sampler,
    out: Path,
    progress: Progress | None,
) -> JudgeNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = JudgeNetwork(config)
    poses = sampler.cache.poses
    network.pose_centre.copy_(torch.from_numpy(poses.mean(0)))
    network.pose_spread.copy_(torch.from_numpy(poses.std(0).clip(1e-3)))
    network.to(training.device)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": training.weight_decay},
         {"params": plain, "weight_decay": 0.0}],
        lr=training.learning_rate,
    )  # fmt: skip
    identity = _identity(config, training)
    # recent: loss and accuracy of each step since the last line of metrics
    step, recent = _restore(out, network, optimiser, identity, training.device)
    metrics = out / "metrics.jsonl"
    forget_rows_after(metrics, step)
    network.train()
    begin, seen = time.perf_counter(), 0
    try:
        while step < training.steps:
            rate = _learning_rate(training, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss, right = _loss(network, sampler, training, step)
            if not math.isfinite(loss.item()):
                raise DataError(
                    f"the loss became {loss.item()} at step {step}; lower learning_rate "
                    f"({training.learning_rate}) and start in a new folder"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            with uninterrupted():
                optimiser.step()
                step += 1
                seen += training.batch
                recent.append((loss.item(), right))
                if step % training.log_every == 0 or step == training.steps:
                    seconds = time.perf_counter() - begin
                    means = np.mean(recent, axis=0)
                    line = {
                        "step": step, "loss": float(means[0]), "accuracy": float(means[1]),
                        "learning_rate": rate, "samples_per_second": seen / seconds,
                    }  # fmt: skip
                    append_row(metrics, line)
                    if progress:
                        progress(line)
                    recent, begin, seen = [], time.perf_counter(), 0
            if step % training.save_every == 0 or step == training.steps:
                _keep(out, network, optimiser, identity, step, recent)
    except KeyboardInterrupt:
        _keep(out, network, optimiser, identity, step, recent)
        raise
    return network.eval()


def _loss(
    network: JudgeNetwork, sampler: Sampler, training: JudgeTrainConfig, step: int
) -> tuple[torch.Tensor, float]:
    batch = sampler.draw(step)
    rng = np.random.default_rng([training.seed, step, 1])  # apart from the sampler's own
    images = torch.from_numpy(batch.images).to(training.device)
    images = augment(images, training.augmentation, rng)
    labels = torch.from_numpy(batch.labels).to(training.device)
    known = (rng.random(len(labels)) >= training.pose_dropout).astype(np.float32)
    poses = torch.from_numpy(batch.poses).to(training.device)
    words = network.bag(batch.instructions)
    half = training.precision == "bfloat16"
    with torch.autocast(torch.device(training.device).type, torch.bfloat16, enabled=half):
        logits = network(images, words, poses, torch.from_numpy(known).to(training.device))
    logits = logits.float()
    right = ((logits > 0) == (labels > 0.5)).float().mean().item()
    return F.binary_cross_entropy_with_logits(logits, labels), right


def _learning_rate(training: JudgeTrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    span = max(training.steps - training.warmup_steps, 1)
    share = (step - training.warmup_steps) / span
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def _identity(config: JudgeConfig, training: JudgeTrainConfig) -> dict[str, Any]:
    merged = {**asdict(config), **asdict(training)}
    for name in _FREE_FIELDS:
        merged.pop(name)
    return json.loads(json.dumps(merged))  # tuples as lists, as they come back from a file


def _keep(
    out: Path,
    network: JudgeNetwork,
    optimiser: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    step: int,
    recent: Sequence[tuple[float, float]],
) -> None:
    state = {"step": step, "network": network.state_dict(), "optimiser": optimiser.state_dict(),
             "recent": list(recent), "identity": json.dumps(identity)}  # fmt: skip
    save_state(out / "state.pt", state)


def _restore(
    out: Path,
    network: JudgeNetwork,
    optimiser: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    device: str,
) -> tuple[int, list[tuple[float, float]]]:
    path = out / "state.pt"
    if not path.is_file():
        return 0, []
    state = load_state(path, device)
    before = json.loads(state["identity"])
    for name, value in identity.items():
        if before.get(name) != value:
            raise MismatchError(
                f"{path} was begun with {name} {before.get(name)!r}, but now it is {value!r}; use "
                "the old value, another folder, or remove the file"
            )
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), list(state.get("recent", []))


def _check_fit(config: JudgeConfig, cache: FrameCache) -> None:
    size, pose_dim = tuple(cache.frames.shape[2:4]), cache.poses.shape[1]
    if size != tuple(config.image_size) or pose_dim != config.pose_dim:
        raise MismatchError(
            f"the stores have frames of {size} pixels and poses of {pose_dim} numbers, the judge "
            f"is configured for {tuple(config.image_size)} and {config.pose_dim}"
        )
