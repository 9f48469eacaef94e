"""Rollouts until the order of the policies is sure, and not one round longer.

Enters: a world, policies, a suite, a store, and what gives verdicts on the store's rollouts.
Leaves: rollouts in the store and a ``SureReport``: the order as far as it is decided, and how many
rollouts that saved. In each round (``stopping.py``) every policy that is still undecided against
somebody is rolled out from the next start states by ``engine.run``, nothing else, and judged; then
is decided what can be. A policy whose pairs are all decided stops; the run ends when nothing is
undecided, or with the last start state.

All of it is a function of the verdicts in the store, of the suite and of the rule: after Ctrl-C or
a kill the same call goes on where it was, and rollouts that were there before are used.
``replay_until_sure`` applies the rule to a finished table. The order is one of *judged* rates: a
judge who favours a policy favours it here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.evaluation.stopping import SCORES, Decision, Outcomes, Stopping, StoppingRule
from worldeval.motion.adapters import Adapter
from worldeval.ranking.intervals import Interval
from worldeval.ranking.sequential_best import Elimination
from worldeval.ranking.sequential_order import Pair, PairDecision
from worldeval.ranking.verdict_table import read_outcomes
from worldeval.rollout.engine import check_fit, run
from worldeval.rollout.progress import Progress
from worldeval.rollout.resuming import check_held
from worldeval.rollout.suite import Suite
from worldeval.rollout.table import rollout_table
from worldeval.types import Policy, World

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class SureReport:
    """What is decided, after how many rollouts."""

    rule: StoppingRule
    decisions: tuple[Decision, ...]
    undecided: tuple[Pair, ...]
    """Pairs that would have to be decided still; of the goal "best", those of contenders."""
    used: Mapping[str, int]
    """Policy -> start states from which it was rolled out while it was compared."""
    starts: int
    """Start states of the suite."""
    unknown: int
    """Rollouts among those used that are undecided or errors: they entered no comparison."""
    differences: Mapping[Pair, Interval]
    """Success rate of the second policy minus that of the first, on common start states: an
    interval at 1 - alpha that holds although the outcomes said when to stop."""

    @classmethod
    def of(cls, plan: Stopping) -> SureReport:
        return cls(
            rule=plan.rule,
            decisions=tuple(plan.state.decisions),
            undecided=tuple(plan.state.undecided),
            used=dict(plan.used),
            starts=sum(len(starts) for starts in plan.rounds),
            unknown=plan.unknown,
            differences={
                pair: plan.difference(*pair) for pair in itertools.combinations(plan.state.names, 2)
            },
        )

    @property
    def rollouts(self) -> int:
        return sum(self.used.values())

    @property
    def possible(self) -> int:
        """Rollouts of all policies from all start states."""
        return len(self.used) * self.starts

    @property
    def saved(self) -> int:
        return self.possible - self.rollouts

    @property
    def order(self) -> tuple[tuple[str, ...], ...]:
        """From best to worst: everyone in a group is decided to be better than everyone in the
        next; within a group some pairs are undecided. Of the goal "best" there are two groups: who
        can be the best, and who cannot."""
        out = {d.policy for d in self.decisions if isinstance(d, Elimination)}
        if out:
            return tuple(sorted(set(self.used) - out)), tuple(sorted(out))
        beaten = {(d.better, d.worse) for d in self.decisions if isinstance(d, PairDecision)}
        lost = {name: sum((other, name) in beaten for other in self.used) for name in self.used}
        won = {name: sum((name, other) in beaten for other in self.used) for name in self.used}
        names = sorted(self.used, key=lambda name: (lost[name] - won[name], name))
        groups: list[list[str]] = [[]]
        for i, name in enumerate(names):
            if groups[-1] and all(
                pair in beaten for pair in itertools.product(names[:i], names[i:])
            ):
                groups.append([])
            groups[-1].append(name)
        return tuple(map(tuple, groups))

    @property
    def ranking(self) -> str:
        """The order in words: "a > (b, c) > d"."""
        return " > ".join(g[0] if len(g) == 1 else f"({', '.join(g)})" for g in self.order)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of rates from these rollouts must know, in plain sentences."""
        said = []
        if self.decisions and self.saved:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(self.used.items()))
            chance = f"{1 - self.rule.alpha:.0%}"
            said += [
                f"Policies were stopped when sure (start states of {self.starts}: {counts}). "
                f"Decided, right with a probability of {chance} or more: {self.ranking}.",
                "A policy was stopped at a moment when it looked far from others: its rate is "
                "biased towards the decision, so differences look larger than they are, and "
                "intervals, tests and letters that suppose a fixed number of rollouts are too sure;"
                " go by the decisions and by the intervals of differences given with them.",
            ]
        if self.unknown:
            said.append(
                f"{self.unknown} of these {self.rollouts} rollouts are undecided or ended in an "
                "error; they entered no comparison."
            )
        return tuple(said)

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": dataclasses.asdict(self.rule),
            "order": [list(group) for group in self.order],
            "decisions": [dataclasses.asdict(decision) for decision in self.decisions],
            "undecided": [list(pair) for pair in self.undecided],
            "differences": [
                {"a": a, "b": b, "low": low, "high": high}
                for (a, b), (low, high) in self.differences.items()
            ],
            "used": dict(self.used),
            "starts": self.starts,
            "rollouts": self.rollouts,
            "possible": self.possible,
            "saved": self.saved,
            "unknown": self.unknown,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        pairs, contenders = len(self.differences), len(self.order[0])
        if not self.undecided:
            what = f"The {self.rule.goal} is decided"
        elif self.rule.goal == "best":
            what = f"{contenders} of {len(self.used)} policies can still be the best"
        else:
            what = f"{len(self.decisions)} of {pairs} pairs are decided"
        lines = [
            self.ranking,
            f"{what}, right with a probability of {1 - self.rule.alpha:.0%} or more, after "
            f"{self.rollouts} of {self.possible} rollouts: {self.saved} saved "
            f"({self.saved / self.possible:.0%}).",
        ]
        if self.undecided:
            sure = f"{1 - self.rule.alpha:.0%}"
            lines.append(f"Not distinguishable, with the {sure} interval of each pair by itself:")
        for a, b in self.undecided:
            low, high = self.differences[a, b]
            lines.append(f"  {a} and {b}: rate of {b} minus {a} {low:+.2f} to {high:+.2f}")
        return "\n".join(lines)


