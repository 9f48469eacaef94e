"""The interval plot: what is known of each policy's success rate, one lane per kind of knowledge.

In: a ``Leaderboard``. Out: inline SVG, drawn with the page's CSS variables and font. Shapes differ
beside the colours, so that neither colour vision nor a printer is needed to tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.ranking.leaderboard.policy_row import PolicyRow
from worldeval.reports.markup import escape, key
from worldeval.terminal import printable

LABELS = {
    "imagined": "imagined, as the judge saw it",
    "trusted": "imagined, without distrusted rollouts",
    "corrected": "corrected for the judge's errors",
    "joined": "a few true trials and imagination together",
    "true": "true",
}
"""Kinds of knowledge in the order of their lanes; the words of the key."""

_WIDTH, _LEFT, _RIGHT, _TOP = 960, 190, 24, 8
_LANE, _GAP = 13, 12
_NAME_LETTERS = 24


@dataclass(frozen=True)
class _Mark:
    rate: float
    low: float
    high: float


def kinds_of(board: Leaderboard) -> list[str]:
    """Those of ``LABELS`` that at least one policy has."""
    marks = [_marks(row) for row in board.policies]
    return [kind for kind in LABELS if any(kind in found for found in marks)]


def forest_key(board: Leaderboard) -> str:
    """The legend of the plot, as HTML."""
    return key((kind, LABELS[kind]) for kind in kinds_of(board))


def forest_svg(board: Leaderboard) -> str:
    """An ``<svg>`` element: policies from above, best first; the axis is 0 to 100 %."""
    kinds = kinds_of(board)
    row_height = _LANE * max(len(kinds), 1) + _GAP
    bottom = _TOP + row_height * len(board.policies)
    parts = [_grid(bottom)]
    for i, row in enumerate(board.policies):
        top = _TOP + i * row_height
        middle = top + row_height / 2
        if i:
            parts.append(f'<path class="rule" d="M0 {top}H{_WIDTH}"/>')
        parts.append(_name(row.name, middle))
        marks = _marks(row)
        for lane, kind in enumerate(kinds):
            if kind in marks:
                y = top + _GAP / 2 + _LANE * (lane + 0.5)
                parts.append(_interval(marks[kind], kind, row.name, y))
    label = "Success rates of the policies with their intervals"
    return (
        f'<svg class="forest" role="img" aria-label="{label}" '
        f'viewBox="0 0 {_WIDTH} {bottom + 26}">{"".join(parts)}</svg>'
    )


def _marks(row: PolicyRow) -> dict[str, _Mark]:
    marks = {}
    for kind, tally in (
        ("imagined", row.imagined),
        ("trusted", row.trusted),
        ("true", row.true),
    ):
        if tally is not None and tally.rate is not None:
            marks[kind] = _Mark(tally.rate, *tally.interval)
    if row.corrected is not None:
        marks["corrected"] = _Mark(row.corrected.rate, row.corrected.low, row.corrected.high)
    if row.joined is not None:
        marks["joined"] = _Mark(row.joined.estimate, row.joined.low, row.joined.high)
    return marks


def _grid(bottom: float) -> str:
    parts = []
    for quarter in range(5):
        x = _x(quarter / 4)
        parts.append(f'<path class="rule" d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">'
            f"{25 * quarter} %</text>"
        )
    return "".join(parts)


def _name(name: str, y: float) -> str:
    clean = printable(name)
    short = clean if len(clean) <= _NAME_LETTERS else clean[: _NAME_LETTERS - 1] + "…"
    return (
        f'<text class="policy" x="{_LEFT - 16}" y="{y + 4.5:.1f}" text-anchor="end">'
        f"{escape(short)}<title>{escape(clean)}</title></text>"
    )


def _interval(mark: _Mark, kind: str, name: str, y: float) -> str:
    said = (
        f"{name}, {LABELS[kind]}: {100 * mark.rate:.0f} % "
        f"({100 * mark.low:.0f}–{100 * mark.high:.0f})"
    )
    colour = f"var(--{kind})"
    return (
        f'<g style="stroke:{colour};fill:{colour}"><title>{escape(said)}</title>'
        f'<path class="span" d="M{_x(mark.low):.1f} {y:.1f}H{_x(mark.high):.1f}"/>'
        f"{_shape(kind, _x(mark.rate), y)}</g>"
    )


def _shape(kind: str, x: float, y: float) -> str:
    if kind == "corrected":
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    if kind == "joined":
        return f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 9.5h-11z"/>'
    if kind == "true":
        return f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>'
    hollow = ' style="fill:var(--card)"' if kind == "trusted" else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.3" stroke-width="1.6"{hollow}/>'


def _x(rate: float) -> float:
    return _LEFT + rate * (_WIDTH - _LEFT - _RIGHT)
