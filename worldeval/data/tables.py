"""The one reader of tables: labels of people, true trials, truth, verdicts and trust.

Enters: a parquet file, a text file as spreadsheets save it (``spreadsheet.py``), or a pandas table.
Leaves: a ``Table``, whose methods give names of rollouts, outcomes, numbers and yes or no: each
what was meant, or a DataError that names row and column. The names of all columns stand here, what
a cell means in ``cells.py``. No pandas until a parquet file is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from worldeval.data.cells import EXPECTED, NO_MEANING, is_missing, number_of, outcome_of
from worldeval.data.files import regular_file
from worldeval.data.matching import near, spell
from worldeval.data.spreadsheet import column_name, first_bytes, read_sheet, tidy
from worldeval.errors import DataError
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

CELL = ("policy", "task", "start_id")
"""Which rollout a row is about; or KEY alone."""
KEY = ("key",)
OUTCOME_COLUMNS = (*KEY, *CELL, "world", "judge", "outcome", "probability")
"""Of every table of outcomes; where the world itself knew, the judge is called "world"."""
VERDICT_COLUMNS = (*OUTCOME_COLUMNS, "reason", "frames", "seconds", "tokens", "dollars")
"""Of what a judge said. frames: numbers of those looked at ("1 3 5"); tokens: asked and answered
together; dollars: NaN where the price is not known; probability: NaN where there is none."""
LABEL_COLUMNS = (*KEY, "rater", "outcome", "reason", "time")
"""Of what people said, as ``human.append_label`` writes it."""
CREDIT, ARTEFACT = "credit", "artefact"
"""Of labels that tell more: the share of the task that was solved, and whether the imagination
shows what cannot be."""
SUCCESS = "success"
"""Of true trials, in place of ``outcome`` or beside it."""
TRUSTED, DISTRUST = "trusted", "distrust"
"""Of trust tables: yes or no, and how little a rollout is to be believed."""
SOLVED_AT = "solved_at"
"""Of verdicts that tell it: when the rollout was solved, in shares of the horizon; NaN if never."""
FREE = ("reason", "time")
"""What need not be filled in, and may be left away at the end of a row."""
KNOWN = frozenset(
    (*VERDICT_COLUMNS, *LABEL_COLUMNS, CREDIT, ARTEFACT, SUCCESS, TRUSTED, DISTRUST, SOLVED_AT)
)
MOST_ROWS = 20_000_000
OUTCOMES = {outcome.value: outcome for outcome in Outcome}
DECIDED = tuple(outcome.value for outcome in Outcome if outcome.decided)
"""Cells of ``outcome`` that count in a rate."""

Name = tuple[str, ...]
"""(policy, task, start_id) or (key,)."""
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """Columns by name, and where each row comes from.

    columns: of the names in KNOWN with their cells, of others none. what: words for the table in
    messages. lines: of each row in its file; None where rows are counted.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: int
    what: str
    lines: Sequence[int] | None = None

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """A table in a file, parquet or text. DataError if it is neither, or has a column twice."""
        path = Path(path)
        if is_parquet(path):
            return cls.of(read_parquet(path), str(path))
        sheet = read_sheet(path, KNOWN, FREE)
        _refuse_doubled(sheet.header, sheet.titles, str(path))
        cells = list(zip(*sheet.rows, strict=True)) or [()] * len(sheet.header)
        columns = dict(zip(sheet.header, cells, strict=True))
        columns.pop("", None)
        return cls(columns, len(sheet.rows), str(path), sheet.lines)

    @classmethod
    def of(cls, table: pd.DataFrame, what: str) -> Table:
        """A pandas table."""
        titles = [str(name) for name in table.columns]
        names = [column_name(title) for title in titles]
        _refuse_doubled(names, titles, what)
        columns: dict[str, Sequence[Any]] = {}
        for place, name in enumerate(names):
            column = table.iloc[:, place]
            cells = column.tolist() if name in KNOWN else []
            if column.dtype == object:  # tolist leaves numpy's numbers in it
                cells = [cell.item() if isinstance(cell, np.generic) else cell for cell in cells]
            columns[name] = cells
        return cls(columns, len(table), what)

    def at(self, row: int) -> str:
        """Words for a row: its line, and the rollout as far as it is named."""
        columns = next((c for c in (CELL, KEY) if set(c) <= set(self.columns)), ())
        parts = [self.columns[name][row] for name in columns]
        who = f" ({spell([str(part) for part in parts])})" if parts else ""
        if self.lines is not None:
            return f"{self.what} line {self.lines[row]}{who}"
        return f"row {row + 1} of {self.what}{who}"

    def need(self, columns: Sequence[str]) -> None:
        """Raise DataError, with what may be meant, unless the table has these columns."""
        missing = [name for name in columns if name not in self.columns]
        if not missing:
            return
        spare = [name for name in self.columns if name not in KNOWN]
        hints = [f"{found!r} for {name!r}" for name in missing if (found := near(name, spare))]
        raise DataError(
            f"{self.what} lacks the columns {missing}; it has {list(self.columns)}, expected at "
            f"least {list(columns)}" + (f"; did you write {', '.join(hints)}?" if hints else "")
        )

    def names(self, columns: Sequence[str] = CELL) -> list[Name]:
        """The name of every row, as text without the spaces around it: "001" and "NA" are names.

        Raises DataError where a part is missing, or is a date or a decimal number."""
        self.need(columns)
        return list(zip(*(self._words(name) for name in columns), strict=True))

    def named_by(self) -> tuple[str, ...]:
        """CELL where every row has it, else KEY. DataError if neither names every row."""
        there = [columns for columns in (CELL, KEY) if set(columns) <= set(self.columns)]
        for columns in there:
            if not any(is_missing(cell) for name in columns for cell in self.columns[name]):
                return columns
        if there:
            self.names(there[0])  # says which row has no name
        raise DataError(
            f"{self.what} has the columns {list(self.columns)}, expected policy, task and "
            "start_id, or key, filled in every row, and outcome"
        )

    def once(self, values: Sequence[T], columns: Sequence[str] = CELL) -> dict[Name, T]:
        """The value of each rollout, in the order of the rows; DataError if one is there twice."""
        names = self.names(columns)
        found = dict(zip(names, values, strict=True))
        if len(found) < len(names):
            first: dict[Name, int] = {}
            for row, name in enumerate(names):
                if name in first:
                    raise DataError(
                        f"{self.what} has {spell(name)} more than once "
                        f"({self._place(first[name])} and {self._place(row)}); keep one verdict "
                        "per rollout (one judge, one attempt)"
                    )
                first[name] = row
        return found

    def verdicts(self) -> list[Outcome]:
        """What a judge said, row by row: the words of ``Outcome`` and no others."""
        self.need(("outcome",))
        cells = self.columns["outcome"]
        found = [OUTCOMES.get(cell) if isinstance(cell, str) else None for cell in cells]
        if None in found:
            row = found.index(None)
            raise DataError(
                f"{self.at(row)} has the outcome {cells[row]!r}, expected one of "
                f"{sorted(OUTCOMES)}; correct it, or remove the table and judge again"
            )
        return found  # type: ignore[return-value]

    def outcomes(self) -> list[Outcome]:
        """What truly happened, row by row, from ``outcome``, ``success`` or both of them.

        UNDECIDED where nothing is filled in. DataError for a word that means nothing, and where the
        two columns say different things.
        """
        both = [name for name in ("outcome", SUCCESS) if name in self.columns]
        if not both:
            self.need((SUCCESS,))
        found = []
        for row, kinds in enumerate(zip(*map(self._meanings, both), strict=True)):
            said = {kind for kind in kinds if kind is not None}
            if len(said) > 1:
                words = " and ".join(f"{name} {self.columns[name][row]!r}" for name in both)
                raise DataError(
                    f"{self.at(row)} contradicts itself: it has {words}; correct one of them, or "
                    "leave away one of these columns"
                )
            found.append(said.pop() if said else Outcome.UNDECIDED)
        return found

    def numbers(self, name: str, low: float = -math.inf, high: float = math.inf) -> list[float]:
        """A column of numbers within [low, high], NaN where a cell is empty or the column absent;
        "0,5" is 0.5."""
        if name not in self.columns:
            return [math.nan] * self.rows
        cells = self.columns[name]
        found = [number_of(cell) for cell in cells]
        for row, number in enumerate(found):
            if number is None or not (low <= number <= high or math.isnan(number)):
                limits = f" in [{low:g}, {high:g}]" if math.isfinite(low) else ""
                raise DataError(
                    f"{self.at(row)} has {name} {cells[row]!r}, expected a number{limits}, or "
                    "nothing"
                )
        return found  # type: ignore[return-value]

    def flags(self, name: str) -> list[bool | None]:
        """A column of yes or no; None where a cell is empty."""
        self.need((name,))
        known: dict[Any, bool | None] = {Outcome.SUCCESS: True, Outcome.FAILURE: False, None: None}
        found = [outcome_of(cell) for cell in self.columns[name]]
        for row, value in enumerate(found):
            if value not in known:
                raise DataError(
                    f"{self.at(row)} has {name} {self.columns[name][row]!r}, expected true or false"
                )
        return [known[value] for value in found]

    def _meanings(self, name: str) -> list[Outcome | None]:
        """None where a cell is empty."""
        cells = self.columns[name]
        found = [outcome_of(cell) for cell in cells]
        if NO_MEANING in found:
            row = found.index(NO_MEANING)
            raise DataError(f"{self.at(row)} has {name} {cells[row]!r}, expected {EXPECTED}")
        return found  # type: ignore[return-value]

    def _words(self, column: str) -> list[str]:
        known: dict[str, str] = {}  # the same few names stand in many rows
        words = []
        for row, cell in enumerate(self.columns[column]):
            word = known.get(cell) if type(cell) is str else None
            if word is None:
                word = self._word(column, row, cell)
                if type(cell) is str:
                    known[cell] = word
            words.append(word)
        return words

    def _word(self, column: str, row: int, cell: Any) -> str:
        if is_missing(cell):
            raise DataError(
                f"{self.at(row)} has no {column}; fill it in, or take the row out if it is no "
                "rollout (a total, a remark)"
            )
        if isinstance(cell, bool) or not isinstance(cell, int | str):
            raise DataError(
                f"{self.at(row)} has the {column} {cell!r}, a {type(cell).__name__}, expected "
                "text; save the column as text, so that 0003 does not become 3.0"
            )
        word = tidy(str(cell))
        if self.lines is not None and ("\n" in word or "\r" in word):
            raise DataError(
                f"{self.at(row)} has a {column} of several lines; is a quotation mark missing or "
                "left over?"
            )
        return word

    def _place(self, row: int) -> str:
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"


