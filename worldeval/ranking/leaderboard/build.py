"""A leaderboard from verdict tables.

In: the verdicts of imagined rollouts and, where they exist, of the same rollouts carried out in
the true world (``against``), a few true trials (``real``), what is known of the judge's errors
and of where the imagination left reality: pandas tables with the columns ``policy, task,
start_id, outcome`` and, if there, ``key, world, judge, probability``.
Out: ``Leaderboard`` (rates with intervals, ranks, which policies cannot be told apart, plans,
corrected and joined rates, per task, agreement with the truth), as JSON and as text.

The comparison with the truth is paired: the true table is restricted to the (policy, task,
start_id) cells that were imagined, and a missing one is an error. A policy without any true
result is ranked too, and left out of the agreement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data.tables import SOLVED_AT
from worldeval.errors import ConfigError, DataError
from worldeval.ranking.agreement import TaskCounts, agree_in_cells, agreement
from worldeval.ranking.leaderboard.controls import check_controls, split_controls
from worldeval.ranking.leaderboard.corrections import JudgeErrors, correct_rates
from worldeval.ranking.leaderboard.leaderboard import (
    Leaderboard,
    OutcomeAgreement,
    SignalWorth,
    TrustSummary,
)
from worldeval.ranking.leaderboard.pairwise_tests import PairwiseTests
from worldeval.ranking.leaderboard.policy_row import PolicyRow, TaskRow
from worldeval.ranking.leaderboard.stability import stability
from worldeval.ranking.outcome_counts import (
    OutcomeCounts,
    Weights,
    check_weights,
    count_by_task,
    over_tasks,
    task_share,
    task_weight,
)
from worldeval.ranking.prediction_powered_rates import (
    PredictionPoweredRate,
    prediction_powered_rates,
)
from worldeval.ranking.selection_regret import Selection, selection_regret
from worldeval.ranking.verdict_table import (
    Cell,
    check_same_starts,
    column_names,
    distrust,
    pair_outcomes,
    read_cells,
    read_column,
    read_outcomes,
    read_trials,
    starts_of,
    uneven_starts,
    unmatched,
)
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

TaskTallies = Mapping[str, Mapping[str, OutcomeCounts]]
"""By policy, then by task."""


def build_leaderboard(
    imagined: pd.DataFrame,
    against: pd.DataFrame | None = None,
    *,
    real: pd.DataFrame | None = None,
    judge_errors: JudgeErrors | None = None,
    trust: pd.DataFrame | None = None,
    again: pd.DataFrame | None = None,
    weights: Weights = "rollouts",
    alpha: float = 0.05,
    correction: str = "holm",
    require_pairs: bool = False,
    confidence: float = 0.95,
    bootstrap_draws: int = 2000,
    seed: int = 0,
) -> Leaderboard:
    """Rank the imagined policies, and say how far the order can be believed.

    against: what truly happened from the same start states, for the agreement.
    real: a few true trials (columns policy, task, start_id and outcome or success), which are
        joined with the imagined rollouts to one rate (``prediction_powered_rates.py``).
    judge_errors: of the judge of the imagined rollouts, one for all policies or one by policy name
        (a judge may err differently on each; ``PeerErrors`` for a policy on which it was not
        measured); adds ``corrected`` rates. The rank and the agreement stay with the plain rates.
    trust: columns policy, task, start_id, trusted, distrust; adds rates without the distrusted.
    again: verdicts on the same policies, imagined with another seed, for the stability.
    weights: ``rollouts`` (each decided rollout weighs the same), ``equal`` (each task), or a
        weight per task; of the rates over tasks, the comparisons and the agreement.
    alpha, correction: policies are told apart where p, corrected for all pairs, is at most alpha.
    require_pairs: refuse policies that were not imagined from the same start states, instead of
        comparing them by counts.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha!r}, expected a number between 0 and 1")
    verdicts, verdicts_of_controls = split_controls(read_outcomes(imagined, "imagined"))
    if not verdicts:
        raise DataError("the imagined verdict table is empty; roll out and judge policies first")
    tasks = list(dict.fromkeys(cell[1] for cell in verdicts))
    check_weights(weights, tasks)
    imagined_from = starts_of(verdicts)
    if require_pairs:
        check_same_starts(imagined_from)
    notes = uneven_starts(imagined_from)

    true: dict[Cell, Outcome] = {}
    true_of_controls: dict[Cell, Outcome] = {}
    if against is not None:
        known, true_of_controls = split_controls(read_trials(against, "the true verdict table"))
        true = pair_outcomes(verdicts, known)
        notes += unmatched(verdicts, known, "true result is", "true results are")
    by_task = count_by_task(verdicts, confidence)
    true_by_task = count_by_task(true, confidence)
    overall = {name: over_tasks(parts, weights) for name, parts in by_task.items()}
    order = sorted(overall, key=lambda name: (_below(overall[name].rate), name))

    believed, summary = _trusted(verdicts, true, trust, weights, confidence)
    if trust is not None:
        doubted, _ = split_controls(read_cells(trust, "the trust table"))
        notes += unmatched(verdicts, doubted, "row of trust is", "rows of trust are")
    joined = {} if real is None else _join(verdicts, imagined, real, confidence)
    uneven = any(
        t.weighted and abs(t.weighted[0] - t.successes / t.decided) > 1e-9 for t in overall.values()
    )
    if joined and (untried := [name for name in order if name not in joined]):
        notes.append(f"No decided true trial of {', '.join(untried)}.")
    if joined and uneven:
        notes.append("The joined rates weigh every start state the same, not by task.")
    corrected, why_not = correct_rates(by_task, judge_errors, weights, confidence)
    notes += why_not

    tests = PairwiseTests(
        outcomes=verdicts,
        weights=weights,
        alpha=alpha,
        correction=correction,
        confidence=confidence,
    )
    pairwise = tests.over_tasks(overall)
    rows = tuple(
        PolicyRow(
            name=name,
            rank=_rank(name, overall),
            letters=pairwise.letters.get(name, ""),
            imagined=overall[name],
            true=over_tasks(true_by_task[name], weights) if name in true_by_task else None,
            corrected=corrected.get(name),
            trusted=believed.get(name),
            joined=joined.get(name),
        )
        for name in order
    )
    per_task = [
        _task_row(task, order, by_task, true_by_task, tests, task_share(weights, tasks, task))
        for task in tasks
    ]
    firm = [pair for pair in pairwise.comparisons if pairwise.distinguishable(pair)]
    place = {name: number for number, name in enumerate(order)}
    excluded = {row.name: why for row in rows if (why := _why_excluded(row))}
    compared = [name for name in order if name not in excluded]
    predicted = _counts([by_task[name] for name in compared], tasks, weights)
    truth = _counts([true_by_task[name] for name in compared], tasks, weights)
    return Leaderboard(
        policies=rows,
        per_task=tuple(per_task),
        pairwise=pairwise,
        agreement=agreement(
            truth,
            predicted,
            names=compared,
            draws=bootstrap_draws,
            seed=seed,
            confidence=confidence,
        ),
        cells=agree_in_cells(real=truth, predicted=predicted),
        outcomes=OutcomeAgreement.of(verdicts, true),
        trust=summary,
        controls=check_controls(verdicts_of_controls, true_of_controls),
        selection=_selection(rows, seed, confidence),
        stability=stability(
            verdicts,
            distinguishable=[
                (min(p.a, p.b, key=place.__getitem__), max(p.a, p.b, key=place.__getitem__))
                for p in firm
            ],
            weights=weights,
            probabilities=read_column(imagined, "probability"),
            solved_at=read_column(imagined, SOLVED_AT),
            again=None if again is None else read_outcomes(again, "other seed's"),
            true_rates={
                row.name: row.true.rate for row in rows if row.true and row.true.rate is not None
            },
            seed=seed,
        ),
        weights=weights,
        confidence=confidence,
        excluded=excluded,
        notes=tuple(notes),
        worlds={
            "imagined": column_names(imagined, "world"),
            "true": column_names(against, "world"),
        },
        judges={
            "imagined": column_names(imagined, "judge"),
            "true": column_names(against, "judge"),
        },
    )


