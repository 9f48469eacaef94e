"""``SuccessClassifier``: a learned judge that turns episodes into verdicts, or abstains.

Enters: episodes (frames, instruction, commanded poses); nothing about world or policy is looked at.
Leaves: one ``Verdict`` each. A network (``network.py``) scores frames; the score of a rollout is
the highest of a short moving average of these logits over time (one odd frame convinces nobody);
Platt's sigmoid makes it a probability; inside the calibrated band the verdict is UNDECIDED.

``judge_store`` judges a whole store into the verdict table that rankings read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from worldeval.data import checkpoint
from worldeval.data.atomic import write_atomically
from worldeval.data.video import to_model
from worldeval.errors import ConfigError, MismatchError, StoreError
from worldeval.judging.calibration import Calibration
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.types import Episode, Judge, Outcome, Verdict

if TYPE_CHECKING:
    from worldeval.data.episodes import EpisodeStore

KIND = "judge"
FRAMES_AT_ONCE = 64  # bounds memory for long episodes; the answer does not depend on it
VERDICT_COLUMNS = (
    "key", "policy", "task", "start_id", "world", "judge", "outcome", "probability",
)  # fmt: skip


class SuccessClassifier:
    """A ``types.Judge``. Each episode is scored by itself, so batches cannot change a verdict."""

    def __init__(
        self,
        network: JudgeNetwork,
        calibration: Calibration,
        *,
        name: str = "success-classifier",
        stride: int = 2,
        smooth: int = 3,
        device: str = "cpu",
    ) -> None:
        """stride: every how many frames are looked at (the last always is).

        smooth: over how many of these the logits are averaged. Both belong to the calibration.
        """
        for field, value in (("stride", stride), ("smooth", smooth)):
            if value < 1:
                raise ConfigError(f"{field} is {value!r}, expected at least 1")
        # Channels last: a third faster on a CPU, where verdicts are mostly given.
        network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval()
        self.calibration = calibration
        self.name = name
        self.stride = stride
        self.smooth = smooth

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> SuccessClassifier:
        """Read a checkpoint that ``save`` or ``train_judge`` wrote."""
        config, tensors = checkpoint.load(folder, kind=KIND)
        with checkpoint.fitting(folder):
            shape: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in config["network"].items()
            }
            network = JudgeNetwork(JudgeConfig(**shape))
            network.load_state_dict(
                {name: torch.from_numpy(value).float() for name, value in tensors.items()}
            )
            calibration = Calibration(**config["calibration"])
            stride, smooth = config["stride"], config["smooth"]
        name = f"success-classifier@{checkpoint.digest(folder)}"
        return cls(network, calibration, name=name, stride=stride, smooth=smooth, device=device)

    def save(self, folder: str | Path, card: Mapping[str, Any] | None = None) -> Path:
        """Write the checkpoint; weights as float16, which moves a logit by about 1e-3."""
        tensors = {
            name: value.detach().cpu().numpy().astype(np.float16)
            for name, value in self.network.state_dict().items()
        }
        config = {
            "network": asdict(self.network.config),
            "calibration": asdict(self.calibration),
            "stride": self.stride,
            "smooth": self.smooth,
        }
        return checkpoint.save(folder, kind=KIND, config=config, tensors=tensors, card=card)

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """Verdicts in the order of ``episodes``."""
        return [self._verdict(episode) for episode in episodes]

    def frame_times(self, length: int) -> np.ndarray:
        """Which frames of an episode of ``length`` frames are looked at; never the start."""
        return np.arange(length - 1, 0, -self.stride)[::-1]

    @torch.inference_mode()
    def logits(self, episode: Episode) -> np.ndarray:
        """Logits of "solved by then" at ``frame_times``, (n,); n = 0 without frames to judge."""
        config = self.network.config
        order = self._view_order(episode)
        times = self.frame_times(episode.length)
        device = self.network.pose_centre.device
        words = self.network.bag([episode.instruction])
        answers = [np.zeros(0, np.float32)]
        for first in range(0, len(times), FRAMES_AT_ONCE):
            now = times[first : first + FRAMES_AT_ONCE]
            moments = moments_of(now, config.lag)
            frames = to_model(episode.frames[moments][:, :, order])
            poses = episode.poses[moments[:, [0, -1]]].astype(np.float32)
            # One instruction for all frames: its bag is repeated, not hashed again.
            ids = words[0].repeat(len(now))
            offsets = torch.arange(len(now), device=device) * len(words[0])
            answer = self.network(
                torch.from_numpy(frames).to(device),
                (ids, offsets),
                torch.from_numpy(poses).to(device),
            )
            answers.append(answer.cpu().numpy())
        return np.concatenate(answers)

    def score(self, episode: Episode) -> float:
        """The raw score that the calibration turns into a probability; NaN without frames."""
        return rollout_score(self.logits(episode), self.smooth)

    def _verdict(self, episode: Episode) -> Verdict:
        if episode.extra.get("outcome") == Outcome.ERROR.value:
            return Verdict(
                key=episode.key,
                outcome=Outcome.ERROR,
                probability=None,
                judge=self.name,
                reason=str(episode.extra.get("error") or "the rollout ended with an error"),
            )
        score = self.score(episode)
        if not np.isfinite(score):
            return Verdict(
                key=episode.key,
                outcome=Outcome.UNDECIDED,
                probability=None,
                judge=self.name,
                reason="no frame after the start" if episode.length < 2 else "score not finite",
            )
        probability = float(self.calibration.probability(score))
        outcome = self.calibration.outcome(probability)
        reason = ""
        if outcome == Outcome.UNDECIDED:
            reason = (
                f"probability {probability:.3f} lies in the undecided band "
                f"[{self.calibration.lower:.3f}, {self.calibration.upper:.3f})"
            )
        return Verdict(
            key=episode.key,
            outcome=outcome,
            probability=probability,
            judge=self.name,
            reason=reason,
        )

    def _view_order(self, episode: Episode) -> list[int]:
        config = self.network.config
        missing = [view for view in config.views if view not in episode.views]
        if missing:
            raise MismatchError(
                f"episode {episode.key!r} has the views {tuple(episode.views)}, but the judge "
                f"needs {config.views}: {missing} are missing; record them or use another judge"
            )
        size = tuple(episode.frames.shape[2:4])
        if size != tuple(config.image_size):
            raise MismatchError(
                f"episode {episode.key!r} has frames of {size} pixels (H, W), but the judge was "
                f"trained for {tuple(config.image_size)}; render at that size"
            )
        if episode.poses.shape[-1] != config.pose_dim:
            raise MismatchError(
                f"episode {episode.key!r} has poses of {episode.poses.shape[-1]} numbers, but the "
                f"judge was trained for {config.pose_dim}; use the robot it was trained on"
            )
        return [episode.views.index(view) for view in config.views]


def moments_of(now: np.ndarray, lag: int) -> np.ndarray:
    """Frame numbers (n, moments) that belong to judging frames ``now`` (n,)."""
    start = np.zeros_like(now)
    if not lag:
        return np.stack([start, now], axis=1)
    return np.stack([start, np.maximum(now - lag, 0), now], axis=1)


def rollout_score(logits: np.ndarray, smooth: int) -> float:
    """Highest moving average of ``smooth`` logits; of fewer where the rollout is shorter."""
    if not len(logits):
        return float("nan")
    width = min(smooth, len(logits))
    means = np.convolve(logits.astype(np.float64), np.full(width, 1 / width), mode="valid")
    return float(means.max())


def judge_store(
    judge: Judge, store: EpisodeStore, out_parquet: str | Path | None = None
) -> pd.DataFrame:
    """Judge every episode of a store, one at a time, into a verdict table.

    Columns: key, policy, task, start_id, world, judge, outcome, probability (NaN where there is
    none) and reason. Written to ``out_parquet`` atomically where given.
    """
    rows = []
    for index in range(len(store)):
        episode = store.episode(index)
        (verdict,) = judge.judge([episode])
        rows.append(
            {
                "key": episode.key,
                "policy": str(episode.extra.get("policy", "")),
                "task": episode.task,
                "start_id": str(episode.extra.get("start_id", "")),
                "world": str(episode.extra.get("world", "")),
                "judge": verdict.judge,
                "outcome": verdict.outcome.value,
                "probability": np.nan if verdict.probability is None else verdict.probability,
                "reason": verdict.reason,
            }
        )
    table = pd.DataFrame(rows, columns=[*VERDICT_COLUMNS, "reason"])
    if out_parquet is not None:
        path = Path(out_parquet)
        try:
            write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))
        except OSError as error:
            raise StoreError(
                f"cannot write the verdict table {path}: {error.strerror or error}; free some "
                "space or choose another file"
            ) from error
    return table
