"""Would this ranking break? Its order against itself, with one thing changed at a time.

In: outcomes by (policy, task, start_id) and, where a judge gives them, the probability of success
and when a rollout was solved. Out: ``Stability``: a ``Check`` per change, and a plain verdict.

- start states: Kendall's tau-b and Spearman between random halves of the start states, split within
  tasks. The halves share no rollout, so the figure is not flattered by counting one twice; a half
  in which all policies tie orders nothing and counts 0. The interval is over the halvings.
- horizon: success counts only if it came within this share of the horizon.
- threshold: that of the judge, moved by 0.1. It is found from the verdicts themselves: it lies
  where probabilities of failures end and those of successes begin.
- seed: the same evaluation, imagined again.

A ranking is not stable where a change turns a pair round that the leaderboard calls different, or
leaves less than ``LEAST_KENDALL`` of the order; or where there is no order to begin with. What
cannot be computed is None with a reason: unknown is not stable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from worldeval.errors import DataError, MismatchError
from worldeval.ranking.agreement_statistics import figures_of, share
from worldeval.ranking.leaderboard.moved_threshold import moved_threshold
from worldeval.ranking.outcome_counts import Weights, task_weight
from worldeval.ranking.verdict_table import Cell, score_grid
from worldeval.types import Outcome

LEAST_KENDALL = 0.6
"""Four pairs of five in the same order."""
HORIZONS = (0.5, 0.75, 1.25, 1.5)
THRESHOLD_MOVES = (-0.1, 0.1)
_HALVINGS = 200
_MOST_NUMBERS = 8_000_000
"""Differences between policies held at once; more policies are halved less often."""

Pair = tuple[str, str]
Outcomes = Mapping[Cell, Outcome]


@dataclass(frozen=True, kw_only=True)
class Check:
    """The ranking against itself after one change.

    kendall, spearman: None below 3 policies, or where there is a ``reason``.
    low, high: of Kendall, the middle 95 % of random halves; None for a change without randomness.
    winner_kept: how often the first place is the same (a tie for it counts).
    turned: pairs told apart before that stand the other way round after.
    """

    change: str
    kendall: float | None = None
    spearman: float | None = None
    low: float | None = None
    high: float | None = None
    winner_kept: float | None = None
    turned: tuple[Pair, ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """``stable``: None where there is nothing to rank. ``because``: why it is not stable."""

    stable: bool | None
    because: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def sentence(self) -> str:
        unknown = dict.fromkeys(_kind(check.change) for check in self.checks if check.reason)
        if self.stable is None:
            return f"Stability cannot be told: {'; '.join(self.because)}."
        if not self.stable:
            return f"Not stable, because {'; and '.join(self.because)}."
        if unknown:
            return f"Stable as far as it was checked (not checked: {', '.join(unknown)})."
        return "Stable: the order holds under every change that was tried."

    def to_dict(self) -> dict[str, Any]:
        checks = [
            asdict(check) | {"turned": [list(p) for p in check.turned]} for check in self.checks
        ]
        return {
            "stable": self.stable,
            "because": list(self.because),
            "sentence": self.sentence,
            "checks": checks,
        }


def _kind(change: str) -> str:
    """One word for changes that differ in their size alone."""
    for kind, name in (("horizon", "another horizon"), ("threshold", "another threshold")):
        if kind in change:
            return name
    return change


def stability(
    outcomes: Outcomes,
    *,
    distinguishable: Sequence[Pair] = (),
    weights: Weights = "rollouts",
    probabilities: Mapping[Cell, float] | None = None,
    solved_at: Mapping[Cell, float] | None = None,
    again: Outcomes | None = None,
    true_rates: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Stability:
    """How the order of the policies in ``outcomes`` holds.

    distinguishable: (better, worse) pairs that the leaderboard tells apart.
    solved_at: when a rollout was solved, in shares of the horizon; above 1 it was solved later than
        the horizon that its outcome stands for. Needed of every success.
    again: outcomes of the same policies, imagined with another seed.
    true_rates: of policies whose truth is known.
    Raises DataError for a ``solved_at`` below 0, MismatchError for ``again`` of other policies.
    """
    grid = _Grid.of(outcomes, weights)
    if len(grid.policies) < 2:
        return Stability(stable=None, because=("fewer than two policies have decided rollouts",))
    checks = [_halves(grid, seed)]
    checks += _horizons(grid, outcomes, solved_at or {}, distinguishable)
    checks += _thresholds(grid, outcomes, probabilities or {}, distinguishable)
    checks.append(_again(grid, again, distinguishable))
    because = _no_order(grid, distinguishable, true_rates or {}) or _broken(checks)
    return Stability(stable=not because, because=tuple(because), checks=tuple(checks))


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Scores (policies, starts), NaN where undecided; starts are grouped by task."""

    policies: tuple[str, ...]
    starts: tuple[tuple[str, str], ...]
    scores: np.ndarray
    weights: Weights

    @classmethod
    def of(cls, outcomes: Outcomes, weights: Weights) -> _Grid:
        decided = {c: o for c, o in outcomes.items() if o.decided}
        policies = tuple(dict.fromkeys(cell[0] for cell in decided))
        starts = tuple(sorted({cell[1:] for cell in decided}))
        scores = score_grid(decided, policies, starts)
        return cls(policies=policies, starts=starts, scores=scores, weights=weights)

    def rescored(self, outcomes: Outcomes) -> _Grid:
        """The same policies with other outcomes."""
        known = {c: o for c, o in outcomes.items() if c[0] in self.policies}
        starts = tuple(sorted({cell[1:] for cell in known}))
        scores = score_grid(known, self.policies, starts)
        return _Grid(policies=self.policies, starts=starts, scores=scores, weights=self.weights)

    def rates(self, masks: np.ndarray | None = None) -> np.ndarray:
        """(draws, policies) rates over the starts of each of ``masks`` (draws, starts) bool."""
        kept = np.ones((1, len(self.starts)), bool) if masks is None else masks
        tasks = np.array([task for task, _ in self.starts])
        success, decided = np.nan_to_num(self.scores), np.isfinite(self.scores).astype(float)
        if self.weights == "rollouts":
            return share(kept @ success.T, kept @ decided.T)
        top, bottom = (np.zeros((len(kept), len(self.policies))) for _ in range(2))
        for task in dict.fromkeys(tasks.tolist()):
            own = tasks == task
            rate = share(kept[:, own] @ success[:, own].T, kept[:, own] @ decided[:, own].T)
            weight = task_weight(self.weights, task) * np.isfinite(rate)
            top, bottom = top + weight * np.nan_to_num(rate), bottom + weight
        return share(top, bottom)


