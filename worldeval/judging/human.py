"""``HumanJudge``: what people said who watched rollouts; and how a label is written down.

Enters: a table (``data.tables``) with one label a line::

    key,rater,outcome,reason,time                       as ``append_label`` writes it, or
    policy,task,start_id,rater,outcome[,reason][,time]   as one writes it by hand

outcome is success, failure or undecided, or a word for these (``data.cells``); "withdrawn" takes
back the rater's last label on that rollout. Columns ``credit`` (share of the task that was solved)
and ``artefact`` (yes: the pictures show what cannot be) may stand behind. ``key`` names the
rollout in its store, or is its ``blind_id``, which tells a rater nothing about the policy. Of a
rater's several labels on one rollout the last counts: a correction is appended, nothing is ever
rewritten.
Leaves: verdicts, by the majority of the raters.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from worldeval.data.atomic import alone, write_atomically
from worldeval.data.cells import is_missing, outcome_of
from worldeval.data.matching import near, spell, such_as
from worldeval.data.spreadsheet import tidy
from worldeval.data.tables import ARTEFACT, CELL, CREDIT, KEY, KNOWN, LABEL_COLUMNS, SUCCESS, Table
from worldeval.errors import ConfigError, DataError, MismatchError, StoreError
from worldeval.judging.panel import majority
from worldeval.types import Cost, Episode, Outcome, Verdict

ALLOWED = [outcome.value for outcome in Outcome if outcome != Outcome.ERROR]
WITHDRAWN = "withdrawn"
"""In place of an outcome: the rater takes the last label on that rollout back."""
WIDE = (*LABEL_COLUMNS, CREDIT, ARTEFACT)
_BLIND = re.compile("[0-9a-f]{16}")
WAIT_S = 10.0  # for another writer of the same file; one needs some milliseconds

Rollout = tuple[str, ...]
"""(key,) or (policy, task, start_id)."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """What one rater said of one rollout. ERROR is not for people to say."""

    rollout: Rollout
    """(key or blind id,), or (policy, task, start_id)."""
    rater: str
    outcome: Outcome
    reason: str = ""
    cell: Rollout = ("", "", "")
    """Policy, task and start_id where they stand beside a key; "" where they do not."""
    credit: float | None = None
    """Share of the task that was solved, 0 to 1; None where it was not told."""
    artefact: bool = False
    """Whether the pictures show what cannot be, so that no outcome is to be read from them."""


class HumanJudge:
    """A ``types.Judge`` that has looked already: it reads what people said."""

    def __init__(self, labels: Sequence[Label], *, name: str = "human") -> None:
        """labels: in the order in which they were given."""
        self.name = name
        self._said: dict[Rollout, dict[str, Label]] = {}
        for label in labels:
            self._said.setdefault(label.rollout, {})[label.rater] = label

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The labels in a file; the name holds a digest of it, so new labels are a new judge."""
        labels = read_labels(path)
        if not labels:
            raise DataError(f"{path} has no label, expected one a line below the names of columns")
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
        return cls(labels, name=f"human@{digest}")

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """The majority of those who labelled a rollout; UNDECIDED on a tie or without labels."""
        return [self._verdict(episode) for episode in episodes]

    def labels_on(self, episode: Episode) -> list[Label]:
        """The label of every rater who labelled this rollout, by rater."""
        facts = {**episode.extra, "key": episode.key, "task": episode.task}
        found: dict[str, Label] = {}
        for name in names_of(facts):
            found |= self._said.get(name, {})
        return [found[rater] for rater in sorted(found)]

    def check(self, rollouts: Iterable[Mapping[str, Any]], where: str) -> list[str]:
        """Sentences on labels that name none of the rollouts, and on rollouts without a label.

        rollouts: their key, policy, task and start_id. Raises MismatchError if no label names one,
        or one contradicts itself.
        """
        names = [names_of(rollout) for rollout in rollouts]
        known = {name: some[0] for some in names for name in some}
        strange = [name for name in self._said if name not in known]
        shown = [name for some in names for name in (some[0], some[-1])]
        for name, labels in self._said.items():
            for label in labels.values():
                if name in known:
                    check_cell(label, known[name])
        if len(strange) == len(self._said):
            raise MismatchError(
                f"the labels of {self.name} name none of the {len(names)} rollouts of {where}, "
                f"{such_as(strange, shown)}; give labels of these rollouts (their key, blind id, "
                "or policy, task and start_id)"
            )
        told = []
        if strange:
            told.append(
                f"{len(strange)} of {len(self._said)} labelled rollouts are not in {where}, "
                f"{such_as(strange, shown)}"
            )
        without = [some[-1] for some in names if not any(name in self._said for name in some)]
        if without:
            told.append(
                f"{len(without)} of {len(names)} rollouts of {where} have no label and stay "
                f"undecided, {such_as(without, without)}"
            )
        return told

    def _verdict(self, episode: Episode) -> Verdict:
        labels = self.labels_on(episode)
        outcome, share = majority([label.outcome for label in labels])
        said = [
            f"{label.rater} says {label.outcome.value}" + (label.reason and f" ({label.reason})")
            for label in labels
        ]
        return Verdict(
            key=episode.key,
            outcome=outcome,
            probability=share,
            judge=self.name,
            reason="; ".join(said) or "nobody labelled it",
            cost=Cost(),  # what the raters were paid is not in the file
        )


