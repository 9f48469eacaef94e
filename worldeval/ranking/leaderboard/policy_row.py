"""A row of the leaderboard: the columns of a policy, over all tasks and in each.

In: counts and estimates, put together by ``build.build_leaderboard``. Out: frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from worldeval.ranking.intervals import Estimate
from worldeval.ranking.leaderboard.corrections import CorrectedRate
from worldeval.ranking.outcome_counts import OutcomeCounts
from worldeval.ranking.prediction_powered_rates import PredictionPoweredRate


@dataclass(frozen=True, kw_only=True)
class PolicyRow:
    """One policy. ``rank`` is by imagined rate, ties share the better one; None without a rate.

    imagined: what the judge saw in imagination.
    letters: policies that share a letter cannot be told apart; empty without a rate.
    true: what happened to the very same rollouts in the true world, where that is known.
    corrected: the imagined rate corrected for the judge's errors, where they were measured.
    trusted: the imagined rate without rollouts in which imagination left reality.
    joined: the true rate from a few true trials and all imagined rollouts together.
    """

    name: str
    rank: int | None
    imagined: OutcomeCounts
    letters: str = ""
    true: OutcomeCounts | None = None
    corrected: CorrectedRate | None = None
    trusted: OutcomeCounts | None = None
    joined: PredictionPoweredRate | None = None

    def to_dict(self) -> dict[str, Any]:
        joined = None
        if self.joined is not None:
            joined = asdict(self.joined) | {"narrower": self.joined.narrower}
            joined["real_only"] = _estimate(self.joined.real_only)
        return {
            "name": self.name,
            "rank": self.rank,
            "letters": self.letters,
            "imagined": self.imagined.to_dict(),
            "true": None if self.true is None else self.true.to_dict(),
            "corrected": None if self.corrected is None else asdict(self.corrected),
            "trusted": None if self.trusted is None else self.trusted.to_dict(),
            "joined": joined,
        }


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task: a cell per policy, in the order of the leaderboard. ``weight``: its share."""

    task: str
    policies: tuple[PolicyRow, ...]
    weight: float | None = None
    """Share of this task in the rates over tasks, where tasks do not weigh by their rollouts."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "weight": self.weight,
            "policies": [row.to_dict() for row in self.policies],
        }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {"rate": estimate.rate, "low": estimate.low, "high": estimate.high}
