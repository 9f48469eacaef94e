"""The true rate of a policy on which the judge was never measured, by its errors on others.

In: how often the judge was right on other policies, task by task, and what it says of this one.
Out: ``Estimate`` of the true rate over tasks, in [0, 1].

In each task the judge's error rates are pooled over the other policies and undone (Rogan & Gladen
1978), and the tasks are joined by the leaderboard's weights w_t::

    rate = sum_t w_t clip((p_t + specificity_t - 1) / (sensitivity_t + specificity_t - 1), 0, 1)

clip gives the rate of highest likelihood among those that can be. It draws rates near 0 and 1
inwards, yet without it one task in which the judge is nearly a coin, or errs on this policy unlike
on others, decides the sum. A task where the pooled judge is no better than a coin stays as judged.

The interval does not take the formula's word for its error: it asks how wrong the same formula was
for each other policy, from the errors on all but that one (leave-one-group-out prediction, e.g.
Barber et al., Ann. Statist. 49, 2021)::

    r_g = true rate of g - rate of g by all but g        (G policies)
    rate +- t_{G}(1 - alpha/2) sqrt(mean_g r_g^2 + extra)

r_g holds all that a new policy brings: other errors than those of the others, the bias of the clip,
chance in the calibration. Squares are about 0, not about their mean, so that bias widens. extra is
the randomness of fewer rollouts than a calibrated policy had, p (1 - p) (1/n - 1/n_g) / skill^2.
It holds where the new policy is to the others as they are to each other; it is no promise for one
of another kind, or for one chosen because it is extreme.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from worldeval.errors import ConfigError, DataError
from worldeval.ranking.intervals import Estimate, tail_of
from worldeval.ranking.judged_rates import MeasuredOn, unmix
from worldeval.ranking.outcome_counts import OutcomeCounts, Weights, over_tasks, task_weight

LEAST_PEERS = 3
"""Of fewer policies nothing tells how differently a judge errs on policies."""


class Confusion(NamedTuple):
    """Decided rollouts by what the judge said and by whether that was true."""

    true_success: int = 0
    false_success: int = 0
    true_failure: int = 0
    false_failure: int = 0

    @property
    def judged(self) -> OutcomeCounts:
        return OutcomeCounts(
            successes=self.true_success + self.false_success,
            failures=self.true_failure + self.false_failure,
        )

    @property
    def true(self) -> OutcomeCounts:
        return OutcomeCounts(
            successes=self.true_success + self.false_failure,
            failures=self.true_failure + self.false_success,
        )


Peer = Mapping[str, Confusion]
"""By task."""


@dataclass(frozen=True, kw_only=True)
class PeerErrors:
    """A judge's errors on other policies, to correct the rate of one that was not calibrated.

    peers: by policy and task, imagined rollouts whose truth is known; ConfigError if fewer than
    ``LEAST_PEERS`` policies have any.
    """

    peers: Mapping[str, Peer]
    errors_of: MeasuredOn = "others"

    def __post_init__(self) -> None:
        known = sorted(name for name, tasks in self.peers.items() if any(map(sum, tasks.values())))
        if len(known) < LEAST_PEERS:
            raise ConfigError(
                f"the judge was calibrated on the policies {known}, expected at least "
                f"{LEAST_PEERS} to correct the rate of another one; calibrate it on more"
            )

    def correct(
        self,
        counts: Mapping[str, OutcomeCounts],
        weights: Weights = "rollouts",
        confidence: float = 0.95,
    ) -> Estimate:
        """The true rate behind what the judge said, by task, of a policy that is no peer.

        The interval is [0, 1] where fewer than ``LEAST_PEERS`` peers have rollouts of these tasks.
        Raises DataError where nothing was decided.
        """
        from scipy.special import stdtrit

        judged = over_tasks(counts, weights) if counts else OutcomeCounts()
        if judged.rate is None:
            raise DataError("cannot correct a rate over 0 decided rollouts; judge some first")
        rate = _rate(counts, self.peers.values(), weights)
        squares, rollouts = [], []
        for name, tasks in self.peers.items():
            cells = {task: cell for task, cell in tasks.items() if task in counts}
            true = (
                over_tasks({t: c.true for t, c in cells.items()}, weights)
                if cells
                else OutcomeCounts()
            )
            if true.rate is None:
                continue
            others = [peer for other, peer in self.peers.items() if other != name]
            foretold = _rate({t: c.judged for t, c in cells.items()}, others, weights)
            squares.append((true.rate - foretold) ** 2)
            rollouts.append(true.effective)
        if len(squares) < LEAST_PEERS:
            return Estimate(rate=rate, low=0.0, high=1.0)
        variance = sum(squares) / len(squares) + self._extra(judged, sum(rollouts) / len(rollouts))
        half = float(stdtrit(len(squares), 1 - tail_of(confidence))) * math.sqrt(variance)
        return Estimate(rate=rate, low=max(0.0, rate - half), high=min(1.0, rate + half))

    def _extra(self, judged: OutcomeCounts, calibrated: float) -> float:
        """Variance of a rate over fewer rollouts than a calibrated policy had, beyond theirs."""
        n = judged.effective
        if n >= calibrated or judged.rate is None:
            return 0.0
        hit, rejection = _errors([cell for peer in self.peers.values() for cell in peer.values()])
        skill = hit + rejection - 1
        p = (judged.rate * n + 1) / (n + 2)  # so many rollouts never show that chance is 0
        return p * (1 - p) * (1 / n - 1 / calibrated) / skill**2 if skill > 0 else 1.0


def _rate(judged: Mapping[str, OutcomeCounts], peers: Collection[Peer], weights: Weights) -> float:
    """The tasks corrected one by one, then joined."""
    total = weight = 0.0
    for task, tally in judged.items():
        if not tally.decided:
            continue
        hit, rejection = _errors([peer[task] for peer in peers if task in peer])
        rate = tally.successes / tally.decided
        if hit + rejection > 1:
            rate = min(1.0, max(0.0, unmix(rate, hit, rejection)))
        share = tally.decided if weights == "rollouts" else task_weight(weights, task)
        total, weight = total + share * rate, weight + share
    return total / weight


def _errors(cells: Collection[Confusion]) -> tuple[float, float]:
    """Pooled sensitivity and specificity, one right and one wrong example added to each."""
    hits, alarms, rejections, misses = map(sum, zip(Confusion(), *cells, strict=True))
    return (hits + 1) / (hits + misses + 2), (rejections + 1) / (rejections + alarms + 2)
