"""Trains a path judge on top of a margin judge, whose looks at single frames stay as they are.

Enters: a margin judge and episode stores with true outcomes, recorded and imagined. Leaves, in
``out``: the judge's checkpoint, calibrated, with the files of ``training.py``. Each frame is looked
at once (minutes; kept beside ``out`` until the end, gone on from when killed), after which the
recurrent network learns in minutes more.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from worldeval.data import checkpoint
from worldeval.data.fit import check_made_for
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import to_model
from worldeval.errors import ConfigError, DataError
from worldeval.judging.learned import moments_of
from worldeval.judging.loading import load_judge
from worldeval.judging.margin import MARGINS, SOFTNESS, MarginJudge
from worldeval.judging.margin_training import HUBER_BETA
from worldeval.judging.path import PathHead, PathJudge, PathNetwork, path_network
from worldeval.judging.probability import Calibration
from worldeval.judging.samples import BORDER, UNKNOWN, FrameCache
from worldeval.judging.training import CalibratedTraining, check_fit, finished, judge_loop
from worldeval.judging.validation import JudgeReport
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.robots import RobotSpec

LOOKS_AT_ONCE = 128
IMAGINED = "imagination"
"""The world of imagined rollouts, as ``samples.world_of`` says it."""


@dataclass(frozen=True, kw_only=True)
class PathTrainConfig(CalibratedTraining):
    """How a path judge is trained and calibrated."""

    loop: LoopConfig = field(
        default_factory=lambda: judge_loop(steps=1500, batch=48, learning_rate=1.5e-3)
    )
    memory: int = 128
    """Numbers that are carried from frame to frame."""
    input_noise: float = 0.1
    """Added to the inputs, in units of their spread."""
    input_dropout: float = 0.2
    """Inputs that are hidden throughout an episode."""
    border_weight: float = 3.0
    """Of frames near the limit of success against the others."""
    regression_weight: float = 2.0
    """Of the error of the margin against the logistic loss of its sign."""
    smooth: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("memory")
        self.check_shares("input_dropout")
        for name in ("input_noise", "border_weight", "regression_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 0 or more")


def train_path(
    margin: str | Path,
    out: str | Path,
    *,
    training: PathTrainConfig,
    stores: Sequence[EpisodeStore],
    validation: Sequence[EpisodeStore],
    robot: RobotSpec | None = None,
    progress: bool = True,
) -> JudgeReport:
    """Train (or go on training) a path judge in ``out`` and calibrate it on ``validation``.

    margin: checkpoint of the margin judge whose looks it follows. robot: whose stores these are,
    kept whole beside it. Raises ConfigError where ``margin`` is another judge, MismatchError where
    the stores' views or poses are not those that it learned.
    """
    out, trunk = Path(out), load_judge(margin)
    if not isinstance(trunk, MarginJudge) or isinstance(trunk, PathJudge):
        raise ConfigError(f"margin is {margin}, a {trunk.name}; expected a margin judge")
    if robot is not None:
        check_made_for(f"judge {margin}", trunk.robot, robot)
    network = path_network(trunk.network, training.memory)
    out.mkdir(parents=True, exist_ok=True)
    kept = out.with_name(f".{out.name}.frames")
    cache = FrameCache.build(stores, kept, network.config.views)
    check_fit(network.config, cache)
    digest = checkpoint.digest(margin)
    looks = looked_at(network, cache, kept / f"looks-{digest}.bin", progress)
    paths = Paths(cache, looks, network)
    settings = {"margin": digest, **training.identity()}
    _optimise(network, paths, training, settings, out, progress)
    judge = PathJudge(network, Calibration(), stride=1, smooth=training.smooth)
    judge.robot = robot or trunk.robot
    report = finished(
        judge,
        out,
        training=training,
        validation=validation,
        groups={"/".join(name): len(of) for name, of in paths.groups.items()},
        card={"training": settings},
    )
    shutil.rmtree(kept, ignore_errors=True)
    return report


@torch.inference_mode()
def looked_at(
    network: PathNetwork, cache: FrameCache, file: Path, progress: bool = True
) -> np.ndarray:
    """(N, hidden + 1) float32, every frame of the cache looked at by itself; kept in ``file``."""
    width = network.config.hidden + 1
    done = file.stat().st_size // (4 * width) if file.is_file() else 0
    done = sum(row.length for row in cache.rows if row.first + row.length <= done)
    total = len(cache.frames)
    network.eval()
    with file.open("r+b" if file.is_file() else "wb") as stream:
        stream.truncate(done * 4 * width)
        stream.seek(done * 4 * width)
        bar = tqdm(total=total, initial=done, unit="frame", desc="looking", disable=not progress)
        for row in cache.rows:
            if row.first < done:
                continue
            for first in range(0, row.length, LOOKS_AT_ONCE):
                now = np.arange(first, min(first + LOOKS_AT_ONCE, row.length))
                moments = moments_of(now, network.config.lag) + row.first
                images = torch.from_numpy(to_model(cache.frames[moments]))
                poses = torch.from_numpy(cache.poses[moments[:, [0, -1]]])
                words = network.bag([row.instruction] * len(now))
                stream.write(network.looks(images, words, poses).numpy().astype("<f4").tobytes())
            bar.update(row.length)
        bar.close()
    return np.fromfile(file, "<f4").reshape(total, width)


class Paths:
    """Whole episodes as sequences, drawn equally often from every (task, success, world); of
    imagined ones from every task, as they come: how seldom what looks solved in imagination truly
    is has to be learned from them."""

    def __init__(self, cache: FrameCache, looks: np.ndarray, network: PathNetwork) -> None:
        """Also sets the units of the network's inputs from all frames of the cache."""
        self._cache = cache
        holds = np.where(cache.holds == UNKNOWN, cache.solved, cache.holds).astype(np.float32)
        self._holds = np.where(holds == UNKNOWN, np.nan, holds)
        parts = []
        for row in cache.rows:
            span = slice(row.first, row.first + row.length)
            one = [torch.from_numpy(np.asarray(a[span]))[None] for a in (looks, cache.poses)]
            parts.append(PathHead.gathered(*one)[0].numpy())
        inputs = np.concatenate(parts)
        head = network.path
        head.centre.copy_(torch.from_numpy(inputs.mean(0)))
        head.spread.copy_(torch.from_numpy(inputs.std(0) + 1e-3))
        self._inputs = head.unit(torch.from_numpy(inputs)).numpy()
        wordings = sorted({row.instruction for row in cache.rows})
        with torch.inference_mode():
            text = network.words(*network.bag(wordings)).numpy()
        self._text = dict(zip(wordings, text, strict=True))
        groups: dict[tuple[str, str, str], list[int]] = {}
        for index, row in enumerate(cache.rows):
            outcome = "success" if row.success else "failure"
            kind = "any" if row.world == IMAGINED else outcome
            groups.setdefault((row.task, kind, row.world), []).append(index)
        if len({row.success for row in cache.rows}) < 2:
            raise DataError(
                f"{len(cache.rows)} training episodes hold only one outcome (groups: "
                f"{sorted(groups)}); a judge needs successes and failures"
            )
        self.groups = dict(sorted(groups.items()))

    def draw(self, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, ...]:
        """inputs (B, T, I), text (B, D), holds (B, T) and margins (B, T); NaN where unknown, and
        after the end of the shorter ones."""
        members = list(self.groups.values())
        chosen = [members[i] for i in rng.integers(len(members), size=batch)]
        rows = [self._cache.rows[of[rng.integers(len(of))]] for of in chosen]
        longest = max(row.length for row in rows)
        inputs = np.zeros((batch, longest, self._inputs.shape[1]), np.float32)
        holds = np.full((batch, longest), np.nan, np.float32)
        margins = np.full((batch, longest), np.nan, np.float32)
        for place, row in enumerate(rows):
            span = slice(row.first, row.first + row.length)
            inputs[place, : row.length] = self._inputs[span]
            holds[place, : row.length] = self._holds[span]
            margins[place, : row.length] = self._cache.margins[span]
        return inputs, np.stack([self._text[row.instruction] for row in rows]), holds, margins


