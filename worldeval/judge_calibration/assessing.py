"""A judge against what was true: joins two tables and tallies what the judge got right.

Enters: the verdict table of one judge, and a table of what truly happened from the same start
states (a world that knows, or people). Leaves: an ``Assessment``.

What happened to the policy from that start is the truth even of an imagined rollout: sensitivity
and specificity then hold the errors of the imagination beside those of the judge, which is what a
corrected rate needs. To see the judge's own errors, judge rollouts of the true world.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.data.tables import Table
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.judge_calibration.assessment import Assessment, CellKey
from worldeval.judge_calibration.error_rates import Reliability
from worldeval.judge_calibration.raters import RaterAgreement, agreement_of_raters
from worldeval.judge_calibration.thresholds import Threshold, choose_thresholds, of_counts
from worldeval.judge_calibration.truth import (
    Joined,
    first_of,
    join,
    join_columns,
    need,
    outcomes_by,
)
from worldeval.judging.probability import Counts, count, reliability
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

UNEVEN_ABSTENTION = 0.1
"""A note is made where a judge leaves true successes and failures undecided so unequally."""


@dataclass(frozen=True, kw_only=True)
class AssessConfig:
    """How a judge is assessed."""

    precision: float = 0.95
    """Share of verdicts that the abstaining threshold is to get right, both ways."""
    max_abstention: float = 0.25
    """Share of rollouts that it may leave undecided."""
    bins: int = 10
    """Of the reliability curve."""
    confidence: float = 0.95
    """Of all intervals."""
    draws: int = 2000
    """Resamples behind the intervals of agreement between raters."""
    seed: int = 0
    """Of the resampling."""

    def __post_init__(self) -> None:
        for name in ("precision", "max_abstention"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value!r}, expected a share between 0 and 1")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence!r}, expected between 0 and 1")
        for name in ("bins", "draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected at least 1")


def assess(
    verdicts: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    others: Mapping[str, pd.DataFrame] | None = None,
    world_model: str | None = None,
    config: AssessConfig | None = None,
) -> Assessment:
    """How often the judge of ``verdicts`` is right.

    verdicts: a verdict table of one judge. truth: a table with ``outcome`` and either the cell
    columns or ``key``; its ``world`` and ``judge`` columns, if any, say who knew. others: name ->
    table of the same form as ``truth`` of more raters of these rollouts (people, other judges):
    their agreement is measured. world_model: digest of the model that imagined the rollouts.

    Raises DataError for a table that lacks columns, has rollouts twice, or knows one outcome only,
    and MismatchError where the truth knows none of the rollouts.
    """
    config = config or AssessConfig()
    judge = _only_judge(verdicts)
    joined = join(verdicts, truth)
    table = joined.table
    if table["true"].all() or not table["true"].any():
        word = "succeeded" if table["true"].all() else "failed"
        raise DataError(
            f"all {len(table)} rollouts with known truth truly {word}; how often the judge is "
            "right needs successes and failures, so add rollouts of the other kind"
        )
    outcomes = [Outcome(word) for word in table["outcome"]]
    cells = _cells(table, outcomes)
    rated = table["probability"].notna().to_numpy() & (table["outcome"] != Outcome.ERROR).to_numpy()
    probabilities = table["probability"].to_numpy(np.float64)[rated]
    labels = table["true"].to_numpy(bool)[rated]
    return Assessment(
        judge=judge,
        truth=_who_knew(truth),
        cells=cells,
        world_model=world_model,
        confidence=config.confidence,
        reliability=_reliability(probabilities, labels, config.bins),
        thresholds=_thresholds(count(outcomes, table["true"].to_numpy(bool)), probabilities,
                               labels, config),
        raters=_raters(joined, truth, judge, others or {}, config),
        notes=tuple(_notes(joined, outcomes, rated)),
    )  # fmt: skip


def _cells(table: pd.DataFrame, outcomes: Sequence[Outcome]) -> dict[CellKey, Counts]:
    rows: dict[CellKey, list[tuple[Outcome, bool]]] = {}
    for world, policy, task, true, outcome in zip(
        table["world"], table["policy"], table["task"], table["true"], outcomes, strict=True
    ):
        rows.setdefault((str(world), str(policy), str(task)), []).append((outcome, bool(true)))
    return {
        cell: count([outcome for outcome, _ in pairs], np.array([true for _, true in pairs]))
        for cell, pairs in rows.items()
    }


def _reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> Reliability | None:
    if not len(probabilities):
        return None
    table = reliability(probabilities, labels, bins)
    rows: Any = table.astype(object).where(table.notna(), None).to_dict("records")
    return Reliability(
        bins=tuple(rows),
        brier=table.attrs["brier"],
        ece=table.attrs["ece"],
        rollouts=len(probabilities),
    )


def _thresholds(
    now: Counts, probabilities: np.ndarray, labels: np.ndarray, config: AssessConfig
) -> tuple[Threshold, ...]:
    """The judge's own decisions first (their band is not known here), then what could be chosen."""
    if not len(labels) or labels.all() or not labels.any():
        return ()
    chosen = choose_thresholds(
        probabilities, labels, precision=config.precision, max_abstention=config.max_abstention
    )
    return (of_counts("as judged", None, None, now), *chosen)


