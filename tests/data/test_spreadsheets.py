"""Generated spreadsheets against a slow, plain oracle: the values that were meant, or one sentence
that names row and column; never other values."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldeval.data.spreadsheet import column_name
from worldeval.data.tables import Table, read_truth_table, read_verdict_table
from worldeval.errors import DataError

QUICK = settings(
    max_examples=150, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

NAMES = (
    "001", "1", "1e5", "NA", "None", "nan", "-", "TRUE", "A", "a", "two words", "b;c", "d,e",
    'say "hi"', "Käfer", "reach/evaluation/0003", "success", "0,5", "x\ty", "1|2",
)  # fmt: skip
GOOD = ("1", "1.0", "1,0", "TRUE", "True", "yes", "Yes ", "success", "SUCCESS", "succeeded", "WAHR",
        "passed", "1.00E+00")  # fmt: skip
BAD = ("0", "0.0", "0,00", "FALSE", "no", "failure", "failed", "Failed", "FAUX", "N", "0E+00")
OPEN = ("", "-", "NaN", "nan", "n/a", "undecided", "?", "None", " ")
NONSENSE = (
    "maybe",
    "2",
    "0.5",
    "0,5",
    "-1",
    "#N/A",
    "1 0",
    "11",
    "=SUM(D2:D9)",
    "inf",
    "01",
    "tru",
)
NUMBERS = {"0.5": 0.5, "0,25": 0.25, "1": 1.0, ".5": 0.5, "1e-2": 0.01, "": math.nan, "-": math.nan}
NO_NUMBERS = ("1,5", "-0.1", "high", "50 %", "inf", "0.5.1")


@dataclass
class Sheet:
    """Rows of cells as they were meant to stand there, and how they are written down."""

    titles: list[str]
    rows: list[list[str]]
    separator: str = ","
    coding: str = "utf-8"
    end: str = "\n"
    sep_line: bool = False
    quote_all: bool = False
    padded: bool = False
    trailing: int = 0
    blank: set[int] = field(default_factory=set)

    def write(self, path: Path) -> list[int]:
        """Write it down; the line on which each row begins, the titles first."""
        lines, begins = [], []
        if self.sep_line:
            lines.append(f"sep={self.separator}")
        count = len(lines) + 1
        for number, row in enumerate([self.titles, *self.rows]):
            if number in self.blank:
                lines.append(self.separator * len(row))
                count += 1
            begins.append(count)
            text = self.separator.join([self._cell(cell) for cell in row] + [""] * self.trailing)
            lines.append(text)
            count += 1 + sum(cell.count("\n") for cell in row)
        path.write_bytes((self.end.join(lines) + self.end).encode(self.coding))
        return begins

    def _cell(self, cell: str) -> str:
        special = any(mark in cell for mark in ('"', "\n", ",", ";", "\t", "|"))
        if special or self.quote_all:
            return '"' + cell.replace('"', '""') + '"'
        return f" {cell} " if self.padded else cell


@dataclass
class Oracle:
    """What a sheet says: a value for each rollout, or faults (number of the row, word)."""

    values: dict[tuple[str, str, str], tuple[str, float]] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)


def plain(sheet: Sheet) -> Oracle:
    """One cell after the other, with nothing but ifs."""
    found = Oracle()
    titles = [title.strip().lower().replace(" ", "_").replace("-", "_") for title in sheet.titles]
    for title in ("policy", "task", "start_id", "success", "outcome", "probability"):
        if titles.count(title) > 1:
            found.faults.append((-1, title))
        if title in ("policy", "task", "start_id") and title not in titles:
            found.faults.append((-1, title))
    if "success" not in titles and "outcome" not in titles:
        found.faults.append((-1, "success"))
    if found.faults:
        return found
    for number, row in enumerate(sheet.rows):
        cells = {title: cell.strip() for title, cell in zip(titles, row, strict=True)}
        if all(cell.strip() == "" for cell in row):
            continue
        faults = [(number, n) for n in ("policy", "task", "start_id") if cells[n] == ""]
        said = []
        for title in ("outcome", "success"):
            cell = cells.get(title, "")
            if cell in [word.strip() for word in GOOD]:
                said.append("success")
            elif cell in BAD:
                said.append("failure")
            elif cell in ("undecided", "?"):
                said.append("undecided")
            elif cell not in OPEN:
                faults.append((number, title))
        if len(set(said)) > 1:
            faults.append((number, "contradicts"))
        cell = cells.get("probability", "")
        if cell not in NUMBERS and cell != "NaN":
            faults.append((number, "probability"))
        name = (cells["policy"], cells["task"], cells["start_id"])
        if name in found.values and not faults:
            faults.append((number, "more than once"))
        found.faults += faults
        if not faults:
            outcome = said[0] if said else "undecided"
            found.values[name] = (outcome, NUMBERS.get(cell, math.nan))
    return found


def mostly(usual: tuple[str, ...], seldom: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.integers(0, 60).flatmap(lambda n: st.sampled_from(usual if n else seldom))


@st.composite
def sheets(draw: Any) -> Sheet:
    titles = ["policy", "task", "start_id"]
    said = draw(st.sampled_from([["success"], ["outcome"], ["success", "outcome"], ["success"]]))
    titles += said + draw(st.sampled_from([[], ["probability"], ["notes"], ["notes", "notes"]]))
    if draw(st.integers(0, 20)) == 0:
        titles.append(draw(st.sampled_from(["success", "task", "Outcome"])))
    titles = draw(st.permutations(titles))
    if draw(st.integers(0, 30)) == 0:
        titles = titles[1:]
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from((GOOD, BAD, OPEN)))
        cells = {
            "success": mostly(kind, NONSENSE + GOOD),
            "outcome": mostly((*kind, ""), NONSENSE + BAD),
            "probability": mostly(tuple(NUMBERS), NO_NUMBERS),
            "notes": st.sampled_from(["", "fell, twice", "a\nb", 'the "red" one', "-", "1"]),
        }
        name = mostly(NAMES, ("", " "))
        rows.append([draw(cells.get(title.lower(), name)) for title in titles])
    if draw(st.integers(0, 10)) == 0:
        rows.append([draw(st.sampled_from(("Total", "", "7"))) if n == 0 else ""
                     for n in range(len(titles))])  # fmt: skip
    style = draw(st.sampled_from([str, str.upper, str.title]))
    titles = [style(title).replace("_", draw(st.sampled_from("_ -"))) for title in titles]
    return Sheet(
        titles, rows,
        separator=draw(st.sampled_from(",;\t|")),
        coding=draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
        end=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        sep_line=draw(st.booleans()), quote_all=draw(st.booleans()), padded=draw(st.booleans()),
        trailing=draw(st.sampled_from([0, 0, 1, 3])),
        blank=draw(st.sets(st.integers(0, len(rows)), max_size=3)),
    )  # fmt: skip


def read(path: Path) -> dict[tuple[str, str, str], tuple[str, float]]:
    table = read_truth_table(path)
    columns = [table[n] for n in ("policy", "task", "start_id", "outcome", "probability")]
    return {tuple(row[:3]): tuple(row[3:]) for row in zip(*columns, strict=True)}


@QUICK
@given(sheets())
def test_a_spreadsheet_says_what_was_meant_or_one_sentence(sheet: Sheet) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trials.csv"
        begins = sheet.write(path)
        meant = plain(sheet)
        try:
            found = read(path)
        except DataError as error:
            said = str(error)
            assert "\n" not in said and str(path) in said
            places = [(f"line {begins[n + 1]}" if n >= 0 else "", word) for n, word in meant.faults]
            assert any(place in said and word in said for place, word in places), said
        else:
            assert not meant.faults
            assert repr(found) == repr(meant.values)  # nan is nan


VALUES = [("success", v) for v in (1, 1.0, True, "1", "yes", "TRUE")]
VALUES += [("failure", v) for v in (0, 0.0, False, "0", "no", "failed")]
VALUES += [("undecided", v) for v in (None, float("nan"), "", "NaN")]
VALUES += [("", v) for v in (2, -1, 0.5, "banana", b"1", float("inf"))]


@settings(QUICK, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), min_size=1, max_size=5))
def test_a_parquet_table_too(rows: list[tuple[str, tuple[str, Any]]]) -> None:
    """Its columns have types, which say no more than text does."""
    kinds = {type(value) for _, (_, value) in rows} - {type(None)}
    if len(kinds) > 1 or len({name for name, _ in rows}) < len(rows):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trials.parquet"
        columns = {"Policy ": [name for name, _ in rows], "task": "t", "Start ID": range(len(rows))}
        pd.DataFrame(columns | {"success": [v for _, (_, v) in rows]}).to_parquet(path)
        wrong = [number for number, (_, (said, _)) in enumerate(rows) if not said]
        if wrong:
            with pytest.raises(DataError, match=f"row {wrong[0] + 1} of .* has success "):
                read(path)
        else:
            assert {name: said for name, (said, _) in read(path).items()} == {
                (name, "t", str(number)): said for number, (name, (said, _)) in enumerate(rows)
            }


HEADER = "policy,task,start_id,success\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty, expected a line with the names of the columns"),
        (b",,,\n\n , \n", "is empty"),
        (b"PK\x03\x04 and more", "is a workbook .xlsx, ods.; save the sheet as CSV"),
        (b"\x1f\x8b\x08\x00", "is compressed"),
        (HEADER.encode() + b"J\xfcrgen,t,s,1\n", "line 2 is not text in UTF-8"),
        (HEADER.encode() + b"a,t,s\x001,1\n", "line 2 is no text"),
        (b"sep=x\n" + HEADER.encode(), "separated by 'x', expected one of"),
        (HEADER.encode() + b'a,t,"s,1\n', "line 2 is not CSV"),
        (HEADER.encode() + b"a,t,s\n", "line 2 has 3 cells, expected 4"),
        (HEADER.encode() + b"a;t;s;1\n", "line 2 has 1 cells.*separated by ';'"),
        (HEADER.encode() + b"a,t,s,0,5\n", "line 2 has 5 cells .'5'., expected 4"),
        (b"policy,task,start_id,success,\na,t,s,0,5\n", "has a cell without a column .'5'."),
        (HEADER.encode() + b"a,t,s,1\n" + HEADER.encode(), "line 3 has the names of the columns a"),
        (b'"policy","task","start_id","success"\n"a\nb","t","s","1"\n', "policy of several lines"),
        (b"policy,task,start_id,sucess\na,t,s,1\n", "did you write 'sucess' for 'success'"),
        (b"Trials of May,,,\n" + HEADER.encode(), "line 2 has a cell without a column .'task'"),
    ],
)
def test_what_is_no_table_is_said(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match=message) as told:
        read_truth_table(tmp_path / "t.csv")
    assert "\n" not in str(told.value)


def test_rows_may_end_before_what_need_not_be_said(tmp_path: Path) -> None:
    """Excel leaves away separators at the end of rows."""
    path = tmp_path / "t.csv"
    path.write_text("key;outcome;reason;seen by;time\nk;success\nl;no;slipped\n")
    assert Table.read(path).columns["reason"] == ("", "slipped")
    path.write_text(",policy,task,start_id,success\n0,a,t,001,1\n")  # an index of pandas
    assert list(read(path)) == [("a", "t", "001")]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no table at .*no.csv"):
        read_truth_table(tmp_path / "no.csv")
    with pytest.raises(DataError, match="is a folder, expected a regular file as table"):
        read_truth_table(tmp_path)
    (tmp_path / "t.parquet").write_text("policy,task")
    with pytest.raises(DataError, match="cannot be read as a parquet table"):
        read_truth_table(tmp_path / "t.parquet")


def test_names_that_became_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"policy": "a", "task": "t", "start_id": [3.0], "success": 1}).to_parquet(path)
    with pytest.raises(DataError, match="row 1 .* the start_id 3.0, a float, expected text"):
        read_truth_table(path)
    pd.DataFrame({"policy": "a", "task": "t", "start_id": ["3"], "success": 1}).set_index(
        "policy"
    ).to_parquet(path)
    assert list(read(path)) == [("a", "t", "3")]


def test_verdicts_in_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("policy;task;start_id;judge;outcome;probability\na;t;007;j;success;0,75\n")
    table = read_verdict_table(path)
    assert table["probability"].tolist() == [0.75] and table["start_id"].tolist() == ["007"]
    path.write_text("policy,task,start_id,outcome\na,t,1,yes\n")
    with pytest.raises(DataError, match=r"line 2 .* has the outcome 'yes', expected one of"):
        read_verdict_table(path)


def test_titles() -> None:
    titles = ("Start ID ", "start-id", "\ufeffSTART_ID", "start\nid", "\u00a0start  id")
    assert {column_name(title) for title in titles} == {"start_id"}
