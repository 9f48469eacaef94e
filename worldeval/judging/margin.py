"""``MarginJudge``: how near each frame is to success, in units of what still counts as success.

Enters: episodes. Leaves: a graded score for every frame and verdicts. The network (``network.py``)
answers one number per frame, the margin::

    m = log(limit / distance)      (0: exactly at the limit; positive: success; -0.7: twice too far)

learned from worlds that know the distance behind their flag (of a handle, a puck, the fingertips
to where they should be), and, where only the flag is known, from its sign alone, by logistic
regression on m / SOFTNESS. A picture that is a centimetre from success is then something else than
one that is far from it, which a flag does not teach. The score of a rollout is the highest moving
average of m / SOFTNESS; it is calibrated as the classifier's.
"""

from __future__ import annotations

import numpy as np

from worldeval.judging.learned import LearnedJudge, rollout_score
from worldeval.types import Episode

SOFTNESS = 0.25
"""Margin at which the odds are e to 1."""
MARGINS = (-1.6, 0.8)
"""Margins beyond these are all the same: five times too far is far."""


class MarginJudge(LearnedJudge):
    """A judge of the checkpoint kind "margin-judge", which ``margin_training.py`` makes."""

    kind = "margin-judge"
    title = "margin-judge"

    def margins(self, episode: Episode) -> np.ndarray:
        """log(limit / distance) as seen in every frame, (T+1,) float32."""
        return self.outputs(episode, np.arange(episode.length)).astype(np.float32)

    def score_of(self, outputs: np.ndarray) -> float:
        return rollout_score(outputs / SOFTNESS, self.smooth)

    def note(self, outputs: np.ndarray, times: np.ndarray) -> str:
        best = int(np.argmax(outputs))
        ratio = float(np.exp(-np.clip(outputs[best], *MARGINS)))
        return f"nearest at frame {times[best]}: {ratio:.2f} of the distance that is a success"
