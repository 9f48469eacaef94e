"""Tables as spreadsheets save them: text to a header and rows of cells, with their lines.

Enters: a text file as Excel, LibreOffice, Google Sheets, R and people write it: separated by
commas, semicolons, tabs or bars, with Excel's first line ``sep=;`` or not, in UTF-8 or UTF-16 with
a byte order mark or not, lines ended in any way, cells quoted or not, rows of nothing but commas.
Leaves: cells without the spaces around them. What a cell means is said in ``tables.py``; nothing is
guessed: a file that can be read in two ways, or in none, ends in a DataError that names the line.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from worldeval.data.files import MOST_BYTES, regular_file
from worldeval.errors import DataError

SEPARATORS = ",;\t|"
INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
"""Marks without width that come along when text is copied from a page or a chat."""

# UTF-32 first: its mark begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_OTHERS = (
    (b"PK\x03\x04", "a workbook (xlsx, ods); save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "a workbook (xls); save the sheet as CSV"),
    (b"\x1f\x8b", "compressed (gzip); unpack it first"),
)
_SEP = re.compile(r'"?sep=(.)"?[,;\t| ]*\Z', re.IGNORECASE)


@dataclass(frozen=True)
class Sheet:
    """A header and rows of as many cells each, as text.

    header: names as ``column_name`` spells them, "" where a column has none. titles: as they stand
    in the file. lines: where each row begins in the file, from 1.
    """

    header: tuple[str, ...]
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


def read_sheet(path: Path, known: Collection[str], optional: Collection[str] = ()) -> Sheet:
    """The rows of a text file that are not empty.

    known: names of columns that mean something; by them the separator is told. A row may end before
    a column that is unknown or ``optional``. Raises DataError for what is no such file.
    """
    text = _text(path)
    first, rest = _first_line(text)
    if said := _SEP.match(first):
        separator, begin = said[1], 2
        if separator not in SEPARATORS:
            raise DataError(
                f"{path} says that its cells are separated by {separator!r}, expected one of "
                f"{list(SEPARATORS)}; save it again"
            )
        text = rest
    else:
        separator, begin = _separator(text, known), 1
    records = _records(text, separator, path, begin)
    line, titles = next(records, (begin, ()))
    if not titles:
        raise DataError(f"{path} is empty, expected a line with the names of the columns first")
    header = _names(titles)
    rows, lines = [], []
    for line, cells in records:
        where = f"{path} line {line}"
        if column_name(cells[0]) == header[0] and _names(cells[: len(header)]) == header:
            raise DataError(f"{where} has the names of the columns again; take it out")
        rows.append(_fitted(cells, header, separator, known, optional, where))
        lines.append(line)
    return Sheet(header=header, titles=titles, rows=tuple(rows), lines=tuple(lines))


def column_name(title: str) -> str:
    """A title as a name: "Start ID " and "start-id" are ``start_id``."""
    return "_".join(tidy(title).casefold().replace("-", " ").replace("_", " ").split())


def _names(titles: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(column_name, titles))


def tidy(cell: str) -> str:
    """A cell without the spaces (of any kind) and invisible marks around it."""
    return cell.strip().strip(INVISIBLE).strip()


def first_bytes(path: Path) -> bytes:
    """By which kinds of files are known; DataError if there is no file."""
    with regular_file(path, "table").open("rb") as file:
        return file.read(8)


def _text(path: Path) -> str:
    begin = first_bytes(path)
    for mark, what in _OTHERS:
        if begin.startswith(mark):
            raise DataError(f"{path} cannot be read as a table: it is {what}")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise DataError(
            f"{path} has {size:,} bytes, expected a table of at most {MOST_BYTES:,}; leave away "
            "what is not needed, or save it as parquet"
        )
    data = path.read_bytes()
    coding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(coding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} line {line} is not text in {coding.upper().removesuffix('-SIG')}; save the "
            "table as CSV (UTF-8)"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"{path} line {line} is no text (it has NUL); save the table as CSV (UTF-8)"
        )
    return text


def _first_line(text: str) -> tuple[str, str]:
    lines = io.StringIO(text, newline="")
    first = lines.readline()
    return first.rstrip("\r\n"), lines.read()


def _separator(text: str, known: Collection[str]) -> str:
    """That which makes most known names of the first line; a comma if none does."""

    def found(separator: str) -> int:
        try:
            _, titles = next(_records(text, separator, Path(), 1), (1, ()))
        except DataError:
            return -1
        return sum(column_name(title) in known for title in titles)

    return max(SEPARATORS, key=found)


def _records(
    text: str, separator: str, path: Path, begin: int
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The line on which each row begins, and its cells; rows without any content are left out."""
    # newline="": lines may end in \r, \n or both, and a quoted cell keeps its own.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    while True:
        line = reader.line_num + begin
        try:
            cells = tuple(map(tidy, next(reader)))
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path} line {line} is not CSV ({error}); put cells that hold a separator or a "
                "quotation mark into double quotes"
            ) from error
        if any(cells):
            yield line, cells


def _fitted(
    cells: tuple[str, ...],
    header: tuple[str, ...],
    separator: str,
    known: Collection[str],
    optional: Collection[str],
    where: str,
) -> tuple[str, ...]:
    """The cells, as many as the header has: empty ones at the end are added or taken away."""
    # pandas writes its index into a first column without a name; elsewhere a cell below no name is
    # the rest of one that was cut at a comma, as in 0,5.
    nameless = [c for c, n in zip(cells[1:], (*header[1:], *[""] * len(cells)), strict=False)
                if c and not n]  # fmt: skip
    lacking = [n for n in header[len(cells) :] if n in known and n not in optional]
    if nameless or lacking:
        what = f"{len(cells)} cells" if len(cells) != len(header) else "a cell without a column"
        shown = f" ({nameless[0]!r})" if nameless else ""
        other = next((s for s in SEPARATORS if s != separator and s in cells[0]), None)
        hint = f"are its cells separated by {other!r}? " if lacking and other else ""
        raise DataError(
            f"{where} has {what}{shown}, expected {len(header)} ({', '.join(header)}); {hint}"
            "complete it, put cells that hold a separator into double quotes, or take it out"
        )
    return (*cells, *[""] * len(header))[: len(header)]
