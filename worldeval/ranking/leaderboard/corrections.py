"""The leaderboard's rates, corrected for the judge's errors as far as these are known.

In: counts by policy and task, and the judge's errors. Out: a ``CorrectedRate`` a policy, which
says on whom the errors were measured; judged_rates.py and peer_rates.py have the formulas.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from worldeval.ranking.intervals import Estimate
from worldeval.ranking.judged_rates import JudgeCalibration, MeasuredOn
from worldeval.ranking.outcome_counts import OutcomeCounts, Weights, over_tasks
from worldeval.ranking.peer_rates import PeerErrors

JudgeErrors = JudgeCalibration | Mapping[str, JudgeCalibration | PeerErrors]
"""One for all policies, or one per policy; ``PeerErrors`` where only others were measured."""
MEASURED_ON = {
    "own": "the policy itself",
    "others": "other policies, task by task",
    "pooled": "fewer than three other policies",
}
"""Where errors were seen, in the words of the leaderboard."""


@dataclass(frozen=True, kw_only=True)
class CorrectedRate(Estimate):
    """An imagined rate corrected for the judge's errors, and on whose rollouts these were seen."""

    errors_of: MeasuredOn


def correct_rates(
    counts: Mapping[str, Mapping[str, OutcomeCounts]],
    errors: JudgeErrors | None,
    weights: Weights,
    confidence: float,
) -> tuple[dict[str, CorrectedRate], list[str]]:
    """Corrected rates over tasks, by policy, and notes on those that have none.

    counts: by policy, then task.
    """
    if errors is None:
        return {}, []
    found: dict[str, CorrectedRate] = {}
    unknown = []
    for name, by_task in counts.items():
        judge = errors.get(name) if isinstance(errors, Mapping) else errors
        overall = over_tasks(by_task, weights)
        if overall.rate is None:
            continue
        if judge is None:
            unknown.append(name)
            continue
        if isinstance(judge, PeerErrors):
            rate = judge.correct(by_task, weights, confidence)
        else:
            rate = judge.correct(overall.rate * overall.effective, overall.effective, confidence)
        found[name] = CorrectedRate(**vars(rate), errors_of=judge.errors_of)
    if not unknown:
        return found, []
    return found, [
        f"No corrected rate of {', '.join(unknown)}: the judge was not calibrated there (and its "
        f"errors on others are too few, or not sure to help), or does no better than a coin."
    ]


def said_of_corrections(rates: Collection[CorrectedRate]) -> str:
    """What "corrected" means for these policies, in a sentence; empty where there is none."""
    if not rates:
        return ""
    kinds = {rate.errors_of for rate in rates} - {"given"}
    ways = [f" on {words} ({kind})" for kind, words in MEASURED_ON.items() if kind in kinds]
    return f"corrected: for the judge's errors{', measured' if ways else ''}{' or'.join(ways)}."