def names_of(rollout: Mapping[str, Any]) -> tuple[Rollout, ...]:
    """What a label may call a rollout: its cell, its blind id, its key; the last counts most."""
    cell = tuple(tidy(str(rollout.get(name, ""))) for name in CELL)
    key = str(rollout["key"])
    return cell, (blind_id(key),), (tidy(key),)


def check_cell(label: Label, cell: Rollout) -> None:
    """Raise MismatchError if a label names one rollout by its key and another beside it."""
    if any(own and own != other for own, other in zip(label.cell, cell, strict=True)):
        raise MismatchError(
            f"{label.rater}'s label on {label.rollout[0]!r} contradicts itself: it says "
            f"{spell(label.cell)}, that rollout is {spell(cell)}; correct the key or these columns"
        )


def blind_id(key: str) -> str:
    """A name for a rollout that does not tell the policy, always the same: 16 digits."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def read_labels(path: str | Path) -> list[Label]:
    """All labels of a table (``data.tables``), in its order.

    Labels that were taken back are left out. Raises DataError naming the line and what is wrong
    with it: nothing is skipped or guessed.
    """
    table = Table.read(path)
    table, withdrawn = _withdrawals(table)
    columns = KEY if "key" in table.columns else CELL
    table.need((*columns, "rater", *(() if SUCCESS in table.columns else ("outcome",))))
    _refuse_misspelt(table)
    outcomes = table.outcomes()
    for row, outcome in enumerate(outcomes):
        said = [table.columns[name][row] for name in ("outcome", SUCCESS) if name in table.columns]
        if outcome is Outcome.ERROR or all(outcome_of(cell) is None for cell in said):
            raise DataError(
                f"{table.at(row)} has the outcome {said[0]!r}, expected one of {ALLOWED}; take the "
                "row out if nobody has labelled it yet"
            )
    raters = [rater for (rater,) in table.names(("rater",))]
    reason, *cell = (_text(table, name) for name in ("reason", *CELL))
    names = table.names(columns)
    credits, artefacts = table.numbers(CREDIT, 0, 1), [False] * table.rows
    if ARTEFACT in table.columns:
        artefacts = [bool(flag) for flag in table.flags(ARTEFACT)]
    labels = [
        Label(
            rollout=name,
            rater=rater,
            outcome=outcome,
            reason=why,
            cell=beside,
            credit=None if math.isnan(credit) else credit,
            artefact=artefact,
        )
        for name, rater, outcome, why, beside, credit, artefact in zip(
            names,
            raters,
            outcomes,
            reason,
            zip(*cell, strict=True),
            credits,
            artefacts,
            strict=True,
        )
    ]
    return _standing(labels, withdrawn)


def _withdrawals(table: Table) -> tuple[Table, set[int]]:
    """The table with "undecided" where a label is taken back, and these rows."""
    cells = table.columns.get("outcome", ())
    rows = {
        row
        for row, cell in enumerate(cells)
        if isinstance(cell, str) and tidy(cell).casefold() == WITHDRAWN
    }
    if not rows:
        return table, rows
    said = ["undecided" if row in rows else cell for row, cell in enumerate(cells)]
    return replace(table, columns={**table.columns, "outcome": said}), rows


def _standing(labels: list[Label], withdrawn: set[int]) -> list[Label]:
    """Without those that were taken back, and without the rows that do it."""
    kept: dict[int, Label] = {}
    given: dict[tuple[Rollout, str], list[int]] = {}
    for row, label in enumerate(labels):
        key = label.rollout
        name = (blind_id(key[0]),) if len(key) == 1 and not _BLIND.fullmatch(key[0]) else key
        rows = given.setdefault((name, label.rater), [])
        if row not in withdrawn:
            kept[row] = label
            rows.append(row)
        elif rows:  # two may take the same one back at once: there is nothing left for the second
            del kept[rows.pop()]
    return list(kept.values())


def _text(table: Table, column: str) -> list[str]:
    """A column that may be absent or empty."""
    cells = table.columns.get(column, [""] * table.rows)
    return ["" if is_missing(cell) else tidy(str(cell)) for cell in cells]


def append_label(
    path: str | Path,
    *,
    key: str,
    rater: str,
    outcome: Outcome | str,
    reason: str = "",
    credit: float | None = None,
    artefact: bool = False,
) -> None:
    """Add one label to the file at ``path`` (made, if need be), wholly or not at all.

    Safe with several writers at once, in one process or many: each waits for the other.
    key: of the rollout, or its ``blind_id``. outcome: "withdrawn" takes the rater's last label on
    it back. credit: share of the task that was solved. artefact: the pictures show what cannot be.
    Raises ConfigError for a label that could not be read
    back, DataError if the file is of another form, StoreError if it cannot be written.
    """
    path = Path(path)
    cells = {"key": key, "rater": rater, "outcome": str(outcome), "reason": reason}
    cells["time"] = datetime.now(UTC).isoformat(timespec="seconds")
    # One label, one line, whatever a rater types into the field for the reason.
    cells = {name: " ".join(value.split()) for name, value in cells.items()}
    _check(cells, credit)
    more = {CREDIT: "" if credit is None else f"{credit:g}", ARTEFACT: "yes" if artefact else ""}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path, WAIT_S):
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            before = before or _line(LABEL_COLUMNS)
            head = before.partition("\n")[0] + "\n"
            if head not in (_line(LABEL_COLUMNS), _line(WIDE)) or not before.endswith("\n"):
                raise DataError(
                    f"{path} does not begin with the columns {','.join(LABEL_COLUMNS)} or ends "
                    "within a line; write labels to another file"
                )
            if head == _line(LABEL_COLUMNS) and any(more.values()):
                rows = list(csv.reader(io.StringIO(before)))[1:]
                before = _line(WIDE) + "".join(_line([*row, "", ""]) for row in rows)
                head = _line(WIDE)
            values = [*cells.values(), *(more.values() if head == _line(WIDE) else ())]
            write_atomically(path, lambda part: _write(part, before + _line(values)))
    except OSError as error:
        raise StoreError(
            f"cannot write the labels {path}: {error.strerror or error}; free some space or choose "
            "another file"
        ) from error


def _refuse_misspelt(table: Table) -> None:
    """A column of which one letter is wrong would be left out without a word."""
    for name in table.columns:
        meant = near(name, set(LABEL_COLUMNS) - set(table.columns))
        if name not in KNOWN and meant:
            raise DataError(
                f"{table.what} has the column {name!r}, which is unknown; did you mean {meant!r}?"
            )


def _line(values: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _check(cells: dict[str, str], credit: float | None) -> None:
    """Raise ConfigError for a label that could not be read back."""
    if credit is not None and not 0 <= credit <= 1:
        raise ConfigError(f"the label has the credit {credit!r}, expected a share from 0 to 1")
    for name in ("key", "rater"):
        if not tidy(cells[name]):
            raise ConfigError(
                f"the label has no {name}; say which rollout it is about and who labels"
            )
    if cells["outcome"] not in (*ALLOWED, WITHDRAWN):
        raise ConfigError(
            f"the label has the outcome {cells['outcome']!r}, expected one of {ALLOWED}"
        )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
