"""What a leaderboard knows: a row per policy, over all tasks and in each, and its context.

In: counts and estimates, put together by ``build.build_leaderboard``. Out: frozen
dataclasses, ``Leaderboard`` the whole of them, as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.atomic import write_whole
from worldeval.metrics.roc import auroc
from worldeval.ranking.agreement import Agreement, CellAgreement
from worldeval.ranking.leaderboard.controls import Controls
from worldeval.ranking.leaderboard.corrections import said_of_corrections
from worldeval.ranking.leaderboard.pairwise import Pairwise
from worldeval.ranking.leaderboard.policy_row import PolicyRow, TaskRow
from worldeval.ranking.leaderboard.stability import Stability
from worldeval.ranking.outcome_counts import Weights
from worldeval.ranking.selection_regret import Selection
from worldeval.types import Outcome


@dataclass(frozen=True, kw_only=True)
class OutcomeAgreement:
    """Single rollouts decided on both sides, from the same start: does each end the same way?"""

    both_succeed: int = 0
    only_imagined_succeeds: int = 0
    only_true_succeeds: int = 0
    both_fail: int = 0

    @classmethod
    def of(cls, verdicts: Mapping[Any, Outcome], true: Mapping[Any, Outcome]) -> OutcomeAgreement:
        """Of the cells of ``true``, all of which are in ``verdicts``."""
        pairs = [(verdicts[cell], outcome) for cell, outcome in true.items()]
        return cls(
            both_succeed=pairs.count((Outcome.SUCCESS, Outcome.SUCCESS)),
            only_imagined_succeeds=pairs.count((Outcome.SUCCESS, Outcome.FAILURE)),
            only_true_succeeds=pairs.count((Outcome.FAILURE, Outcome.SUCCESS)),
            both_fail=pairs.count((Outcome.FAILURE, Outcome.FAILURE)),
        )

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
class SignalWorth:
    """How well a signal told wrong verdicts from right ones where trust was calibrated: AUROC with
    its interval, None where too few were wrong; and whether it counts in the distrust."""

    signal: str
    auroc: float | None
    low: float | None
    high: float | None
    counts: bool


@dataclass(frozen=True, kw_only=True)
class TrustSummary:
    """How many decided rollouts are distrusted, and how often verdicts are wrong on either side.

    wrong_*: (wrong verdicts, verdicts with a known truth); zeros where the truth is not known.
    auroc: of the distrust for wrong verdicts, here; None where there are not both kinds.
    signals: what they were worth where they were calibrated.
    """

    decided: int
    distrusted: int
    wrong_trusted: tuple[int, int] = (0, 0)
    wrong_distrusted: tuple[int, int] = (0, 0)
    auroc: float | None = None
    signals: tuple[SignalWorth, ...] = ()

    @classmethod
    def of(
        cls,
        verdicts: Mapping[Any, Outcome],
        kept: Mapping[Any, Outcome],
        true: Mapping[Any, Outcome],
        *,
        doubts: Mapping[Any, float],
        signals: Iterable[SignalWorth] = (),
    ) -> TrustSummary:
        """verdicts: all outcomes; kept: those of distrusted rollouts UNDECIDED; true: where known;
        doubts: distrust of each rollout."""
        known = {cell: outcome for cell, outcome in true.items() if outcome.decided}
        decided = [cell for cell, outcome in verdicts.items() if outcome.decided]
        wrong = {True: [0, 0], False: [0, 0]}
        for cell in decided:
            if cell in known:
                side = wrong[kept[cell] is verdicts[cell]]
                side[0] += verdicts[cell] is not true[cell]
                side[1] += 1
        judged = [cell for cell in decided if cell in known]
        area = auroc(
            np.array([doubts.get(cell, np.nan) for cell in judged]),
            np.array([verdicts[cell] is not true[cell] for cell in judged], bool),
        )
        return cls(
            decided=len(decided),
            distrusted=sum(kept[cell] is not verdicts[cell] for cell in decided),
            wrong_trusted=(wrong[True][0], wrong[True][1]),
            wrong_distrusted=(wrong[False][0], wrong[False][1]),
            auroc=None if np.isnan(area) else area,
            signals=tuple(signals),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "decided": self.decided,
            "distrusted": self.distrusted,
            "wrong_trusted": list(self.wrong_trusted),
            "wrong_distrusted": list(self.wrong_distrusted),
            "auroc": self.auroc,
            "signals": [dict(vars(signal)) for signal in self.signals],
        }


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Policies, best imagined rate first, and how far to believe it.

    excluded: policies that the agreement leaves out, and why.
    notes: what a reader should know before trusting the order.
    """

    policies: tuple[PolicyRow, ...]
    per_task: tuple[TaskRow, ...]
    pairwise: Pairwise
    agreement: Agreement
    cells: CellAgreement
    outcomes: OutcomeAgreement
    trust: TrustSummary | None = None
    stability: Stability = field(default_factory=lambda: Stability(stable=None))
    controls: Controls = field(default_factory=Controls)
    selection: tuple[Selection, ...] = ()
    """Choosing the best of 2, 4, 8 ... policies by imagination, where the truth is known."""
    weights: Weights = "rollouts"
    confidence: float = 0.95
    excluded: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    worlds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    judges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def ranked(self) -> tuple[PolicyRow, ...]:
        """Those that have a rate."""
        return tuple(row for row in self.policies if row.rank is not None)

    @property
    def said_of_corrections(self) -> str:
        """What its corrected rates are, in a sentence; empty without any."""
        return said_of_corrections([row.corrected for row in self.policies if row.corrected])

    @property
    def errors_by_trust(self) -> tuple[float, float] | None:
        """Mean absolute error, over policies, of the imagined rates with and without distrusted
        rollouts; None where no true rates are known beside them."""
        errors = []
        for row in self.policies:
            sides = (row.imagined, row.trusted, row.true)
            raw, kept, true = (None if side is None else side.rate for side in sides)
            if raw is not None and kept is not None and true is not None:
                errors.append((abs(raw - true), abs(kept - true)))
        if not errors:
            return None
        plain, trusted = np.mean(errors, axis=0).tolist()
        return plain, trusted

    def to_dict(self) -> dict[str, Any]:
        return {
            "policies": [row.to_dict() for row in self.policies],
            "per_task": [row.to_dict() for row in self.per_task],
            "weights": self.weights if isinstance(self.weights, str) else dict(self.weights),
            "confidence": self.confidence,
            "comparisons": self.pairwise.to_dict(),
            "agreement": self.agreement.to_dict()
            | {
                "cells": self.cells.to_dict(),
                "outcomes": self.outcomes.to_dict(),
                "excluded": dict(self.excluded),
            },
            "trust": None
            if self.trust is None
            else self.trust.to_dict() | {"mean_absolute_error": self.errors_by_trust},
            "stability": self.stability.to_dict(),
            "controls": self.controls.to_dict(),
            "selection": [found.to_dict() for found in self.selection],
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
