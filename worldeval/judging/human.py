"""``HumanJudge``: what people said who watched rollouts; and how a label is written down.

Enters: a CSV file with one label a line::

    key,rater,outcome,reason,time                       as ``append_label`` writes it, or
    policy,task,start_id,rater,outcome[,reason][,time]   as one writes it by hand

outcome is success, failure or undecided. ``key`` names the rollout in its store, or is its
``blind_id``, which tells a rater nothing about the policy. Of a rater's several labels on one
rollout the last counts: a correction is appended, nothing is ever rewritten.
Leaves: verdicts, by the majority of the raters.
"""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from worldeval.data.atomic import WriterLock, write_atomically
from worldeval.errors import ConfigError, DataError, StoreError
from worldeval.judging.panel import DECIDED, majority
from worldeval.types import Cost, Episode, Outcome, Verdict

WRITTEN = ("key", "rater", "outcome", "reason", "time")
CELL = ("policy", "task", "start_id")
ALLOWED = (*DECIDED, Outcome.UNDECIDED)
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
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
        return cls(labels, name=f"human@{digest}")

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """The majority of those who labelled a rollout; UNDECIDED on a tie or without labels."""
        return [self._verdict(episode) for episode in episodes]

    def labels_on(self, episode: Episode) -> list[Label]:
        """The label of every rater who labelled this rollout, by rater."""
        extra = episode.extra
        cell = (str(extra.get("policy", "")), episode.task, str(extra.get("start_id", "")))
        found: dict[str, Label] = {}
        for name in (cell, (blind_id(episode.key),), (episode.key,)):
            found |= self._said.get(name, {})
        return [found[rater] for rater in sorted(found)]

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


def blind_id(key: str) -> str:
    """A name for a rollout that does not tell the policy, always the same: 16 digits."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def read_labels(path: str | Path) -> list[Label]:
    """All labels of a CSV file, in its order.

    Raises DataError naming the line and what is wrong with it: nothing is skipped or guessed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # with the mark that Excel puts first, or not
    except OSError as error:
        raise DataError(
            f"cannot read the labels {path}: {error.strerror or error}; give a CSV file with the "
            f"columns {', '.join(WRITTEN)}"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8; save it as CSV (UTF-8)") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        names = _naming(path, header)
        return [
            _label(dict(zip(header, row, strict=True)), names, f"{path} line {reader.line_num}")
            for row in _rows(reader, header, path)
        ]
    except csv.Error as error:
        raise DataError(
            f"{path} line {reader.line_num} is not CSV ({error}); put cells that hold a comma or a "
            "quotation mark into double quotes"
        ) from error


def append_label(
    path: str | Path,
    *,
    key: str,
    rater: str,
    outcome: Outcome | str,
    reason: str = "",
) -> None:
    """Add one label to the file at ``path`` (made, if need be), wholly or not at all.

    Safe with several writers at once, in one process or many: each waits for the other.
    key: of the rollout, or its ``blind_id``. Raises ConfigError for a label that could not be read
    back, DataError if the file is of another form, StoreError if it cannot be written.
    """
    path = Path(path)
    cells = {"key": key, "rater": rater, "outcome": str(outcome), "reason": reason}
    cells["time"] = datetime.now(UTC).isoformat(timespec="seconds")
    # One label, one line, whatever a rater types into the field for the reason.
    cells = {name: " ".join(value.split()) for name, value in cells.items()}
    try:
        _label(cells, ("key",), "the label")
    except DataError as error:
        raise ConfigError(str(error)) from None
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells.values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            before = before or ",".join(WRITTEN) + "\n"
            if before.splitlines()[0] != ",".join(WRITTEN) or not before.endswith("\n"):
                raise DataError(
                    f"{path} does not begin with the columns {','.join(WRITTEN)} or ends within a "
                    "line; write labels to another file"
                )
            write_atomically(path, lambda part: _write(part, before + line.getvalue()))
    except OSError as error:
        raise StoreError(
            f"cannot write the labels {path}: {error.strerror or error}; free some space or choose "
            "another file"
        ) from error


def _naming(path: Path, header: list[str]) -> tuple[str, ...]:
    """The columns by which a file names rollouts, after checking all of them."""
    known = (*CELL, *WRITTEN)
    wrong = [name for name in header if name not in known or header.count(name) > 1]
    names = ("key",) if "key" in header else CELL
    missing = [name for name in (*names, "rater", "outcome") if name not in header]
    if not header or wrong or missing:
        fault = f"has the columns {header}"
        fault += f", of which {wrong} are unknown or there twice" if wrong else ""
        fault += f" and lacks {missing}" if missing else ""
        raise DataError(
            f"{path} {fault}; expected key (or {', '.join(CELL)}), rater, outcome, and where you "
            "like reason and time"
        )
    return names


def _rows(reader: Iterator[list[str]], header: list[str], path: Path) -> Iterator[list[str]]:
    for row in reader:
        if not row:
            continue  # an empty line says nothing
        if len(row) != len(header):
            line = getattr(reader, "line_num", "?")
            raise DataError(
                f"{path} line {line} has {len(row)} cells, expected {len(header)} "
                f"({', '.join(header)}); complete it or take it out"
            )
        yield [cell.strip() for cell in row]


def _label(cells: dict[str, str], names: tuple[str, ...], where: str) -> Label:
    for name in (*names, "rater"):
        if not cells[name]:
            raise DataError(f"{where} has no {name}; say which rollout it is about and who labels")
    if cells["outcome"] not in ALLOWED:
        raise DataError(
            f"{where} has the outcome {cells['outcome']!r}, expected one of "
            f"{[outcome.value for outcome in ALLOWED]}"
        )
    return Label(
        rollout=tuple(cells[name] for name in names),
        rater=cells["rater"],
        outcome=Outcome(cells["outcome"]),
        reason=cells.get("reason", ""),
    )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until nobody else writes the file, and keep others waiting within the block."""
    lock = WriterLock(path.with_name(f".{path.name}.lock"))
    until = time.monotonic() + WAIT_S
    while True:
        try:
            lock.acquire()
            break
        except StoreError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
