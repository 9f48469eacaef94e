"""A leaderboard from verdict tables.

In: the verdicts of imagined rollouts and, where they exist, of the same rollouts carried out in
the true world: pandas tables with the columns ``policy, task, start_id, outcome`` and, if there,
``key, world, judge, probability``.
Out: ``Leaderboard`` (rates with Wilson intervals, ranks, per task, agreement with the truth), as
JSON and as text for a terminal.

UNDECIDED and ERROR are never failures: rate = successes / (successes + failures), and both are
counted beside it. The comparison is paired: the true table is restricted to the (policy, task,
start_id) cells that were imagined, and a missing one is an error. A policy without any true
result is ranked too, and left out of the agreement.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.errors import DataError, StoreError
from worldeval.ranking.agreement import (
    Agreement,
    CellAgreement,
    TaskCounts,
    agree_in_cells,
    agree_over_tasks,
)
from worldeval.ranking.intervals import (
    Estimate,
    Interval,
    JudgeCalibration,
    rogan_gladen,
    wilson_interval,
)
from worldeval.ranking.verdict_table import (
    Cell,
    column_names,
    pair_outcomes,
    read_outcomes,
    uneven_starts,
)
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many rollouts ended how."""

    successes: int = 0
    failures: int = 0
    undecided: int = 0
    errors: int = 0
    confidence: float = 0.95

    @classmethod
    def of(cls, outcomes: Iterable[Outcome], confidence: float = 0.95) -> Tally:
        kinds = list(outcomes)
        return cls(
            successes=kinds.count(Outcome.SUCCESS),
            failures=kinds.count(Outcome.FAILURE),
            undecided=kinds.count(Outcome.UNDECIDED),
            errors=kinds.count(Outcome.ERROR),
            confidence=confidence,
        )

    @property
    def decided(self) -> int:
        return self.successes + self.failures

    @property
    def rate(self) -> float | None:
        """successes / (successes + failures); None where nothing was decided."""
        return self.successes / self.decided if self.decided else None

    @property
    def interval(self) -> Interval:
        """Wilson's; [0, 1] where nothing was decided."""
        return wilson_interval(self.successes, self.decided, confidence=self.confidence)

    def to_dict(self) -> dict[str, Any]:
        return {
            "successes": self.successes,
            "failures": self.failures,
            "undecided": self.undecided,
            "errors": self.errors,
            "rate": self.rate,
            "low": self.interval.low,
            "high": self.interval.high,
        }


@dataclass(frozen=True, kw_only=True)
class PolicyRow:
    """One policy. ``rank`` is by imagined rate, ties share the better one; None without a rate."""

    name: str
    rank: int | None
    imagined: Tally
    real: Tally | None
    corrected: Estimate | None = None
    """Imagined rate corrected for the judge's errors, where its calibration was given."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rank": self.rank,
            "imagined": self.imagined.to_dict(),
            "real": None if self.real is None else self.real.to_dict(),
            "corrected": None if self.corrected is None else dict(vars(self.corrected)),
        }


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task: a cell per policy, in the order of the leaderboard."""

    task: str
    policies: tuple[PolicyRow, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"task": self.task, "policies": [row.to_dict() for row in self.policies]}


@dataclass(frozen=True, kw_only=True)
class OutcomeAgreement:
    """Single rollouts decided on both sides, from the same start: does each end the same way?"""

    both_succeed: int = 0
    only_imagined_succeeds: int = 0
    only_real_succeeds: int = 0
    both_fail: int = 0

    @property
    def rollouts(self) -> int:
        return sum(vars(self).values())

    @property
    def same(self) -> float | None:
        """Share that ends the same way."""
        return (self.both_succeed + self.both_fail) / self.rollouts if self.rollouts else None

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "rollouts": self.rollouts, "same": self.same}


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Policies, best imagined rate first, and how far to believe it.

    excluded: policies that the agreement leaves out, and why.
    notes: what a reader should know before trusting the order.
    """

    policies: tuple[PolicyRow, ...]
    per_task: tuple[TaskRow, ...]
    agreement: Agreement
    cells: CellAgreement
    outcomes: OutcomeAgreement
    excluded: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    worlds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    judges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "policies": [row.to_dict() for row in self.policies],
            "per_task": [row.to_dict() for row in self.per_task],
            "agreement": self.agreement.to_dict()
            | {
                "cells": self.cells.to_dict(),
                "outcomes": self.outcomes.to_dict(),
                "excluded": dict(self.excluded),
            },
            "worlds": {side: list(names) for side, names in self.worlds.items()},
            "judges": {side: list(names) for side, names in self.judges.items()},
            "notes": list(self.notes),
        }

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write ``leaderboard.json``, wholly or not at all."""
        target = Path(path)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(target, text)
        return target

    def to_text(self, *, unicode: bool = True) -> str:
        """A table for a terminal; ``unicode=False`` keeps to ASCII."""
        from worldeval.ranking.text_table import render

        return render(self, unicode=unicode)


