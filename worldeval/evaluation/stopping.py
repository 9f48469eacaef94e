"""Which rollouts come next, and when to stop, from the verdicts so far: a rule without a world.

Enters: policies, start states with their tasks, a ``StoppingRule``, and outcomes as they become
known. Leaves: rounds of start states with equal shares of each task, which policies go on, and the
decisions of ``ranking.sequential_order`` or, if only the best is wanted, of
``ranking.sequential_best``. It is a function of these alone: whoever comes back with
the same outcomes is told the same.

Unknown is not failure: a start state on which one of a pair is undecided or ended in an error
enters no comparison of that pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from worldeval.errors import ConfigError
from worldeval.ranking.intervals import Interval
from worldeval.ranking.sequential_best import Elimination, SequentialBest
from worldeval.ranking.sequential_order import PairDecision, SequentialOrder, difference_sequence
from worldeval.rollout.suite import rollout_seed
from worldeval.types import Outcome

SCORES = {Outcome.SUCCESS: 1.0, Outcome.FAILURE: 0.0}
"""Outcomes that enter comparisons."""
GOALS: dict[str, type[SequentialOrder] | type[SequentialBest]] = {
    "order": SequentialOrder,
    "best": SequentialBest,
}
Decision = PairDecision | Elimination
Outcomes = Mapping[tuple[str, str], Outcome]
"""(policy, start_id) -> outcome"""


@dataclass(frozen=True, kw_only=True)
class StoppingRule:
    """When to stop. The same rule and seed give the same rounds."""

    goal: Literal["order", "best"] = "order"
    """What is to be decided: every pair, or which policy is the best."""
    alpha: float = 0.05
    """Probability of any wrong decision, at most."""
    round_starts: int = 8
    """Start states in a round; rounded up until every task has run."""
    seed: int = 0
    """Of the order in which the start states of a task come."""

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise ConfigError(f"goal is {self.goal!r}, expected one of {list(GOALS)}")
        if not 0 < self.alpha < 1:
            raise ConfigError(f"alpha is {self.alpha!r}, expected a probability between 0 and 1")
        if self.round_starts < 1:
            raise ConfigError(
                f"round is {self.round_starts!r}, expected 1 or more start states in a round"
            )


class Stopping:
    """The rule at work on what is known so far. Holds no results but those of complete rounds."""

    def __init__(
        self, policies: Sequence[str], tasks: Mapping[str, str], rule: StoppingRule
    ) -> None:
        """tasks: start_id -> task, of every start state that there is."""
        self.rule = rule
        self.state = GOALS[rule.goal](policies, alpha=rule.alpha)
        self.rounds = mixed_rounds(tasks, rule)
        self.done = 0
        """Complete rounds."""
        self.used = dict.fromkeys(self.state.names, 0)
        self._outcomes: dict[tuple[str, str], Outcome] = {}

    @property
    def finished(self) -> bool:
        return not self.state.active or self.done == len(self.rounds)

    def wanted(self, outcomes: Outcomes) -> dict[str, list[str]]:
        """Policy -> start states of this round that it has still to be rolled out from."""
        if self.finished:
            return {}
        missing = {
            name: [start for start in self.rounds[self.done] if (name, start) not in outcomes]
            for name in self.state.active
        }
        return {name: starts for name, starts in missing.items() if starts}

    def advance(self, outcomes: Outcomes) -> list[Decision]:
        """Take all rounds that are complete in ``outcomes``; the decisions that this brings."""
        made: list[Decision] = []
        while not self.finished and not self.wanted(outcomes):
            active, starts = self.state.active, self.rounds[self.done]
            taken = {(name, start): outcomes[name, start] for name in active for start in starts}
            self._outcomes.update(taken)
            for name in active:
                self.used[name] += len(starts)
            block = [{n: SCORES.get(taken[n, start]) for n in active} for start in starts]
            made += self.state.add_block(block)
            self.done += 1
        return made

    @property
    def unknown(self) -> int:
        """Rollouts used that are undecided or errors: they entered no comparison."""
        return sum(outcome not in SCORES for outcome in self._outcomes.values())

    def difference(self, a: str, b: str) -> Interval:
        """Success rate of b minus that of a on the start states that both were rolled out from: at
        1 - alpha, though the outcomes said when to stop (``difference_sequence``)."""
        both = [
            (outcome, self._outcomes.get((b, start)))
            for (name, start), outcome in self._outcomes.items()
            if name == a
        ]
        known = [(SCORES[x], SCORES[y]) for x, y in both if x in SCORES and y in SCORES]
        only_a, only_b = known.count((1.0, 0.0)), known.count((0.0, 1.0))
        return difference_sequence(
            only_a, only_b, len(known) - only_a - only_b, confidence=1 - self.rule.alpha
        )


def mixed_rounds(tasks: Mapping[str, str], rule: StoppingRule) -> list[tuple[str, ...]]:
    """The start states in rounds, in each of which every task has its share.

    tasks: start_id -> task. A task's start states come in an order drawn from ``rule.seed``. Where
    all tasks have equally many, a round has equally many of each; of a task with fewer, they are
    spread over the rounds evenly.
    """
    queues: dict[str, list[str]] = {}
    for start, task in sorted(tasks.items()):
        queues.setdefault(task, []).append(start)
    for starts in queues.values():
        starts.sort(key=lambda start: (rollout_seed(rule.seed, start, "order"), start))
    if not queues:
        raise ConfigError("there are no start states, expected at least one")
    most = max(len(starts) for starts in queues.values())
    rounds: list[list[str]] = [[]]
    for turn in range(most):
        if len(rounds[-1]) >= rule.round_starts:
            rounds.append([])
        for task, starts in queues.items():
            offset = rollout_seed(rule.seed, task, "order") / 2**32
            first = math.floor(turn * len(starts) / most + offset)
            end = math.floor((turn + 1) * len(starts) / most + offset)
            rounds[-1] += starts[first:end]
    return [tuple(starts) for starts in rounds]
