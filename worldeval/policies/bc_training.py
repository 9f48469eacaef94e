"""Training of cloned policies; one process trains many candidates on one copy of the data.

Enters: a BCTrainConfig, a store of demonstrations, a folder. Leaves: a ``policy-bc`` checkpoint and
``metrics.jsonl`` in that folder. Loss: Huber on the chunk, free beyond the action bounds.

Every draw is a function of (seed, step), so after ``kill -9`` the same call continues from the last
saved state (weights, EMA, optimiser, step) and ends with the very weights of an uninterrupted run.
Ctrl-C saves the state before it leaves.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from worldeval.data import checkpoint
from worldeval.data.resuming import (
    append_row,
    forget_rows_after,
    load_state,
    save_state,
    uninterrupted,
)
from worldeval.data.video import to_model
from worldeval.errors import ConfigError
from worldeval.policies import behaviour_cloning
from worldeval.policies.bc_augment import blur, jitter, shift
from worldeval.policies.bc_config import BCTrainConfig
from worldeval.policies.bc_data import Corruption, Demonstrations, choose
from worldeval.policies.bc_network import BCNetwork, buckets_of, scaled
from worldeval.robots import RobotSpec

STATE_FILE = "training-state.pt"
METRICS_FILE = "metrics.jsonl"
LOG_EVERY = 50
HUBER_BETA = 0.1


def train_policy(
    config: BCTrainConfig,
    out: str | Path,
    robot: RobotSpec,
    *,
    name: str | None = None,
    demonstrations: Demonstrations | None = None,
    corruption: Corruption | None = None,
    progress: bool = True,
) -> Path:
    """Train one candidate into the folder ``out``; continue if it was begun, return if finished.

    name: of the policy, by default the folder's. demonstrations: data in memory to share between
    calls (already corrupted, where that is wanted). Raises ConfigError if ``out`` holds a training
    with other settings.
    """
    out = Path(out)
    if _finished(out, config):
        return out
    if demonstrations is None:
        demonstrations = _load({out.name: config}, robot, corruption, progress)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        return _Training(config, out, robot, name or out.name, demonstrations).run(progress)
    finally:
        torch.set_num_threads(threads)


def train_policies(
    configs: Mapping[str, BCTrainConfig],
    out: str | Path,
    robot: RobotSpec,
    *,
    corruption: Corruption | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Train candidates by name into ``out/<name>``, loading the data once; resumable as a whole."""
    out = Path(out)
    missing = {name: c for name, c in configs.items() if not _finished(out / name, c)}
    if len({c.store for c in missing.values()}) > 1:
        raise ConfigError("the candidates name different stores, expected one; train them apart")
    if missing:
        shared = _load(missing, robot, corruption, progress)
        for name, config in missing.items():
            train_policy(config, out / name, robot, demonstrations=shared, progress=progress)
    return {name: out / name for name in configs}


def _load(
    configs: Mapping[str, BCTrainConfig],
    robot: RobotSpec,
    corruption: Corruption | None,
    progress: bool,
) -> Demonstrations:
    several = list(configs.values())
    data = Demonstrations.load(
        several[0].store, [c.selection for c in several], robot, progress=progress
    )
    if corruption is not None:
        data.corrupt(corruption, share=max(c.corrupted_share for c in several), progress=progress)
    return data


def _finished(out: Path, config: BCTrainConfig) -> bool:
    if not (out / "config.json").is_file():
        return False
    card = checkpoint.read_header(out)["card"]
    _same(card.get("training", {}), config, out)
    return True


def _same(before: Mapping[str, Any], config: BCTrainConfig, out: Path) -> None:
    for key, value in config.identity().items():
        if before.get(key) != value:
            raise ConfigError(
                f"{out} holds a training with {key} = {before.get(key)!r}, now it is "
                f"{value!r}; choose another folder, or delete that one"
            )