def _raters(
    joined: Joined,
    truth: pd.DataFrame,
    judge: str,
    others: Mapping[str, pd.DataFrame],
    config: AssessConfig,
) -> RaterAgreement | None:
    """Agreement of everybody who rated the rollouts of the first world in the table.

    Rollouts are matched by the judge's own rows, so that a rater who names them by key and one who
    names them by cell meet.
    """
    if not others:
        return None
    table = joined.table
    said: dict[str, dict[Hashable, Outcome]] = {
        judge: dict(enumerate(Outcome(word) for word in table["outcome"])),
        _who_knew(truth): {
            row: Outcome.SUCCESS if true else Outcome.FAILURE
            for row, true in enumerate(table["true"])
        },
    }
    for name, other in others.items():
        by = join_columns(other, f"the table of {name}")
        known = outcomes_by(other, by, f"the table of {name}")
        items = Table.of(table, "the verdict table").names(by)
        ratings: dict[Hashable, Outcome] = {
            row: known[item] for row, item in enumerate(items) if item in known
        }
        if not ratings:
            raise MismatchError(
                f"{name} rated none of the judged rollouts: they are like {first_of(items)}, the "
                f"rated ones like {first_of(list(known))}; give labels of these rollouts"
            )
        said[name] = ratings
    return agreement_of_raters(
        said, confidence=config.confidence, draws=config.draws, seed=config.seed
    )


def _notes(joined: Joined, outcomes: Sequence[Outcome], rated: np.ndarray) -> list[str]:
    notes = []
    for number, one, several in (
        (joined.unmatched, "judged rollout has no truth", "judged rollouts have no truth"),
        (outcomes.count(Outcome.ERROR), "rollout ended with an error",
         "rollouts ended with an error"),
    ):  # fmt: skip
        if number == 1:
            notes.append(f"1 {one} and is left out.")
        elif number:
            notes.append(f"{number} {several} and are left out.")
    if joined.unused:
        notes.append(joined.unused)
    if joined.unknown:
        rollouts = "rollout" if joined.unknown == 1 else "rollouts"
        notes.append(f"The truth of {joined.unknown} {rollouts} is undecided; left out.")
    if not rated.any():
        notes.append(
            "The judge gives no probabilities, so its reliability and other thresholds cannot be "
            "shown."
        )
    true = joined.table["true"].to_numpy(bool)
    undecided = np.array([outcome == Outcome.UNDECIDED for outcome in outcomes])
    of_true, of_false = undecided[true].mean(), undecided[~true].mean()
    if abs(of_true - of_false) > UNEVEN_ABSTENTION:
        notes.append(
            f"The judge leaves {100 * of_true:.0f} % of the true successes undecided and "
            f"{100 * of_false:.0f} % of the true failures: rates over decided rollouts, corrected "
            "or not, are shifted by that."
        )
    return notes


def _only_judge(verdicts: pd.DataFrame) -> str:
    need(verdicts, ("judge",), "the verdict table")
    judges = sorted({str(name) for name in verdicts["judge"]})
    if len(judges) != 1:
        raise DataError(
            f"the verdicts are of {len(judges)} judges ({judges}), expected those of one; choose "
            "it by name"
        )
    return judges[0]


def _who_knew(truth: pd.DataFrame) -> str:
    for column in ("world", "judge"):
        if column in truth.columns:
            names = sorted({str(name) for name in truth[column] if name})
            if names:
                return ", ".join(names)
    return "labels"
