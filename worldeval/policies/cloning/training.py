"""Training of cloned policies; one process trains many candidates on one copy of the data.

Enters: a BCTrainConfig, a store of demonstrations, a folder. Leaves: a ``policy-bc`` checkpoint in
that folder and the loop's metrics in its ``training``. Loss: Huber on the chunk, free beyond the
action bounds. Every draw is a function of (seed, step), as ``learning/loop.py`` wants it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from worldeval.data import checkpoint, digests
from worldeval.data.video import to_model
from worldeval.errors import ConfigError
from worldeval.learning.loop import STATE_FILE, Loop
from worldeval.learning.processes import SharedDraws
from worldeval.learning.resuming import refuse_changes
from worldeval.policies.cloning import behaviour_cloning
from worldeval.policies.cloning.augment import blur, jitter, shift
from worldeval.policies.cloning.choosing import choose
from worldeval.policies.cloning.config import BCTrainConfig
from worldeval.policies.cloning.data import Corruption, Demonstrations
from worldeval.policies.cloning.families import NearestNetwork, network_of
from worldeval.policies.cloning.fine_tuning import first_network, sampler_of
from worldeval.policies.cloning.network import PolicyNetwork, buckets_of, scaled
from worldeval.robots import RobotSpec

HUBER_BETA = 0.1


def train_policy(
    config: BCTrainConfig,
    out: str | Path,
    robot: RobotSpec,
    *,
    name: str | None = None,
    demonstrations: Demonstrations | None = None,
    corruption: Corruption | None = None,
    keep: Path | None = None,
    progress: bool = True,
) -> Path:
    """Train one candidate into the folder ``out``; continue if it was begun, return if finished.

    name: of the policy, by default the folder's. demonstrations: data in memory to share between
    calls (already corrupted, where that is wanted). keep: folder for a checkpoint at every
    validation, ``step-00020`` and so on. Raises ConfigError if ``out`` holds a training with other
    settings.
    """
    out = Path(out)
    if _finished(out, config):
        return out
    # before the data is read: a policy that cannot be fine-tuned so is told at once
    first = None if config.start_from is None else first_network(config, robot)
    if demonstrations is None:
        demonstrations = _load({out.name: config}, robot, corruption, progress)
    training = _Training(config, out, robot, name or out.name, demonstrations, first)
    return training.run(progress, keep)


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
    if len({(*(s for s, _ in c.sources), c.verdicts) for c in missing.values()}) > 1:
        raise ConfigError(
            "the candidates name different stores, expected one; train them separately"
        )
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
        [store for store, _ in several[0].sources],
        [c.selection for c in several],
        robot,
        verdicts=several[0].verdicts,
        progress=progress,
    )
    if corruption is not None:
        data.corrupt(corruption, share=max(c.corrupted_share for c in several), progress=progress)
    return data


def _finished(out: Path, config: BCTrainConfig) -> bool:
    if not (out / "config.json").is_file():
        return False
    before = checkpoint.read_header(out)["card"].get("training", {})
    refuse_changes(before, _identity(config), out)
    return True


def _identity(config: BCTrainConfig) -> dict[str, Any]:
    """What must be equal for a training to be the same one; of a first policy, its content."""
    first = None if config.start_from is None else checkpoint.digest(config.start_from)
    verdicts = [digests.of_file(path) for path in config.verdicts]
    return {**config.identity(), "start_from": first, "verdicts": verdicts}


class _Training:
    """One candidate: what the loop needs to train it."""

    def __init__(
        self,
        config: BCTrainConfig,
        out: Path,
        robot: RobotSpec,
        name: str,
        data: Demonstrations,
        first: PolicyNetwork | None = None,
    ) -> None:
        """first: the network to fine-tune; None trains a new one."""
        self.config, self.out, self.name, self.data = config, out, name, data
        network = config.network(robot) if first is None else first.config
        # only what was loaded can be drawn, but what is chosen depends on the store alone
        chosen = [
            choose(table, config.selection, place)
            for place, table in zip(data.places, data.tables, strict=True)
        ]
        self.episodes = sum(len(train) for train, _ in chosen)
        self.sampler = sampler_of(config, data, [train for train, _ in chosen])
        held_out = [episode for _, apart in chosen for episode in apart]
        self.held_out = data.rows_of(held_out, idle_share=0.0) if held_out else None
        self.views = [robot.views.index(camera) for camera in network.cameras]
        seed = config.loop.seed
        self.error = data.label_error(config.label_noise, seed) if config.label_noise else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = network_of(network) if first is None else first
        self.loop = Loop(
            self.model, config.loop, out / "training", settings=_identity(config), shared=True
        )
        self.device = self.loop.device
        self.network = network
        self.words, self.word_weights = (
            t.to(self.device) for t in buckets_of(data.texts, network.text_buckets)
        )

    def run(self, progress: bool, keep: Path | None = None) -> Path:
        def validate(step: int) -> dict[str, Any]:
            row = {"held_out_error": self.held_out_error()}
            if keep is not None:
                place = keep / f"step-{step:05d}"
                self._save(place, f"{self.name}-{place.name}", {"step": step, **row})
            return row

        if isinstance(self.model, NearestNetwork):
            self._remember(self.model)
        else:
            self.loop.run(self.step_loss, validate, title=self.name, progress=progress)
        if not self.loop.is_main:
            return self.out
        with self.loop.averaged_weights():
            seconds = round(self.loop.seconds, 1)
            row = {"seconds": seconds, "held_out_error": self.held_out_error()}
            self._save(self.out, self.name, row)
        (self.loop.folder / STATE_FILE).unlink(missing_ok=True)
        return self.out

    def _save(self, folder: Path, name: str, row: dict[str, Any]) -> None:
        """Write the weights in place, with ``row`` in the card."""
        card = {
            "training": _identity(self.config),
            "store": " + ".join(os.path.basename(store) for store in self.config.stores),
            "episodes": self.episodes,
            "frames": len(self.sampler.rows),
            **row,
            "torch": torch.__version__,
        }
        behaviour_cloning.save(folder, self.model, name=name, card=card, robot=self.data.robot)

    def _remember(self, model: NearestNetwork) -> None:
        """Samples spread evenly over the rows, in place of training."""
        count = self.network.remembered
        rows = self.sampler.rows
        if count > len(rows):
            raise ConfigError(
                f"remembered is {count}, but {self.episodes} demonstrations have {len(rows)} "
                "samples; remember fewer or take more demonstrations"
            )
        rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
        drawn = self.data.batch(
            rows,
            views=self.views,
            chunk=self.network.chunk,
            labels=self.config.labels,
            label_error=self.error,
        )
        text = torch.from_numpy(drawn.texts)
        motion = drawn.targets.copy()
        motion[..., self.data.moving] *= self.config.label_gain
        targets = scaled(
            torch.from_numpy(motion), self.network.action_low, self.network.action_high
        )
        model.remember(
            torch.from_numpy(to_model(drawn.frames)),
            self._poses(drawn.poses),
            self.words[text],
            self.word_weights[text],
            targets.clamp(-1, 1),
        )

    def step_loss(
        self, module: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        rng = np.random.default_rng([config.loop.seed, 1, step])
        rows = self.sampler.draw(rng, config.loop.batch)
        whole = self.data.weights(rows, self.network.chunk, config.hold_weight)
        rng_of_rows = SharedDraws(rng, len(rows), self.loop.share)
        rows = rows[self.loop.share]
        drawn = self.data.batch(
            rows,
            views=self.views,
            chunk=self.network.chunk,
            labels=config.labels,
            hold_weight=config.hold_weight,
            blurred=rng_of_rows.random(len(rows)) < 0.5,
            label_error=self.error,
        )
        frames = shift(drawn.frames, rng_of_rows, config.shift_px)
        images = torch.from_numpy(to_model(frames)).to(self.device)
        images = blur(jitter(images, rng_of_rows, config.jitter), rng_of_rows, config.blur_share)
        poses = self._poses(drawn.poses)
        poses += self._tensor(rng_of_rows.normal(0, 1, drawn.poses.shape)) * config.state_noise
        told = self._tensor(rng_of_rows.random(len(rows)) >= config.gripper_dropout)
        poses[:, list(self.data.robot.pose_grippers)] *= told[:, None]
        text = torch.from_numpy(drawn.texts).to(self.device)
        weights = self.word_weights[text]
        kept = self._tensor(rng_of_rows.random(weights.shape) >= config.word_dropout)
        predicted = module(images, poses, self.words[text], weights * kept)
        return self._loss(predicted, drawn.targets, drawn.weights, whole), {}

    def _loss(
        self, predicted: Tensor, targets: np.ndarray, weights: np.ndarray, whole: np.ndarray
    ) -> Tensor:
        """The weighted mean over the global batch, of whose weights ``whole`` are all, is the mean
        of this over its shares."""
        motion = targets.copy()
        motion[..., self.data.moving] *= self.config.label_gain
        network = self.network
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
        total = torch.from_numpy(whole).to(self.device).sum()
        return (each.mean(-1) * weight).sum() / total * self.loop.shares

    @torch.no_grad()
    def held_out_error(self, most: int = 512) -> float | None:
        """Mean absolute error of the weights in place on held-out frames, in scaled units."""
        if self.held_out is None:
            return None
        rows = self.held_out[
            np.linspace(0, len(self.held_out) - 1, min(most, len(self.held_out))).astype(int)
        ]
        total = count = 0.0
        network = self.network
        for part in np.array_split(rows, -(-len(rows) // 128)):
            drawn = self.data.batch(part, views=self.views, chunk=network.chunk)
            text = torch.from_numpy(drawn.texts).to(self.device)
            images = torch.from_numpy(to_model(drawn.frames)).to(self.device)
            answer = (
                self.model(
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
        network = self.network
        return scaled(torch.from_numpy(poses), network.pose_low, network.pose_high).to(self.device)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self.device)
