"""Would this ranking break? Lines for the terminal, a section for the page.

In: a ``Leaderboard``. Out: sentences (text), a ``<section>`` element (HTML).
"""

from __future__ import annotations

from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.ranking.leaderboard.stability import Check
from worldeval.reports.markup import NOTHING, escape, notes, prose, section, table
from worldeval.reports.ranking.findings import percent

_HINT = (
    "The ranking against itself with one thing changed at a time: 1 is the same order, 0 none of "
    "it, −1 the reverse. Brackets hold 95 % of random halves, which share no rollout. Turned "
    "are pairs that are told apart above and stand the other way round after the change."
)


def stability_lines(board: Leaderboard) -> list[str]:
    """The verdict, and what it rests on; none for fewer than two ranked policies."""
    found = board.stability
    if found.stable is None:
        return []
    kept = [
        f"{check.change} {check.kendall:.2f}" + _bracket(check)
        for check in found.checks
        if check.kendall is not None
    ]
    lines = ["", found.sentence]
    return [*lines, f"Kendall of the order with itself: {', '.join(kept)}."] if kept else lines


def stability_section(board: Leaderboard) -> str:
    """A row per change, under the verdict; empty text for fewer than two ranked policies."""
    found = board.stability
    if found.stable is None:
        return ""
    heads = [
        ("With", False),
        ("Kendall", True),
        ("Spearman", True),
        ("First place stays", True),
        ("Turned", True),
    ]
    rows = [_row(check) for check in found.checks]
    said = f"<p><b>{prose(found.sentence)}</b></p>" if found.stable else notes([found.sentence])
    return section("Would this ranking break?", _HINT, said + table(heads, rows))


def _row(check: Check) -> list[str]:
    if check.reason:
        why = (
            f'{escape(check.change)} <span class="soft">not checked: {escape(check.reason)}</span>'
        )
        return [why, NOTHING, NOTHING, NOTHING, NOTHING]
    kendall = NOTHING if check.kendall is None else f"{check.kendall:.2f}{_bracket(check)}"
    spearman = NOTHING if check.spearman is None else f"{check.spearman:.2f}"
    turned = NOTHING if check.low is not None else str(len(check.turned))
    return [escape(check.change), kendall, spearman, percent(check.winner_kept), turned]


def _bracket(check: Check) -> str:
    return "" if check.low is None else f" [{check.low:.2f}, {check.high:.2f}]"