def _selection(rows: Sequence[PolicyRow], seed: int, confidence: float) -> tuple[Selection, ...]:
    """For 2, 4, 8 ... choices out of the policies whose truth is known; () for fewer than 3."""
    both = [(row.true.rate, row.imagined.rate) for row in rows if row.true is not None]
    rates = np.array([pair for pair in both if None not in pair], np.float64)
    if len(rates) < 3:
        return ()
    sizes = [2**k for k in range(1, 20) if 2**k < len(rates)]
    return tuple(
        selection_regret(rates[:, 0], rates[:, 1], choices, confidence=confidence, seed=seed)
        for choices in sizes
    )


def _task_row(
    task: str,
    order: Sequence[str],
    imagined: TaskTallies,
    true: TaskTallies,
    tests: PairwiseTests,
    share: float | None,
) -> TaskRow:
    rates = {name: parts[task] for name, parts in imagined.items() if task in parts}
    letters = tests.in_task(task, rates).letters
    return TaskRow(
        task=task,
        weight=share,
        policies=tuple(
            PolicyRow(
                name=name,
                rank=_rank(name, rates),
                letters=letters.get(name, ""),
                imagined=rates.get(name, OutcomeCounts(confidence=tests.confidence)),
                true=true.get(name, {}).get(task),
            )
            for name in order
        ),
    )


