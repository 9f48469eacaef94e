"""A leaderboard as text for a terminal: ranks, bars, rates with intervals, the truth beside it.

In: a ``Leaderboard``. Out: lines of at most about 100 columns; no colour, so that it can be piped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldeval.ranking.intervals import Interval

if TYPE_CHECKING:
    from worldeval.ranking.leaderboard import Leaderboard, PolicyRow, Tally

BAR_WIDTH = 14
NAME_WIDTH = 28


def render(board: Leaderboard, *, unicode: bool = True) -> str:
    """The table, the agreement below it, then the notes."""
    with_truth = any(row.real is not None for row in board.policies)
    with_corrected = any(row.corrected is not None for row in board.policies)
    header = ["#", "policy", "", "imagined", "interval", "n"]
    if with_corrected:
        header.append("corrected")
    if with_truth:
        header += ["true", "interval", "n", "diff"]
    header.append("left out")
    lines = [header]
    for row in board.policies:
        cells = [
            "-" if row.rank is None else str(row.rank),
            _shorten(row.name, unicode),
            _bar(row.imagined.rate, unicode),
            *_rate_cells(row.imagined),
        ]
        if with_corrected:
            cells.append("-" if row.corrected is None else f"{100 * row.corrected.rate:.0f} %")
        if with_truth:
            cells += _rate_cells(row.real) + [_gap(row)]
        cells.append(_left_out(row.imagined))
        lines.append(cells)
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(header))]
    text = []
    for number, cells in enumerate(lines):
        padded = (
            cell.ljust(width) if i in (1, 2, len(header) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        text.append("  ".join(padded).rstrip())
        if number == 0:
            text.append(("─" if unicode else "-") * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*text, "", *_agreement_lines(board), *board.notes]) + "\n"


def _agreement_lines(board: Leaderboard) -> list[str]:
    agreement = board.agreement
    if not agreement.policies:
        return ["No policy has true results beside its imagined ones: agreement is unknown."]
    level = f"{100 * agreement.confidence:.0f} %"
    lines = [
        f"Agreement with the truth over {agreement.policies} policies and "
        f"{len(board.per_task)} tasks ({level} intervals over tasks):"
    ]
    for name, label, best in (
        ("pearson", "Pearson", "1 is best"),
        ("spearman", "Spearman", "1 is best"),
        ("mmrv", "MMRV", "0 is best"),
        ("top1_regret", "top-1 regret", "0 is best"),
    ):
        value = getattr(agreement, name)
        shown = (
            f"none: {agreement.reasons.get(name, 'undefined')}"
            if value is None
            else f"{value:6.3f}  {_interval(agreement.intervals.get(name)):<16}  {best}"
        )
        lines.append(f"  {label:<13} {shown}")
    if board.outcomes.same is not None:
        lines.append(
            f"  {'same outcome':<13} {100 * board.outcomes.same:.0f} % of "
            f"{board.outcomes.rollouts} single rollouts"
        )
    for name, why in board.excluded.items():
        lines.append(f"  without {name}: {why}")
    return lines


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"[{interval.low:.3f}, {interval.high:.3f}]"


def _rate_cells(tally: Tally | None) -> list[str]:
    if tally is None:
        return ["-", "", ""]
    if tally.rate is None:
        return ["-", "", "0"]
    low, high = 100 * tally.interval.low, 100 * tally.interval.high
    return [f"{100 * tally.rate:.0f} %", f"[{low:.0f}, {high:.0f}]", str(tally.decided)]


def _gap(row: PolicyRow) -> str:
    if row.real is None or row.real.rate is None or row.imagined.rate is None:
        return ""
    points = round(100 * (row.imagined.rate - row.real.rate))
    return f"{points:+d}" if points else "0"


def _left_out(tally: Tally) -> str:
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


def _shorten(name: str, unicode: bool) -> str:
    """Control characters out (a policy's name must not move the cursor), long names cut."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in name)
    if not unicode:
        clean = clean.encode("ascii", "replace").decode()
    mark = "…" if unicode else "~"
    return clean if len(clean) <= NAME_WIDTH else clean[: NAME_WIDTH - 1] + mark
