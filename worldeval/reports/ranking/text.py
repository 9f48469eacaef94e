"""A leaderboard as text for a terminal: ranks, bars, rates with intervals, the truth beside it.

In: a ``Leaderboard``. Out: lines of at most ``WIDTH`` columns (a long list of policies may wrap);
no colour, so that it can be piped.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from worldeval.ranking.agreement_statistics import STATISTICS
from worldeval.ranking.intervals import Interval
from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.ranking.leaderboard.policy_row import PolicyRow
from worldeval.ranking.outcome_counts import OutcomeCounts
from worldeval.reports.ranking.controls import control_lines, selection_lines
from worldeval.reports.ranking.findings import findings, plans, weighting
from worldeval.reports.ranking.stability import stability_lines
from worldeval.terminal import printable

WIDTH = 106
BAR_WIDTH = 14
NAME_WIDTH = 28
MOST_PLANS = 4


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What is shown of a row. Where all do not fit, narrower layouts follow."""

    bar: bool = True
    name_width: int = NAME_WIDTH
    true_interval: bool = True
    left_out: bool = True


_LAYOUTS = (
    _Layout(),
    _Layout(bar=False),
    _Layout(bar=False, name_width=18),
    _Layout(bar=False, name_width=18, true_interval=False),
    _Layout(bar=False, name_width=16, true_interval=False, left_out=False),
)


def render(board: Leaderboard, *, unicode: bool = True) -> str:
    """The table, what follows from it, the agreement with the truth, then plans and notes."""
    for layout in _LAYOUTS:
        table = _table(board, layout, unicode)
        if max(map(len, table)) <= WIDTH:
            break
    order, evidence = findings(board)
    below = [
        _legend(board),
        "",
        *order,
        *evidence,
        *_agreement_lines(board),
        *stability_lines(board),
        *control_lines(board),
        *selection_lines(board),
        *plans(board, MOST_PLANS),
        *(f"Note: {note}" for note in board.notes),
    ]
    text = "\n".join([*table, *(_wrapped(_printable(line, unicode)) for line in below)])
    return text + "\n"


def _table(board: Leaderboard, layout: _Layout, unicode: bool) -> list[str]:
    columns: list[tuple[str, list[str]]] = []
    rows = board.policies

    def add(header: str, cells: list[str]) -> None:
        columns.append((header, cells))

    add("#", ["-" if row.rank is None else str(row.rank) for row in rows])
    add("policy", [_shorten(row.name, layout.name_width, unicode) for row in rows])
    if layout.bar:
        add("", [_bar(row.imagined.rate, unicode) for row in rows])
    add("imagined", [_rate(row.imagined) for row in rows])
    add("n", [str(row.imagined.decided) for row in rows])
    if len(board.ranked) > 1:
        add("group", [row.letters or "-" for row in rows])
    if any(row.corrected is not None for row in rows):
        add("corrected", [_corrected(row) for row in rows])
    if {row.corrected.errors_of for row in rows if row.corrected} - {"given", "own"}:
        add("errors of", [row.corrected.errors_of if row.corrected else "-" for row in rows])
    if any(row.trusted is not None for row in rows):
        add("trusted", [_percent(row.trusted.rate if row.trusted else None) for row in rows])
    if any(row.joined is not None for row in rows):
        add("joined", [_joined(row) for row in rows])
    if any(row.true is not None for row in rows):
        add("true", [_rate(row.true, interval=layout.true_interval) for row in rows])
        add("diff", [_gap(row) for row in rows])
    if layout.left_out and any(_left_out(row.imagined) for row in rows):
        add("left out", [_left_out(row.imagined) for row in rows])

    left = ("policy", "", "group", "errors of", "left out")
    lines = [""] * (len(rows) + 1)
    for header, cells in columns:
        width = max(len(header), *map(len, cells))
        for i, cell in enumerate([header, *cells]):
            padded = cell.ljust(width) if header in left else cell.rjust(width)
            lines[i] += padded + "  "
    rule = ("─" if unicode else "-") * (len(lines[0]) - 2)
    lines = [line.rstrip() for line in lines]
    return [lines[0], rule, *lines[1:]]


