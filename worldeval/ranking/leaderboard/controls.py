"""Control rows: policies whose truth is plain tell on which tasks imagination is to be believed.

In: outcomes by (policy, task, start_id), controls among them by their reserved names. Out: a
``ControlRow`` per control and task, and the tasks that are in doubt, with the reason. Controls
never rank. Recorded expert actions should succeed; random, standing still and mirrored actions
should fail. Where the truth of a control is known, only rollouts that truly went as expected
count; where it is not, it is taken to be as expected, and the reason says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from worldeval.ranking.verdict_table import Cell
from worldeval.types import Outcome

EXPERT, RANDOM, STILL, MIRRORED = (
    "control-expert",
    "control-random",
    "control-still",
    "control-mirrored",
)
CONTROLS = (EXPERT, RANDOM, STILL, MIRRORED)
"""Reserved names of policies."""
MOST_FALSE = 0.05
"""Of control rollouts that truly fail, so many may be seen to succeed."""
LEAST_EXPERT = 0.8
"""Of the experts' rollouts that truly succeed, so many must be seen to."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ControlRow:
    """One control on one task. ``decided`` rollouts, of which ``successes`` in imagination."""

    control: str
    task: str
    decided: int
    successes: int
    truth_known: bool
    doubt: str = ""
    """Why the task is not to be believed; empty if it may be."""

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Controls:
    rows: tuple[ControlRow, ...] = ()

    @property
    def doubts(self) -> dict[str, tuple[str, ...]]:
        """Tasks that are not to be believed, with the reasons."""
        tasks = dict.fromkeys(row.task for row in self.rows if row.doubt)
        return {t: tuple(r.doubt for r in self.rows if r.task == t and r.doubt) for t in tasks}

    def to_dict(self) -> dict[str, Any]:
        doubts = {task: list(reasons) for task, reasons in self.doubts.items()}
        return {"rows": [row.to_dict() for row in self.rows], "not_to_be_believed": doubts}


def split_controls(cells: Mapping[Cell, T]) -> tuple[dict[Cell, T], dict[Cell, T]]:
    """Cells of policies, then of controls."""
    policies = {cell: value for cell, value in cells.items() if cell[0] not in CONTROLS}
    return policies, {cell: value for cell, value in cells.items() if cell[0] in CONTROLS}


def check_controls(verdicts: Mapping[Cell, Outcome], true: Mapping[Cell, Outcome]) -> Controls:
    """verdicts: of the judge, on the controls. true: what truly happened, where that is known."""
    tasks = dict.fromkeys(cell[1] for cell in verdicts)
    rows = (_row(name, task, verdicts, true) for task in tasks for name in CONTROLS)
    return Controls(rows=tuple(row for row in rows if row is not None))


def _row(
    control: str, task: str, verdicts: Mapping[Cell, Outcome], true: Mapping[Cell, Outcome]
) -> ControlRow | None:
    expected = Outcome.SUCCESS if control == EXPERT else Outcome.FAILURE
    own = {c: o for c, o in verdicts.items() if c[:2] == (control, task) and o.decided}
    known = {c: o for c, o in own.items() if c in true and true[c].decided}
    if known:
        own = {c: o for c, o in known.items() if true[c] is expected}
    if not own:
        return None
    successes = _count(own.values())
    rate = successes / len(own)
    bad = rate < LEAST_EXPERT if control == EXPERT else rate > MOST_FALSE
    return ControlRow(
        control=control,
        task=task,
        decided=len(own),
        successes=successes,
        truth_known=bool(known),
        doubt=_doubt(control, rate, len(own), bool(known)) if bad else "",
    )


def _count(outcomes: Iterable[Outcome]) -> int:
    return sum(outcome is Outcome.SUCCESS for outcome in outcomes)


def _doubt(control: str, rate: float, rollouts: int, known: bool) -> str:
    what = "succeed" if control == EXPERT else "fail"
    truth = f"truly {what}" if known else f"were taken to {what}, their truth is not known"
    return f"{control} is given {100 * rate:.0f} % of {rollouts} rollouts that {truth}"