def _halves(grid: _Grid, seed: int) -> Check:
    change = "other half of the start states"
    starts, policies = len(grid.starts), len(grid.policies)
    if starts < 2:
        return Check(change=change, reason="there is one start state alone")
    draws = int(np.clip(_MOST_NUMBERS // policies**2, 10, _HALVINGS))
    rng = np.random.default_rng(seed)
    # Shuffled within tasks, then dealt out in turn: each task is halved, as far as it has two.
    number = np.unique([task for task, _ in grid.starts], return_inverse=True)[1]
    order = np.argsort(number + rng.random((draws, starts)), axis=1)
    masks = np.zeros((draws, starts), bool)
    np.put_along_axis(masks, order[:, ::2], True, axis=1)
    one, other = grid.rates(masks), grid.rates(~masks)
    known = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    if known.mean() < 0.5:
        return Check(change=change, reason="in most halves some policy has no decided rollout")
    one, other = one[known], other[known]
    kept = float(_same_winner(one, other).mean())
    if policies < 3:
        return Check(change=change, winner_kept=kept)
    figures = figures_of(one, other)
    kendall, spearman = (np.nan_to_num(figures[name]) for name in ("kendall", "spearman"))
    low, high = np.quantile(kendall, (0.025, 0.975)).tolist()
    return Check(
        change=change,
        kendall=float(kendall.mean()),
        spearman=float(spearman.mean()),
        low=low,
        high=high,
        winner_kept=kept,
    )


def _horizons(
    grid: _Grid,
    outcomes: Outcomes,
    solved_at: Mapping[Cell, float],
    distinguishable: Sequence[Pair],
) -> list[Check]:
    for cell, when in solved_at.items():
        if not when >= 0:
            raise DataError(
                f"rollout {'/'.join(cell)} was solved at {when!r} of the horizon, expected a share "
                f"of 0 or more"
            )
    successes = [cell for cell, outcome in outcomes.items() if outcome is Outcome.SUCCESS]
    lacking = sum(cell not in solved_at for cell in successes)
    latest = max(solved_at.values(), default=0.0)
    checks = []
    for part in HORIZONS:
        change = f"{part:g} of the horizon"
        if lacking or not successes:
            reason = "the verdicts do not say when a rollout was solved"
            checks.append(Check(change=change, reason=reason))
        elif part > 1 >= latest:
            reason = "no rollout was watched beyond the horizon"
            checks.append(Check(change=change, reason=reason))
        else:
            moved = {
                cell: _within(outcome, solved_at.get(cell, math.inf), part)
                for cell, outcome in outcomes.items()
            }
            checks.append(_compared(change, grid, grid.rescored(moved), distinguishable))
    return checks


def _within(outcome: Outcome, when: float, horizon: float) -> Outcome:
    if not outcome.decided:
        return outcome
    return Outcome.SUCCESS if when <= horizon else Outcome.FAILURE


def _thresholds(
    grid: _Grid,
    outcomes: Outcomes,
    probabilities: Mapping[Cell, float],
    distinguishable: Sequence[Pair],
) -> list[Check]:
    checks = []
    for move in THRESHOLD_MOVES:
        change = f"the judge's threshold {move:+.1f}"
        moved, reason = moved_threshold(outcomes, probabilities, move)
        if reason:
            checks.append(Check(change=change, reason=reason))
        else:
            checks.append(_compared(change, grid, grid.rescored(moved), distinguishable))
    return checks


def _again(grid: _Grid, again: Outcomes | None, distinguishable: Sequence[Pair]) -> Check:
    change = "another seed"
    if again is None:
        return Check(change=change, reason="every rollout was imagined once")
    missing = sorted(set(grid.policies) - {cell[0] for cell in again})
    if missing:
        raise MismatchError(
            f"the rollouts of another seed have none of {missing[:5]}; expected the policies that "
            f"are ranked, {list(grid.policies[:5])}"
        )
    return _compared(change, grid, grid.rescored(again), distinguishable)


def _compared(change: str, before: _Grid, after: _Grid, distinguishable: Sequence[Pair]) -> Check:
    old, new = before.rates(), after.rates()
    if not np.isfinite(new).all():
        return Check(change=change, reason="some policy has no decided rollout left")
    rate = dict(zip(before.policies, new[0].tolist(), strict=True))
    turned = tuple((a, b) for a, b in distinguishable if rate[b] - rate[a] > 1e-12)
    kept = float(_same_winner(old, new)[0])
    if len(before.policies) < 3:
        return Check(change=change, winner_kept=kept, turned=turned)
    figures = {
        name: float(np.nan_to_num(values[0])) for name, values in figures_of(old, new).items()
    }
    return Check(
        change=change,
        kendall=figures["kendall"],
        spearman=figures["spearman"],
        winner_kept=kept,
        turned=turned,
    )


def _same_winner(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(draws,) whether some policy is first in both, (draws, policies) each."""
    first = (rates >= rates.max(axis=1, keepdims=True) - 1e-12 for rates in (one, other))
    return np.logical_and(*first).any(axis=1)


def _no_order(
    grid: _Grid, distinguishable: Sequence[Pair], true_rates: Mapping[str, float]
) -> list[str]:
    rates = grid.rates()[0]
    if np.ptp(rates) < 1e-12:
        return [f"nothing distinguishes the policies: each succeeds in {100 * rates[0]:.0f} %"]
    if len(true_rates) > 1 and not any(true_rates.values()):
        return [
            f"nothing truly distinguishes the policies: each of the {len(true_rates)} whose truth "
            f"is known fails always, while imagination gives up to {100 * rates.max():.0f} %"
        ]
    return [] if distinguishable else ["no two policies can be told apart"]


def _broken(checks: Sequence[Check]) -> list[str]:
    because = []
    for check in checks:
        if check.turned:
            pairs = "; ".join(f"{b} then beats {a}" for a, b in check.turned[:2])
            more = f" and {len(check.turned) - 2} more" if len(check.turned) > 2 else ""
            because.append(f"with {check.change} the order turns ({pairs}{more})")
        elif check.kendall is not None and check.kendall < LEAST_KENDALL:
            because.append(
                f"with {check.change} little of the order is left (Kendall {check.kendall:.2f})"
            )
        elif check.kendall is None and check.winner_kept is not None and check.winner_kept < 0.8:
            because.append(
                f"with {check.change} the first place stays in {100 * check.winner_kept:.0f} % only"
            )
    return because