def _legend(board: Leaderboard) -> str:
    words = [f"[ ]: {100 * board.confidence:.0f} % intervals; {weighting(board)}."]
    if len(board.ranked) > 1:
        words.append("Policies that share a letter cannot be told apart.")
    if any(row.joined is not None for row in board.policies):
        words.append(
            "joined: prediction-powered (PPI) estimate of the true rate, from a few true trials "
            "and all imagined rollouts."
        )
    if said := board.said_of_corrections:
        words.append(said)
    if any(row.trusted is not None for row in board.policies):
        words.append("trusted: without rollouts in which imagination left reality.")
    return " ".join(words)


def _agreement_lines(board: Leaderboard) -> list[str]:
    agreement = board.agreement
    if not agreement.policies:
        return []
    level = f"{100 * agreement.confidence:.0f} %"
    lines = [
        "",
        f"Agreement with the truth over {agreement.policies} policies and "
        f"{len(board.per_task)} tasks ({level} intervals over tasks):",
    ]
    for name, statistic in STATISTICS.items():
        if not statistic.best:
            continue
        value = getattr(agreement, name)
        shown = (
            f"none: {agreement.reasons.get(name, 'undefined')}"
            if value is None
            else f"{value:6.3f}  {_interval(agreement.intervals.get(name)):<16}  {statistic.best}"
        )
        lines.append(f"  {statistic.short:<13} {shown}")
    if board.outcomes.same is not None:
        lines.append(
            f"  {'same outcome':<13} {100 * board.outcomes.same:.0f} % of "
            f"{board.outcomes.rollouts} single rollouts"
        )
    lines += [f"  without {name}: {why}" for name, why in board.excluded.items()]
    lines += [f"  ! {warning}" for warning in agreement.warnings]
    return [*lines, ""]


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"[{interval.low:.3f}, {interval.high:.3f}]"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.0f} %"


def _rate(tally: OutcomeCounts | None, *, interval: bool = True) -> str:
    if tally is None or tally.rate is None:
        return "-"
    bounds = _bounds(*tally.interval) if interval else ""
    return f"{_percent(tally.rate)}{bounds}"


def _bounds(low: float, high: float) -> str:
    """Of one width, so that the rates before it stand in line."""
    return f" {f'[{100 * low:.0f}, {100 * high:.0f}]':>9}"


def _corrected(row: PolicyRow) -> str:
    return (
        "-"
        if row.corrected is None
        else _percent(row.corrected.rate) + _bounds(row.corrected.low, row.corrected.high)
    )


def _joined(row: PolicyRow) -> str:
    return (
        "-"
        if row.joined is None
        else _percent(row.joined.estimate) + _bounds(row.joined.low, row.joined.high)
    )


def _gap(row: PolicyRow) -> str:
    if row.true is None or row.true.rate is None or row.imagined.rate is None:
        return ""
    points = round(100 * (row.imagined.rate - row.true.rate))
    return f"{points:+d}" if points else "0"


def _left_out(tally: OutcomeCounts) -> str:
    parts = []
    if tally.undecided:
        parts.append(f"{tally.undecided} undecided")
    if tally.errors:
        parts.append(f"{tally.errors} error" + ("s" if tally.errors > 1 else ""))
    return ", ".join(parts)


def _bar(rate: float | None, unicode: bool) -> str:
    if rate is None:
        return " " * BAR_WIDTH
    if not unicode:
        return ("#" * round(rate * BAR_WIDTH)).ljust(BAR_WIDTH, ".")
    eighths = round(rate * BAR_WIDTH * 8)
    bar = "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")
    return bar.ljust(BAR_WIDTH)


def _shorten(name: str, width: int, unicode: bool) -> str:
    """Control characters out (a policy's name must not move the cursor), long names cut."""
    clean = _printable(name, unicode)
    mark = "…" if unicode else "~"
    return clean if len(clean) <= width else clean[: width - 1] + mark


def _printable(text: str, unicode: bool) -> str:
    clean = printable(text)
    if not unicode:
        clean = clean.replace("–", "-").encode("ascii", "replace").decode()
    return clean


def _wrapped(line: str) -> str:
    if len(line) <= WIDTH:
        return line
    line = line.replace(" %", "\xa0%")  # a number and its % stay together
    line = textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return line.replace("\xa0", " ")