def read_parquet(path: Path) -> pd.DataFrame:
    """A parquet table, with the columns in KNOWN so called; DataError if it cannot be read."""
    import pandas as pd
    import pyarrow.parquet as pq

    regular_file(path, "table")
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
        if rows > MOST_ROWS:
            raise ValueError(f"it says that it has {rows} rows")
        table = pd.read_parquet(path)
    except Exception as error:  # damaged bytes make pyarrow and pandas raise nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path} cannot be read as a parquet table ({reason}); make it again"
        ) from error
    if set(map(str, table.index.names)) & KNOWN:  # a name that was used as an index
        table = table.reset_index()
    titles = [str(name) for name in table.columns]
    names = [column_name(title) for title in titles]
    _refuse_doubled(names, titles, str(path))
    wrong = {
        title: name for title, name in zip(titles, names, strict=True)
        if name in KNOWN and title != name
    }  # fmt: skip
    return table.rename(columns=wrong) if wrong else table


def is_parquet(path: Path) -> bool:
    """By its first bytes or its name; DataError if there is no such file."""
    return first_bytes(path).startswith(b"PAR1") or path.suffix.lower() in (".parquet", ".pq")


def read_verdict_table(path: Path) -> pd.DataFrame:
    """What judges said, as it stands in a file (parquet or text), every outcome and probability
    checked."""
    import pandas as pd

    if is_parquet(path):
        frame = read_parquet(path)
        if not _is_sound(frame):
            table = Table.of(frame, str(path))
            table.verdicts()
            table.numbers("probability", 0, 1)
        return frame
    table = Table.read(path)
    columns = {name: cells for name, cells in table.columns.items() if name in KNOWN}
    columns |= {"outcome": [outcome.value for outcome in table.verdicts()]}
    return pd.DataFrame(columns | {"probability": table.numbers("probability", 0, 1)})