def build_leaderboard(
    imagined: pd.DataFrame,
    real: pd.DataFrame | None = None,
    *,
    confidence: float = 0.95,
    bootstrap_draws: int = 2000,
    seed: int = 0,
    judge_calibration: JudgeCalibration | Mapping[str, JudgeCalibration] | None = None,
) -> Leaderboard:
    """Rank the imagined policies and compare them with the true results of the same rollouts.

    judge_calibration: of the judge of the imagined rollouts, one for all policies or one by
        policy name (a judge may err differently on each); adds ``corrected`` rates. The rank and
        the agreement stay with the plain rates.
    """
    said = read_outcomes(imagined, "imagined")
    if not said:
        raise DataError("the imagined verdict table is empty; roll out and judge policies first")
    true = {} if real is None else pair_outcomes(said, read_outcomes(real, "real"))
    tasks = list(dict.fromkeys(cell[1] for cell in said))
    notes = uneven_starts(said)

    def tallies(name: str, task: str | None) -> tuple[Tally, Tally | None]:
        cells = [c for c in said if c[0] == name and task in (None, c[1])]
        paired = [true[c] for c in cells if c in true]
        return (
            Tally.of((said[c] for c in cells), confidence),
            Tally.of(paired, confidence) if paired else None,
        )

    overall = {name: tallies(name, None) for name in dict.fromkeys(cell[0] for cell in said)}
    order = sorted(overall, key=lambda name: (-_or(overall[name][0].rate, -1.0), name))
    rows = tuple(
        PolicyRow(
            name=name,
            rank=_rank(name, {other: pair[0].rate for other, pair in overall.items()}),
            imagined=overall[name][0],
            real=overall[name][1],
            corrected=_corrected(name, overall[name][0], judge_calibration, confidence),
        )
        for name in order
    )
    by_task = []
    for task in tasks:
        cells = {name: tallies(name, task) for name in order}
        rates = {name: pair[0].rate for name, pair in cells.items()}
        by_task.append(
            TaskRow(
                task=task,
                policies=tuple(
                    PolicyRow(
                        name=name,
                        rank=_rank(name, rates),
                        imagined=cells[name][0],
                        real=cells[name][1],
                    )
                    for name in order
                ),
            )
        )
    excluded = {row.name: why for row in rows if (why := _why_excluded(row))}
    compared = [i for i, row in enumerate(rows) if row.name not in excluded]
    counts = {
        "imagined": _counts([[t.policies[i].imagined for t in by_task] for i in compared], tasks),
        "real": _counts([[t.policies[i].real for t in by_task] for i in compared], tasks),
    }
    return Leaderboard(
        policies=rows,
        per_task=tuple(by_task),
        agreement=agree_over_tasks(
            **counts, draws=bootstrap_draws, seed=seed, confidence=confidence
        ),
        cells=agree_in_cells(**counts),
        outcomes=_compare_outcomes(said, true),
        excluded=excluded,
        notes=tuple(notes),
        worlds={"imagined": column_names(imagined, "world"), "real": column_names(real, "world")},
        judges={"imagined": column_names(imagined, "judge"), "real": column_names(real, "judge")},
    )


def write_whole(target: Path, text: str) -> None:
    """Write through a temporary file beside the target, so that a reader sees old or new."""
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate (an undecodable file name as a policy's name) becomes "?".
        part.write_bytes(text.encode("utf-8", "replace"))
        os.replace(part, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {target}: {error.strerror or error}; choose a writable folder with "
            f"free space"
        ) from error


def _why_excluded(row: PolicyRow) -> str:
    if row.real is None:
        return "no real results"
    if row.imagined.rate is None:
        return "no decided imagined rollout"
    return "" if row.real.rate is not None else "no decided real rollout"


def _corrected(
    name: str,
    tally: Tally,
    calibration: JudgeCalibration | Mapping[str, JudgeCalibration] | None,
    confidence: float,
) -> Estimate | None:
    if isinstance(calibration, Mapping):
        calibration = calibration.get(name)
    if calibration is None or not tally.decided:
        return None
    return rogan_gladen(tally.successes, tally.decided, calibration, confidence=confidence)


def _rank(name: str, rates: Mapping[str, float | None]) -> int | None:
    own = rates[name]
    if own is None:
        return None
    return 1 + sum(rate is not None and rate > own for rate in rates.values())


def _counts(tallies: list[list[Any]], tasks: list[str]) -> TaskCounts:
    def grid(name: str) -> np.ndarray:
        numbers = [[0 if t is None else getattr(t, name) for t in row] for row in tallies]
        return np.asarray(numbers, np.float64).reshape(len(tallies), len(tasks))

    return TaskCounts(successes=grid("successes"), decided=grid("decided"))


def _compare_outcomes(
    said: Mapping[Cell, Outcome], true: Mapping[Cell, Outcome]
) -> OutcomeAgreement:
    pairs = [(said[cell], outcome) for cell, outcome in true.items()]
    return OutcomeAgreement(
        both_succeed=pairs.count((Outcome.SUCCESS, Outcome.SUCCESS)),
        only_imagined_succeeds=pairs.count((Outcome.SUCCESS, Outcome.FAILURE)),
        only_real_succeeds=pairs.count((Outcome.FAILURE, Outcome.SUCCESS)),
        both_fail=pairs.count((Outcome.FAILURE, Outcome.FAILURE)),
    )


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
