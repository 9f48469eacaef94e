"""What the learned judges have in common: a network looks at moments of an episode, and abstains.

Enters: episodes (frames, instruction, commanded poses); nothing about world or policy is looked at.
Leaves: one ``Verdict`` each, and checkpoints. A kind of judge says how the network's outputs become
the score of a rollout; Platt's sigmoid makes that a probability, and inside the calibrated band the
verdict is UNDECIDED (``calibration.py``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from worldeval.data import checkpoint
from worldeval.data.fit import robot_of_checkpoint
from worldeval.data.video import to_model
from worldeval.errors import ConfigError, JudgeError, MismatchError
from worldeval.judging.network import MOST_FRAMES, JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.without_judge import settled
from worldeval.learning.weights import filled
from worldeval.robots import RobotSpec, robot_as_json
from worldeval.settings import settings_from
from worldeval.types import Cost, Episode, Outcome, Verdict

FRAMES_AT_ONCE = 64  # bounds memory for long episodes; the answer does not depend on it


class LearnedJudge:
    """A ``types.Judge``. Each episode is scored by itself, so batches cannot change a verdict.

    A subclass sets ``kind`` (of its checkpoints) and ``title`` (the first part of its name) and
    defines ``score_of``; ``note`` may say more about a rollout than its probability.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    robot: RobotSpec | None = None
    """Whose rollouts it learned from, kept whole in its checkpoint; None where that is unknown."""
    shape: ClassVar[type[JudgeConfig]] = JudgeConfig
    """What ``network_of`` makes a network from."""
    network_of: ClassVar[type[JudgeNetwork]] = JudgeNetwork
    beside: ClassVar[bool] = True
    """It may judge in another thread while rollouts go on (``judging.beside``)."""

    def __init__(
        self,
        network: JudgeNetwork,
        calibration: Calibration,
        *,
        name: str | None = None,
        stride: int = 2,
        smooth: int = 3,
        device: str = "cpu",
    ) -> None:
        """stride: every how many frames are looked at (the last always is).

        smooth: over how many of these a score is averaged. Both belong to the calibration.
        """
        for field, value in (("stride", stride), ("smooth", smooth)):
            if type(value) is not int or not 1 <= value <= MOST_FRAMES:
                raise ConfigError(
                    f"{field} is {str(value)[:40]!r}, expected a whole number from 1 to "
                    f"{MOST_FRAMES}"
                )
        # Channels last: a third faster on a CPU, where verdicts are mostly given.
        network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval()
        self.calibration = calibration
        self.name = name or self.title
        self.stride = stride
        self.smooth = smooth

    def score_of(self, outputs: np.ndarray) -> float:
        """The rollout's score from the network's outputs at ``frame_times``, (n >= 1, ...)."""
        raise NotImplementedError

    def note(self, outputs: np.ndarray, times: np.ndarray) -> str:
        """What else is to be said of a rollout, from its outputs at the frames ``times``."""
        return ""

    def settings(self) -> dict[str, Any]:
        """What a checkpoint keeps beside network and calibration: arguments of the class."""
        return {"stride": self.stride, "smooth": self.smooth}

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Self:
        """Read a checkpoint that ``save`` or a training wrote."""
        config, tensors = checkpoint.load(folder, kind=cls.kind)
        with checkpoint.fitting(folder):
            shape = settings_from(cls.shape, config["network"], "network.")
            network = filled(lambda: cls.network_of(shape), tensors, folder)
            settings = _with_tuples(config)
            del settings["network"], settings["calibration"]
            # Recalibrated, it is another judge, and its verdicts are others.
            name = f"{cls.title}@{checkpoint.digest(folder, settings=True)}"
            calibration = settings_from(
                Calibration, config["calibration"], "calibration.", whole=True
            )
            judge = cls(network, calibration, name=name, device=device, **settings)
        judge.robot = robot_of_checkpoint(folder)
        return judge

    def save(self, folder: str | Path, card: Mapping[str, Any] | None = None) -> Path:
        """Write the checkpoint; weights as float16, which moves a logit by about 1e-3."""
        tensors = {
            name: value.detach().cpu().numpy().astype(np.float16)
            for name, value in self.network.state_dict().items()
        }
        config = {
            "network": asdict(self.network.config),
            "calibration": asdict(self.calibration),
            **self.settings(),
        }
        return checkpoint.save(
            folder,
            kind=self.kind,
            config=config,
            tensors=tensors,
            card=card,
            robot=None if self.robot is None else robot_as_json(self.robot),
        )

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """Verdicts in the order of ``episodes``."""
        return [self._verdict(episode) for episode in episodes]

    def frame_times(self, length: int) -> np.ndarray:
        """Which frames of an episode of ``length`` frames are looked at; never the start."""
        return np.arange(length - 1, 0, -self.stride)[::-1]

    @torch.inference_mode()
    def outputs(self, episode: Episode, times: np.ndarray) -> np.ndarray:
        """The network's answers at the frames ``times`` (n,): (n,), or (n, outputs) of several."""
        outputs = self.network.config.outputs
        answers = [np.zeros((0,) if outputs == 1 else (0, outputs), np.float32)]
        for images, words, poses in self.moments(episode, times):
            answers.append(self.network(images, words, poses).cpu().numpy())
        return self.checked(np.concatenate(answers), episode)

    def moments(
        self, episode: Episode, times: np.ndarray
    ) -> Iterator[tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """The network's inputs at the frames ``times``, ``FRAMES_AT_ONCE`` at a time."""
        config = self.network.config
        order = self._view_order(episode)
        device = self.network.pose_centre.device
        words = self.network.bag([episode.instruction])
        for first in range(0, len(times), FRAMES_AT_ONCE):
            now = times[first : first + FRAMES_AT_ONCE]
            moments = moments_of(now, config.lag)
            frames = to_model(episode.frames[moments][:, :, order])
            poses = episode.poses[moments[:, [0, -1]]].astype(np.float32)
            # One instruction for all frames: its bag is repeated, not hashed again.
            ids = words[0].repeat(len(now))
            offsets = torch.arange(len(now), device=device) * len(words[0])
            yield (
                torch.from_numpy(frames).to(device),
                (ids, offsets),
                torch.from_numpy(poses).to(device),
            )

    def checked(self, found: np.ndarray, episode: Episode) -> np.ndarray:
        """``found`` again, the answers to an episode. JudgeError where they are no numbers."""
        if not np.isfinite(found).all():
            # Taken for an abstention, a broken judge would look like a cautious one.
            raise JudgeError(
                f"judge {self.name!r} answered NaN or infinity for episode {episode.key!r}; look "
                "for NaN in its poses, else train the judge anew or take an earlier checkpoint"
            )
        return found

    def score(self, episode: Episode) -> float:
        """The raw score that the calibration turns into a probability; NaN without frames."""
        times = self.frame_times(episode.length)
        return self.score_of(self.outputs(episode, times)) if len(times) else float("nan")

    def solved_at(self, outputs: np.ndarray, times: np.ndarray) -> int | None:
        """The frame at which a rollout of these outputs (n, ...) at the frames ``times`` (n,) is
        first a success: what came later is not looked at. None if it is none at any.

        No verdict is given on fewer frames than a score is averaged over.
        """
        for count in range(min(self.smooth, len(times)), len(times) + 1):
            probability = float(self.calibration.probability(self.score_of(outputs[:count])))
            if self.calibration.outcome(probability) == Outcome.SUCCESS:
                return int(times[count - 1])
        return None

    def probability_until(self, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        """Frames (N,) that are looked at, and the probability (N,) in [0, 1] of success if the
        rollout had ended there; the last one is that of the verdict."""
        times = self.frame_times(episode.length)
        outputs = self.outputs(episode, times)
        scores = [self.score_of(outputs[: count + 1]) for count in range(len(times))]
        return times, np.asarray(self.calibration.probability(np.array(scores)), float)

    def _verdict(self, episode: Episode) -> Verdict:
        if (known := settled(episode, self.name)) is not None:
            return known
        begin = time.perf_counter()
        times = self.frame_times(episode.length)
        outputs = self.outputs(episode, times)
        score = self.score_of(outputs)
        probability = float(self.calibration.probability(score))
        outcome = self.calibration.outcome(probability)
        reason = self.note(outputs, times)
        if outcome == Outcome.UNDECIDED:
            reason += "; " if reason else ""
            reason += (
                f"probability {probability:.3f} lies in the undecided band "
                f"[{self.calibration.lower:.3f}, {self.calibration.upper:.3f})"
            )
        return Verdict(
            key=episode.key,
            outcome=outcome,
            probability=probability,
            judge=self.name,
            reason=reason,
            frames=tuple(int(number) for number in times),
            solved_at=self.solved_at(outputs, times) if outcome == Outcome.SUCCESS else None,
            cost=Cost(seconds=time.perf_counter() - begin, dollars=0.0),  # nobody is paid
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
    """Highest moving average of ``smooth`` logits; of fewer where the rollout is shorter.

    One odd frame convinces nobody, and what was solved once stays solved.
    """
    if not len(logits):
        return float("nan")
    width = min(smooth, len(logits))
    means = np.convolve(logits.astype(np.float64), np.full(width, 1 / width), mode="valid")
    return float(means.max())


def _with_tuples(config: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
    }
