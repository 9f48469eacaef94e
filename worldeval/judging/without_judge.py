"""Rollouts about which no judge needs to be asked."""

from __future__ import annotations

from worldeval.types import Episode, Outcome, Verdict


def settled(episode: Episode, judge: str) -> Verdict | None:
    """ERROR for a rollout that broke off, UNDECIDED for one without a frame after its start."""
    if episode.extra.get("outcome") == Outcome.ERROR.value:
        reason = str(episode.extra.get("error") or "the rollout ended with an error")
        outcome = Outcome.ERROR
    elif episode.length < 2:
        outcome, reason = Outcome.UNDECIDED, "no frame after the start"
    else:
        return None
    return Verdict(key=episode.key, outcome=outcome, probability=None, judge=judge, reason=reason)