def _trusted(
    verdicts: Mapping[Cell, Outcome],
    true: Mapping[Cell, Outcome],
    trust: pd.DataFrame | None,
    weights: Weights,
    confidence: float,
) -> tuple[dict[str, OutcomeCounts], TrustSummary | None]:
    """Tallies without the distrusted rollouts, by policy, and what distrust is worth."""
    if trust is None:
        return {}, None
    kept = distrust(verdicts, trust)
    counts = count_by_task(kept, confidence)
    rates = {name: over_tasks(parts, weights) for name, parts in counts.items()}
    signals = [SignalWorth(**worth) for worth in trust.attrs.get("worth", ())]
    doubts = read_column(trust, "distrust")
    return rates, TrustSummary.of(verdicts, kept, true, doubts=doubts, signals=signals)


def _join(
    verdicts: Mapping[Cell, Outcome], imagined: pd.DataFrame, real: pd.DataFrame, confidence: float
) -> dict[str, PredictionPoweredRate]:
    trials = read_trials(real)
    if not trials:
        raise DataError("the table of true trials is empty; give at least one row")
    return prediction_powered_rates(
        verdicts, trials, probabilities=read_column(imagined, "probability"), confidence=confidence
    )


def _why_excluded(row: PolicyRow) -> str:
    if row.true is None:
        return "no true results"
    if row.imagined.rate is None:
        return "no decided imagined rollout"
    return "" if row.true.rate is not None else "no decided true rollout"


def _rank(name: str, counts: Mapping[str, OutcomeCounts]) -> int | None:
    own = counts[name].rate if name in counts else None
    if own is None:
        return None
    return 1 + sum(
        other.rate is not None and round(other.rate - own, 12) > 0 for other in counts.values()
    )


def _counts(
    parts: Sequence[Mapping[str, OutcomeCounts]], tasks: list[str], weights: Weights
) -> TaskCounts:
    """(policies, tasks) counts; by task weights, each task is worth its weight in rollouts."""
    successes, decided = (np.zeros((len(parts), len(tasks))) for _ in range(2))
    for i, counts in enumerate(parts):
        for j, task in enumerate(tasks):
            tally = counts.get(task)
            if tally is None or not tally.decided:
                continue
            one = 1.0 if weights == "rollouts" else task_weight(weights, task) / tally.decided
            successes[i, j], decided[i, j] = tally.successes * one, tally.decided * one
    return TaskCounts(successes=successes, decided=decided)


def _below(rate: float | None) -> float:
    """Sorts the best rate first and those without any last."""
    return 1.0 if rate is None else -rate
