"""Two evaluations from the same start states compared: did what was changed help?

Enters: an evaluation before and one after (another policy of the same name, fine-tuned weights,
another world model), judged by the same judge. Leaves: for each policy the paired difference of its
success rates, with interval and test, over all tasks and in each. Only start states that both have
count: a start that is hard for both weighs on neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.errors import MismatchError
from worldeval.evaluation.evaluation import Evaluation
from worldeval.evaluation.opening import world_model_of
from worldeval.ranking.comparisons import PairedTest, paired_test
from worldeval.ranking.leaderboard.controls import CONTROLS
from worldeval.ranking.letters import adjust_p_values
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Change:
    """One policy before and after.

    task: None over all tasks. test: a is before, b after. adjusted: p value corrected for all
    policies (Holm); in a single task None, since it is there to be looked at, not to be tested.
    """

    before: str
    after: str
    task: str | None
    test: PairedTest
    adjusted: float | None


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """Changes over all tasks and in each, and what is to be known about the comparison."""

    changes: tuple[Change, ...]
    tasks: tuple[Change, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """One line a policy."""
        lines = []
        for change in self.changes:
            test = change.test
            name = change.after
            if change.before != change.after:
                name = f"{change.before} -> {change.after}"
            lines.append(
                f"{name}: {100 * test.difference:+.1f} points "
                f"[{100 * test.low:+.1f}, {100 * test.high:+.1f}], {test.only_b} solved only after,"
                f" {test.only_a} only before, of {test.pairs} start states; p = "
                f"{change.adjusted:.2g}"
            )
        return "\n".join([*lines, *self.notes])


def before_and_after(
    before: Evaluation | str | Path,
    after: Evaluation | str | Path,
    *,
    policies: Sequence[tuple[str, str]] | None = None,
) -> BeforeAfter:
    """Compare two evaluations start state by start state.

    policies: names before and after; those that both have if None, or the only one of each, but
        no controls.
    Raises MismatchError where there is nothing to compare: no policy or start state in common,
    verdicts of different judges.
    """
    tables = [
        (one if isinstance(one, Evaluation) else Evaluation.open(one)).verdicts
        for one in (before, after)
    ]
    folders = [one.folder if isinstance(one, Evaluation) else Path(one) for one in (before, after)]
    judges = [sorted(set(table["judge"].astype(str))) for table in tables]
    if judges[0] != judges[1]:
        raise MismatchError(
            f"{folders[0]} was judged by {judges[0]}, {folders[1]} by {judges[1]}; let one judge "
            "judge both: worldeval judge FOLDER"
        )
    pairs = list(policies) if policies is not None else _pairs(tables, folders)
    found, in_tasks, without = [], [], 0
    for old, new in pairs:
        a, b = _outcomes(tables[0], old, folders[0]), _outcomes(tables[1], new, folders[1])
        both = [start for start in a if start in b]
        without += len(a) + len(b) - 2 * len(both)
        decided = [s for s in both if a[s].decided and b[s].decided]
        if not decided:
            raise MismatchError(
                f"{old!r} before and {new!r} after have {len(both)} start states in common, of "
                "which none is decided on both sides; roll out both from the same ones, and judge"
            )
        found.append((old, new, paired_test({s: a[s] for s in both}, {s: b[s] for s in both})))
        for task in dict.fromkeys(task for task, _ in both):
            some = [start for start in both if start[0] == task]
            if any(start in decided for start in some):
                test = paired_test({s: a[s] for s in some}, {s: b[s] for s in some})
                in_tasks.append(Change(before=old, after=new, task=task, test=test, adjusted=None))
    adjusted = adjust_p_values([test.p_value for _, _, test in found], "holm")
    notes = []
    if without:
        notes.append(f"{without} rollouts have no counterpart on the other side and do not count.")
    models = [world_model_of(folder) for folder in folders]
    if models[0] != models[1]:
        notes.append(
            "The two were imagined by different world models: part of the difference may be theirs."
        )
    return BeforeAfter(
        changes=tuple(
            Change(before=old, after=new, task=None, test=test, adjusted=float(p))
            for (old, new, test), p in zip(found, adjusted, strict=True)
        ),
        tasks=tuple(in_tasks),
        notes=tuple(notes),
    )


def _pairs(tables: Sequence[pd.DataFrame], folders: Sequence[Path]) -> list[tuple[str, str]]:
    found = [dict.fromkeys(table["policy"].astype(str)) for table in tables]
    names = [[name for name in of if name not in CONTROLS] for of in found]
    common = [name for name in names[0] if name in names[1]]
    if common:
        return [(name, name) for name in common]
    if len(names[0]) == len(names[1]) == 1:
        return [(names[0][0], names[1][0])]
    raise MismatchError(
        f"{folders[0]} has the policies {names[0]}, {folders[1]} has {names[1]}, none of them in "
        "both; say which belong together"
    )


def _outcomes(table: pd.DataFrame, policy: str, folder: Path) -> dict[tuple[str, str], Outcome]:
    own = table[table["policy"].astype(str) == policy]
    if own.empty:
        known = sorted(set(table["policy"].astype(str)))
        raise MismatchError(f"{folder} has no rollouts of {policy!r}; it has {known}")
    starts = zip(own["task"].astype(str), own["start_id"].astype(str), strict=True)
    return {start: Outcome(outcome) for start, outcome in zip(starts, own["outcome"], strict=True)}
