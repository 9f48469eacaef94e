"""The figures of an assessment as inline SVG and HTML: error rates, confusions, reliability.

In: an ``Assessment``. Out: elements in the page's CSS variables, so that they follow light and dark
(``STYLE`` adds what the page of a ranking has not). Everything that a user may have named is
escaped.
"""

from __future__ import annotations

from collections.abc import Sequence

from worldeval.judge_calibration.assessment import Assessment
from worldeval.judge_calibration.error_rates import ErrorRates, negatives, positives
from worldeval.ranking.intervals import Estimate, wilson_interval
from worldeval.reports.markup import escape
from worldeval.terminal import printable

STYLE = """
.key .hit::before{background:var(--good)}
.key .rejected::before{background:var(--bad);border-radius:2px;transform:rotate(45deg) scale(.8)}
.cell .hit{color:var(--ink);
 background:color-mix(in srgb,var(--good) calc(7% + var(--v)*45%),var(--card))}
.cell .rejected{color:var(--ink);
 background:color-mix(in srgb,var(--bad) calc(7% + var(--v)*45%),var(--card))}
.curve{display:block;width:100%;max-width:440px;height:auto}
.curve text,.rates text{fill:var(--soft);font-size:12.5px}
.rates{display:block;width:100%;min-width:620px;height:auto;margin-bottom:14px}
.rates .group{fill:var(--ink);font-weight:600;font-size:14px}
.curve .rule,.rates .rule{stroke:var(--line);stroke-width:1;fill:none}
.curve .exact{stroke:var(--soft);stroke-dasharray:5 4;fill:none}
.curve .span,.rates .span{stroke-width:3.5;stroke-linecap:round;opacity:.45;fill:none}
"""
KEY = (
    ("hit", "true successes that it calls a success"),
    ("rejected", "true failures that it calls a failure"),
)

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 960, 250, 30, 36, 10
_NAME_LETTERS = 30
_SIDE, _MARGIN = 400, 46


def rates_svg(groups: Sequence[tuple[str, ErrorRates]], label: str) -> str:
    """A row per group: both rates with their intervals on a line from 0 to 100 %."""
    bottom = _TOP + _ROW * len(groups)
    parts = []
    for quarter in range(5):
        x = _along(quarter / 4)
        parts.append(f'<path class="rule" d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{25 * quarter} %</text>'
        )
    for number, (name, rates) in enumerate(groups):
        y = _TOP + _ROW * (number + 0.5)
        clean = printable(name)
        short = clean if len(clean) <= _NAME_LETTERS else clean[: _NAME_LETTERS - 1] + "…"
        parts.append(
            f'<text class="group" x="{_LEFT - 16}" y="{y + 4.5:.1f}" text-anchor="end">'
            f"{escape(short)}<title>{escape(clean)}</title></text>"
        )
        parts.append(_mark(rates.sensitivity, "good", f"{clean}, {KEY[0][1]}", y - 6))
        parts.append(_mark(rates.specificity, "bad", f"{clean}, {KEY[1][1]}", y + 6))
    return (
        f'<svg class="rates" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {_WIDTH} {bottom + 26}">{"".join(parts)}</svg>'
    )


def confusion_table(assessment: Assessment) -> str:
    """Policies by tasks: how many of the true successes and failures it called rightly."""
    header = "".join(f'<th class="task">{escape(task)}</th>' for task in assessment.tasks)
    body = ""
    for policy in assessment.policies:
        cells = ""
        for task in assessment.tasks:
            counts = assessment.counts(policy=policy, tasks=[task])
            left = counts.undecided_positive + counts.undecided_negative
            tip = f"{left} left undecided" if left else "all decided"
            cells += (
                f'<td><div class="cell" title="{tip}">'
                f"{_half('hit', counts.true_positive, positives(counts))}"
                f"{_half('rejected', counts.true_negative, negatives(counts))}</div></td>"
            )
        body += f'<tr><th class="name">{escape(policy)}</th>{cells}</tr>'
    return (
        '<div class="scroll"><table class="heat"><thead><tr><th class="name"></th>'
        f"{header}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def reliability_svg(assessment: Assessment) -> str:
    """How often rollouts of a stated probability truly succeed; on the dashes, as often as said."""
    table = assessment.reliability
    assert table is not None
    parts = []
    for tick in range(0, 101, 25):
        x, y = _square(tick / 100, tick / 100)
        parts.append(
            f'<path class="rule" d="M{_MARGIN} {y:.1f}H{_SIDE}M{x:.1f} 0V{_inner():.1f}"/>'
        )
        parts.append(
            f'<text x="{x:.1f}" y="{_inner() + 18:.1f}" text-anchor="middle">{tick} %</text>'
            f'<text x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{tick} %</text>'
        )
    parts.append(f'<path class="exact" d="M{_MARGIN} {_inner():.1f}L{_SIDE} 0"/>')
    for row in table.bins:
        count, stated, rate = row["count"], row["mean_probability"], row["success_rate"]
        if not count or stated is None or rate is None:
            continue
        low, high = wilson_interval(rate * count, count, confidence=assessment.confidence)
        (x, y), (_, bottom), (_, top) = (_square(stated, value) for value in (rate, low, high))
        tip = (
            f"{count} rollouts said to succeed with {100 * stated:.0f} %: {100 * rate:.0f} % do "
            f"({100 * low:.0f}–{100 * high:.0f})"
        )
        size = 3 + 9 * (count / table.rollouts) ** 0.5
        parts.append(
            f'<g style="stroke:var(--imagined);fill:var(--imagined)"><title>{escape(tip)}</title>'
            f'<path class="span" d="M{x:.1f} {bottom:.1f}V{top:.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/></g>'
        )
    label = "Stated probability of success (across) against the share that truly succeeds (up)"
    return (
        f'<svg class="curve" role="img" aria-label="{label}" '
        f'viewBox="0 -14 {_SIDE + 24} {_SIDE + 4}">{"".join(parts)}</svg>'
    )


def _mark(estimate: Estimate | None, colour: str, what: str, y: float) -> str:
    if estimate is None:
        return ""
    rate, low, high = estimate.rate, estimate.low, estimate.high
    x = _along(rate)
    shape = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.3"/>'
        if colour == "good"
        else f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>'
    )
    said = f"{what}: {100 * rate:.0f} % ({100 * low:.0f}–{100 * high:.0f})"
    return (
        f'<g style="stroke:var(--{colour});fill:var(--{colour})"><title>{escape(said)}</title>'
        f'<path class="span" d="M{_along(low):.1f} {y:.1f}H{_along(high):.1f}"/>{shape}</g>'
    )


def _half(kind: str, right: int, total: int) -> str:
    if not total:
        return "<span>–</span>"
    return f'<span class="{kind}" style="--v:{right / total:.3f}">{right}/{total}</span>'


def _along(rate: float) -> float:
    return _LEFT + rate * (_WIDTH - _LEFT - _RIGHT)


def _inner() -> float:
    return _SIDE - _MARGIN


def _square(across: float, up: float) -> tuple[float, float]:
    return _MARGIN + across * _inner(), (1 - up) * _inner()