def run_until_sure(
    world: World,
    policies: Sequence[Policy],
    suite: Suite,
    store: EpisodeStore,
    *,
    rule: StoppingRule,
    verdicts: Callable[[EpisodeStore], pd.DataFrame] = rollout_table,
    batch: int = 8,
    adapter: Adapter | None = None,
    progress: bool | Progress = True,
    on_round: Callable[[Stopping, Sequence[Decision]], None] | None = None,
) -> SureReport:
    """Roll out round after round until the order is decided or the suite is exhausted.

    verdicts: gives the verdict table of all rollouts in the store, and is asked after every round;
        what the world itself says, if not given. on_round: told after every look at the verdicts
        of the state of things and of the new decisions.

    Raises ConfigError for fewer than two policies or if no outcome is ever known, and whatever
    ``engine.run`` raises. What is finished is in the store and the same call goes on from there.
    """
    for policy in policies:
        check_fit(world, policy, suite)
        check_held(store, policy.spec.name, suite, world)
    tasks = {start.start_id: start.task for start in suite.starts}
    plan = Stopping([policy.spec.name for policy in policies], tasks, rule)
    asked: dict[str, list[str]] = {}
    while True:
        outcomes = _outcomes(verdicts(store)) if len(store) else {}
        _check_answered(asked, outcomes)
        made = plan.advance(outcomes)
        if on_round is not None:
            on_round(plan, made)
        if plan.finished:
            return SureReport.of(plan)
        asked = plan.wanted(outcomes)
        for policy in policies:
            ids = set(asked.get(policy.spec.name, ()))
            if ids:
                starts = tuple(start for start in suite.starts if start.start_id in ids)
                part = dataclasses.replace(suite, starts=starts)
                run(world, policy, part, store, batch=batch, adapter=adapter, progress=progress)


def replay_until_sure(table: pd.DataFrame, rule: StoppingRule | None = None) -> SureReport:
    """What ``run_until_sure`` would have done, had these verdicts come in one round at a time.

    table: a verdict table with every policy from every start state; UNDECIDED and ERROR are fine.
    Raises MismatchError if a policy lacks a start state, DataError for a damaged table.
    """
    cells = read_outcomes(table, "replayed")
    tasks = {start_id: task for _, task, start_id in cells}
    outcomes = {(policy, start_id): outcome for (policy, _, start_id), outcome in cells.items()}
    policies = sorted({policy for policy, _ in outcomes})
    missing = [c for c in itertools.product(policies, tasks) if c not in outcomes]
    if missing:
        policy, start_id = missing[0]
        raise MismatchError(
            f"{len(missing)} verdicts are missing, the first is that on policy {policy!r} from "
            f"start state {start_id!r}; a replay needs every policy from every start state"
        )
    plan = Stopping(policies, tasks, rule or StoppingRule())
    plan.advance(outcomes)
    return SureReport.of(plan)


def _outcomes(table: pd.DataFrame) -> Outcomes:
    cells = read_outcomes(table, "judged")
    return {(policy, start_id): outcome for (policy, _, start_id), outcome in cells.items()}


def _check_answered(asked: Mapping[str, Sequence[str]], outcomes: Outcomes) -> None:
    """Every rollout of the last round has a verdict, and some verdict is of use."""
    for policy, starts in asked.items():
        lost = [start for start in starts if (policy, start) not in outcomes]
        if lost:
            raise DataError(
                f"{len(lost)} rollouts of {policy!r} have no verdict, the first begins at "
                f"{lost[0]!r}; a judge must give one on every rollout (undecided is one too)"
            )
    if asked and not any(outcome in SCORES for outcome in outcomes.values()):
        raise ConfigError(
            f"none of the {len(outcomes)} rollouts so far is known to have succeeded or failed, so "
            "there is nothing to compare; give a judge that can tell, and look at the errors that "
            "`worldeval judge` shows"
        )
