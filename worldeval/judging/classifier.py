"""``SuccessClassifier``: a learned judge that tells whether the instruction has been carried out.

Enters: episodes. Leaves: verdicts (``learned.py`` says how). A network (``network.py``) gives each
frame a logit of "solved by now"; the score of a rollout is the highest of a short moving average of
these over time.
"""

from __future__ import annotations

import numpy as np

from worldeval.judging.learned import LearnedJudge, rollout_score
from worldeval.types import Episode


class SuccessClassifier(LearnedJudge):
    """A judge of the checkpoint kind "judge", which ``train_judge`` makes."""

    kind = "judge"
    title = "success-classifier"

    def logits(self, episode: Episode) -> np.ndarray:
        """Logits of "solved by then" at ``frame_times``, (n,); n = 0 without frames to judge."""
        return self.outputs(episode, self.frame_times(episode.length))

    def score_of(self, outputs: np.ndarray) -> float:
        return rollout_score(outputs, self.smooth)