def _optimise(
    network: PathNetwork,
    paths: Paths,
    training: PathTrainConfig,
    settings: dict[str, Any],
    out: Path,
    progress: bool,
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.loop.seed)
        fresh = PathHead(network.config)
    for name, parameter in fresh.named_parameters():
        network.path.get_parameter(name).data.copy_(parameter.data)
    loop = Loop(network.path, training.loop, out / "training", settings=settings)

    def loss(
        module: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([training.loop.seed, step])
        drawn = paths.draw(rng, training.loop.batch)
        inputs, text, holds, wanted = (torch.from_numpy(a).to(loop.device) for a in drawn)
        noise = rng.standard_normal(inputs.shape, np.float32) * training.input_noise
        shown = rng.random((len(inputs), 1, inputs.shape[2])) >= training.input_dropout
        inputs = (inputs + torch.from_numpy(noise)) * torch.from_numpy(shown)
        margins = module(inputs, text).float()
        return path_loss(margins, holds, wanted, training)

    loop.run(loss, title="path judge", progress=progress)
    network.path.load_state_dict(loop.averaged)
    network.eval()


def path_loss(
    margins: Tensor, holds: Tensor, wanted: Tensor, training: PathTrainConfig
) -> tuple[Tensor, dict[str, float]]:
    """The logistic loss of a margin's sign, and Huber's of its size where distances are known.

    margins, holds, wanted: (B, T), the last two NaN where unknown.
    """
    flagged, known = torch.isfinite(holds), torch.isfinite(wanted)
    near = known & (wanted.abs() < BORDER)
    weight = torch.where(near, training.border_weight, 1.0)
    value = F.binary_cross_entropy_with_logits(
        margins[flagged] / SOFTNESS, holds[flagged], weight=weight[flagged]
    )
    right = ((margins > 0) == (holds > 0.5))[flagged].float().mean().item()
    report = {"accuracy": right}
    if known.any():
        # Beyond the ends all margins are one and the same: no pull back from there.
        seen, aim = margins[known].clamp(*MARGINS), wanted[known].clamp(*MARGINS)
        off = F.smooth_l1_loss(seen, aim, beta=HUBER_BETA)
        value = value + training.regression_weight * off
        report["margin_off"] = (seen - aim).abs().mean().item()
    return value, report
