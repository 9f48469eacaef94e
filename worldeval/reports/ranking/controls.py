"""Control rows, and what choosing by imagination costs: lines for the terminal, sections for the
page.

In: a ``Leaderboard``. Out: sentences (text), ``<section>`` elements (HTML); nothing without data.
"""

from __future__ import annotations

from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.reports.markup import escape, name_cell, notes, section, table
from worldeval.reports.ranking.findings import percent

_HINT = (
    "Rolled out beside the policies; they do not rank. Experts' recorded actions should succeed in "
    "at least 80 %, the others, where they truly fail, in at most 5 %. A task where they do not is "
    "not to be believed."
)


def control_lines(board: Leaderboard) -> list[str]:
    doubts = board.controls.doubts
    return [
        f"! {task} is not to be believed: {'; '.join(reasons)}." for task, reasons in doubts.items()
    ] + (["The controls went as they should."] if board.controls.rows and not doubts else [])


def controls_section(board: Leaderboard) -> str:
    rows = [
        [
            escape(row.task),
            name_cell(row.control),
            percent(row.successes / row.decided),
            str(row.decided),
            "known" if row.truth_known else "taken to be as expected",
            "not to be believed" if row.doubt else "as it should be",
        ]
        for row in board.controls.rows
    ]
    if not rows:
        return ""
    heads = [
        ("Task", False),
        ("Control", False),
        ("Imagined", True),
        ("Rollouts", True),
        ("Truth", False),
        ("", False),
    ]
    said = notes(line.removeprefix("! ") for line in control_lines(board))
    return section("Controls", _HINT, said + table(heads, rows))


def selection_lines(board: Leaderboard) -> list[str]:
    found = board.selection
    if not found:
        return []
    last = found[-1]
    return [
        f"Choosing the best of {last.choices} by imagination loses "
        f"{100 * last.regret:.1f} points of true success{_bracket(last.low, last.high)}; "
        f"choosing blindly {100 * last.random_regret:.1f}."
    ]


def selection_section(board: Leaderboard) -> str:
    if not board.selection:
        return ""
    heads = [("Best of", True), ("Lost by imagination", True), ("Lost blindly", True)]
    rows = [
        [
            str(found.choices),
            f"{100 * found.regret:.1f} points{_bracket(found.low, found.high)}",
            f"{100 * found.random_regret:.1f} points",
        ]
        for found in board.selection
    ]
    hint = (
        "True success lost by taking the policy that imagination ranks first, on average over "
        "which of the policies are at hand. Brackets: bootstrap over the policies."
    )
    return section("Choosing by imagination", hint, table(heads, rows))


def _bracket(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