def read_truth_table(path: Path) -> pd.DataFrame:
    """What truly happened, of a file (parquet or text): one row per rollout, which is named by CELL
    or KEY, its ``outcome`` (from success, if need be), world, judge and probability if there."""
    return truth_of(Table.read(path))


def truth_of(table: Table) -> pd.DataFrame:
    """``read_truth_table`` of a table that is read already."""
    import pandas as pd

    if not set(KEY) <= set(table.columns):  # columns first, then rows
        table.need((*CELL, *(() if "outcome" in table.columns else (SUCCESS,))))
    by = table.named_by()
    outcomes = table.once(table.outcomes(), by)
    columns: dict[str, Any] = {n: table.columns[n] for n in OUTCOME_COLUMNS if n in table.columns}
    columns |= dict(zip(by, zip(*outcomes, strict=True), strict=True)) if outcomes else {}
    columns |= {"outcome": [outcome.value for outcome in outcomes.values()]}
    return pd.DataFrame(columns | {"probability": table.numbers("probability", 0, 1)})


def _is_sound(frame: pd.DataFrame) -> bool:
    """Whether outcomes and probabilities are as judges write them: a glance, so that a look at
    every cell is for tables that were changed by hand."""
    if "outcome" not in frame or "probability" not in frame:
        return False
    if not all(type(word) is str and word in OUTCOMES for word in frame["outcome"].tolist()):
        return False
    values = frame["probability"].to_numpy()
    return values.dtype == np.float64 and not ((values < 0) | (values > 1)).any()


def _refuse_doubled(names: Sequence[str], titles: Sequence[str], what: str) -> None:
    for name in names:
        if name in KNOWN and names.count(name) > 1:
            twice = [title for title, other in zip(titles, names, strict=True) if other == name]
            raise DataError(f"{what} has the column {name!r} twice ({twice}); keep one of them")
