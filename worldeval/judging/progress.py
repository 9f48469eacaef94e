"""``ProgressJudge``: how far along its task a rollout is, frame by frame.

Enters: episodes. Leaves: progress in [0, 1] for every frame, rewards between frames, and verdicts.
The network (``network.py``) gives each frame a distribution over bins of the distance d to success
in frames (``survival.py``), learned from recorded episodes of every outcome::

    progress = 1 - E[min(d, horizon)] / horizon        (1: solved; 0: at least the horizon to go)

It is an absolute scale: a task that takes 20 of 33 frames begins at about 0.4. So frames of
different rollouts compare, and ``reward`` sums to what a rollout gained. The score of a rollout is
the highest moving average of the log-odds of d = 0; it is calibrated as the classifier's.

Temporal distance to success as a measure of progress: Hartikainen et al. 2020 (dynamical
distances), Ma et al. 2023 (VIP); here as a distribution, with failures as censored observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from worldeval.errors import ConfigError
from worldeval.judging.learned import LearnedJudge, rollout_score
from worldeval.judging.network import JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.survival import DistanceBins, expected_distance
from worldeval.settings import settings_from
from worldeval.types import Episode


class ProgressJudge(LearnedJudge):
    """A judge of the checkpoint kind "progress-judge", which ``train_progress`` makes."""

    kind = "progress-judge"
    title = "progress-judge"

    def __init__(
        self,
        network: JudgeNetwork,
        calibration: Calibration,
        *,
        bins: Sequence[int] = DistanceBins().starts,
        **settings: Any,
    ) -> None:
        """bins: first distance of each bin, in frames. settings: as of ``LearnedJudge``."""
        super().__init__(network, calibration, **settings)
        self.bins = settings_from(DistanceBins, {"starts": bins})
        if network.config.outputs != self.bins.count:
            raise ConfigError(
                f"the network has {network.config.outputs} outputs, expected {self.bins.count}, "
                f"one a bin of {self.bins.starts}"
            )

    def frames_to_go(self, episode: Episode) -> np.ndarray:
        """Expected frames until success at every frame, (T+1,) float32 up to ``bins.horizon``."""
        outputs = self.outputs(episode, np.arange(episode.length))
        return expected_distance(outputs, self.bins).astype(np.float32)

    def progress(self, episode: Episode) -> np.ndarray:
        """How far along every frame is, (T+1,) float32 in [0, 1]; 1 where the task is solved.

        Raises MismatchError for views, sizes or poses that it was not trained on.
        """
        return np.clip(1 - self.frames_to_go(episode) / self.bins.horizon, 0, 1)

    def newest(self, episode: Episode) -> float:
        """Progress at the last frame, in [0, 1]; as ``progress`` there, for the price of one."""
        outputs = self.outputs(episode, np.array([episode.length - 1]))
        to_go = float(expected_distance(outputs, self.bins)[0])
        return float(np.clip(1 - to_go / self.bins.horizon, 0, 1))

    def reward(self, episode: Episode) -> np.ndarray:
        """Progress gained by each action, (T,) float32 in [-1, 1].

        A difference of potentials: as a shaping reward it leaves the best policy what it was
        (Ng, Harada & Russell 1999).
        """
        return np.diff(self.progress(episode))

    def score_of(self, outputs: np.ndarray) -> float:
        return rollout_score(done_logit(outputs), self.smooth)

    def note(self, outputs: np.ndarray, times: np.ndarray) -> str:
        progress = 1 - expected_distance(outputs, self.bins) / self.bins.horizon
        best = int(np.argmax(progress))
        return f"{progress[best]:.2f} of the way at frame {times[best]}"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "bins": list(self.bins.starts)}


def done_logit(outputs: np.ndarray) -> np.ndarray:
    """Log-odds of the first bin, "solved", against all others; outputs (n, bins), answer (n,)."""
    rest = outputs[:, 1:]
    top = rest.max(axis=-1)
    return outputs[:, 0] - top - np.log(np.exp(rest - top[:, None]).sum(axis=-1))