class _Training:
    """The state of one training, and its loop."""

    def __init__(
        self, config: BCTrainConfig, out: Path, robot: RobotSpec, name: str, data: Demonstrations
    ) -> None:
        self.config, self.out, self.name, self.data = config, out, name, data
        self.device = torch.device(config.device)
        network = config.network(robot)
        # only what was loaded can be drawn, but what is chosen depends on the store alone
        train, held_out = choose(data.table, config.selection)
        self.episodes = len(train)
        self.rows = data.rows_of(train, idle_share=config.idle_share)
        self.held_out = data.rows_of(held_out, idle_share=0.0) if held_out else None
        self.views = [robot.views.index(camera) for camera in network.cameras]
        self.error = (
            data.label_error(config.label_noise, config.seed) if config.label_noise else None
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = BCNetwork(network)
        self.model.to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.words, self.word_weights = (
            t.to(self.device) for t in buckets_of(data.texts, network.text_buckets)
        )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0
        self.seconds = 0.0
        self.losses: list[float] = []  # since the last row of metrics

    def run(self, progress: bool) -> Path:
        from tqdm import tqdm

        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()
        saved_s = counted_s = time.monotonic()
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            desc=self.name,
            unit="step",
            disable=None if progress else True,
        )
        try:
            with bar:
                while self.step < self.config.steps:
                    with uninterrupted():
                        self.losses.append(self._train_step())
                        now_s = time.monotonic()
                        self.seconds, counted_s = self.seconds + now_s - counted_s, now_s
                        if self.step % LOG_EVERY == 0 or self.step == self.config.steps:
                            bar.set_postfix(loss=f"{self._log()['loss']:.4f}")
                    bar.update()
                    if now_s - saved_s >= self.config.save_every_s and self.step % LOG_EVERY == 0:
                        self._save_state()
                        saved_s = now_s
        except KeyboardInterrupt:
            self._save_state()
            raise
        return self._finish()

    def _train_step(self) -> float:
        config = self.config
        rng = np.random.default_rng([config.seed, 1, self.step])
        rows = self.rows[rng.integers(0, len(self.rows), config.batch)]
        drawn = self.data.batch(
            rows,
            views=self.views,
            chunk=self.model.config.chunk,
            labels=config.labels,
            hold_weight=config.hold_weight,
            blurred=rng.random(len(rows)) < 0.5,
            label_error=self.error,
        )
        frames = shift(drawn.frames, rng, config.shift_px)
        images = torch.from_numpy(to_model(frames)).to(self.device)
        images = blur(jitter(images, rng, config.jitter), rng, config.blur_share)
        poses = self._poses(drawn.poses)
        poses += self._tensor(rng.normal(0, 1, drawn.poses.shape)) * config.state_noise
        poses[:, -1] *= self._tensor(rng.random(len(rows)) >= config.gripper_dropout)
        text = torch.from_numpy(drawn.texts).to(self.device)
        weights = self.word_weights[text]
        kept = self._tensor(rng.random(weights.shape) >= config.word_dropout)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * self._schedule()
        predicted = self.model(images, poses, self.words[text], weights * kept)
        loss = self._loss(predicted, drawn.targets, drawn.weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))  # short memory at first
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        return float(loss.detach())

    def _schedule(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup_steps))
        return warm * 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps))

    def _loss(self, predicted: Tensor, targets: np.ndarray, weights: np.ndarray) -> Tensor:
        motion = targets.copy()
        motion[..., :-1] *= self.config.label_gain
        network = self.model.config
        target = scaled(torch.from_numpy(motion), network.action_low, network.action_high)
        target = target.clamp(-1, 1).to(self.device)
        # beyond a bound all actions are one and the same: no pull back from there
        wanted = torch.where(
            (target >= 1) & (predicted > 1) | (target <= -1) & (predicted < -1),
            predicted.detach(),
            target,
        )
        each = functional.smooth_l1_loss(predicted, wanted, beta=HUBER_BETA, reduction="none")
        weight = torch.from_numpy(weights).to(self.device)
        return (each.mean(-1) * weight).sum() / weight.sum()

    @torch.no_grad()
    def held_out_error(self, most: int = 512) -> float | None:
        """Mean absolute error of the averaged weights on held-out frames, in scaled units."""
        if self.held_out is None:
            return None
        rows = self.held_out[
            np.linspace(0, len(self.held_out) - 1, min(most, len(self.held_out))).astype(int)
        ]
        total = count = 0.0
        network = self.model.config
        for part in np.array_split(rows, -(-len(rows) // 128)):
            drawn = self.data.batch(part, views=self.views, chunk=network.chunk)
            text = torch.from_numpy(drawn.texts).to(self.device)
            images = torch.from_numpy(to_model(drawn.frames)).to(self.device)
            answer = (
                self.average(
                    images, self._poses(drawn.poses), self.words[text], self.word_weights[text]
                )
                .clamp(-1, 1)
                .cpu()
            )
            target = scaled(
                torch.from_numpy(drawn.targets), network.action_low, network.action_high
            ).clamp(-1, 1)
            error = (answer - target).abs().mean(-1).numpy()
            total += float((error * drawn.weights).sum())
            count += float(drawn.weights.sum())
        return total / count

    def _poses(self, poses: np.ndarray) -> Tensor:
        network = self.model.config
        return scaled(torch.from_numpy(poses), network.pose_low, network.pose_high).to(self.device)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self.device)

    def _log(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "step": self.step,
            "loss": float(np.mean(self.losses)),
            "seconds": round(self.seconds, 2),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        if self.step % (10 * LOG_EVERY) == 0 or self.step == self.config.steps:
            row["held_out_error"] = self.held_out_error()
        append_row(self.out / METRICS_FILE, row)
        self.losses = []
        return row

    def _save_state(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "identity": json.dumps(self.config.identity()),
        }
        save_state(self.out / STATE_FILE, state)

    def _resume(self) -> None:
        path = self.out / STATE_FILE
        if not path.is_file():
            forget_rows_after(self.out / METRICS_FILE, 0)
            return
        state = load_state(path, self.device)
        _same(json.loads(state["identity"]), self.config, self.out)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.losses = list(state.get("losses", []))
        forget_rows_after(self.out / METRICS_FILE, self.step)

    def _finish(self) -> Path:
        card = {
            "training": self.config.identity(),
            "store": os.path.basename(self.config.store),
            "episodes": self.episodes,
            "frames": len(self.rows),
            "seconds": round(self.seconds, 1),
            "held_out_error": self.held_out_error(),
            "torch": torch.__version__,
        }
        behaviour_cloning.save(self.out, self.average, name=self.name, card=card)
        (self.out / STATE_FILE).unlink(missing_ok=True)
        return self.out
