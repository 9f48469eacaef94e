"""The figures of a report as HTML: leaderboard table, agreement, per-task table.

In: a ``Leaderboard``. Out: ``<section>`` elements in the classes of ``report_style.py``.
"""

from __future__ import annotations

import html
from typing import Any

from worldeval.ranking.agreement import Agreement
from worldeval.ranking.leaderboard import Leaderboard, PolicyRow, Tally
from worldeval.ranking.plots import scatter_svg

FAR_POINTS = 25
"""A cell of the per-task table is outlined where imagined and true rate differ by this much."""

_FIGURES = (
    (
        "pearson",
        "Pearson correlation",
        "Do the rates lie on a rising line? 1: perfectly; 0: not at all.",
    ),
    (
        "spearman",
        "Spearman rank correlation",
        "Is the order of the policies the same? 1: exactly; -1: reversed.",
    ),
    (
        "mmrv",
        "MMRV",
        "Mean maximum rank violation: how far apart in true success rate, at worst, two policies "
        "are whose order the imagination confuses, averaged over policies. 0 is best.",
    ),
    (
        "top1_regret",
        "Top-1 regret",
        "True success rate given up by taking the policy that wins in imagination. 0 is best.",
    ),
    (
        "mean_bias",
        "Mean bias",
        "Imagined minus true rate, averaged: above 0 the imagination flatters.",
    ),
)


def leaderboard_section(board: Leaderboard) -> str:
    truth = any(row.real is not None for row in board.policies)
    corrected = any(row.corrected is not None for row in board.policies)
    heads = ["#", "Policy", "0 – 100 %", "Imagined"]
    heads += ["Judge-corrected"] if corrected else []
    heads += ["True", "Difference"] if truth else []
    heads += ["Decided", "Undecided", "Errors"]
    plain = ("Policy", "0 – 100 %", "#")
    header = "".join(f"<th{'' if h in plain else ' class=num'}>{h}</th>" for h in heads)
    rows = "".join(_table_row(row, truth, corrected) for row in board.policies)
    key = "<span>imagined</span>" + ('<span class="tr">true</span>' if truth else "")
    note = (
        " Judge-corrected: what the true rate would be, given how often the judge errs "
        "(Rogan-Gladen)."
        if corrected
        else ""
    )
    return (
        '<section><h2>Leaderboard</h2><p class="hint">Success rate over decided rollouts; '
        "a rollout that the judge leaves undecided or that broke off with an error is not a "
        f"failure and is counted apart. Bars are Wilson intervals.{note}</p>"
        f'<p class="key">{key}</p><div class="scroll"><table><thead><tr>{header}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _table_row(row: PolicyRow, truth: bool, corrected: bool) -> str:
    track = _mark(row.imagined, "im") + (_mark(row.real, "tr") if row.real else "")
    cells = [
        f'<td class="rank">{"–" if row.rank is None else row.rank}</td>',
        f'<td class="name">{escape(row.name)}</td>',
        f'<td><div class="track">{track}</div></td>',
        f'<td class="num">{_rate_html(row.imagined)}</td>',
    ]
    if corrected:
        value = "–"
        if row.corrected is not None:
            low, high = 100 * row.corrected.low, 100 * row.corrected.high
            value = f"{100 * row.corrected.rate:.0f} % "
            value += f'<span class="soft">{low:.0f}–{high:.0f}</span>'
        cells.append(f'<td class="num">{value}</td>')
    if truth:
        cells.append(f'<td class="num">{_rate_html(row.real)}</td>')
        cells.append(f'<td class="num">{_difference(row)}</td>')
    for number in (row.imagined.decided, row.imagined.undecided, row.imagined.errors):
        cells.append(f'<td class="num{"" if number else " soft"}">{number}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _mark(tally: Tally, side: str) -> str:
    if tally.rate is None:
        return ""
    low, high = 100 * tally.interval.low, 100 * tally.interval.high
    word = "imagined" if side == "im" else "true"
    return (
        f'<i class="span {side}" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        f'<i class="dot {side}" style="left:{100 * tally.rate:.2f}%" '
        f'title="{word}: {tally.successes} of {tally.decided}, {bounds_text(tally)}"></i>'
    )


def agreement_section(board: Leaderboard) -> str:
    if not board.agreement.policies:
        return (
            '<section><h2>Agreement with the truth</h2><p class="hint">No policy has true results '
            "beside its imagined ones, so nothing is known here about how far to believe the "
            "order above.</p></section>"
        )
    cards = "".join(_figure(board.agreement, *figure) for figure in _FIGURES)
    if board.outcomes.same is not None:
        o = board.outcomes
        cards += _card(
            "Same outcome",
            percent_text(o.same),
            f"{o.rollouts} single rollouts from the same start: {o.both_succeed} succeed in both, "
            f"{o.both_fail} fail in both, {o.only_imagined_succeeds} succeed only in imagination, "
            f"{o.only_real_succeeds} only in truth.",
        )
    left = "".join(
        f'<p class="hint">Without {escape(name)}: {escape(why)}.</p>'
        for name, why in board.excluded.items()
    )
    return (
        '<section><h2>Imagined against true</h2><p class="hint">Each point is a policy, with '
        "Wilson intervals both ways. On the dashed line imagination is exact; the solid line is "
        f"the fit. Brackets are {100 * board.agreement.confidence:.0f} % intervals from "
        f"resampling the {len(board.per_task)} tasks.</p>"
        f'<div class="two"><div>{scatter_svg(board)}{left}</div>'
        f'<div class="figures">{cards}</div></div></section>'
    )


def _figure(agreement: Agreement, name: str, label: str, meaning: str) -> str:
    value = getattr(agreement, name)
    if value is None:
        return _card(label, "–", f"{meaning} Not defined here: {agreement.reasons.get(name, '')}.")
    bounds = agreement.intervals.get(name)
    small = "" if bounds is None else f"[{bounds.low:.2f}, {bounds.high:.2f}]".replace("-", "−")
    # MMRV and regret matter at the second decimal: a point of success rate.
    return _card(label, f"{value:.3f}".replace("-", "−"), meaning, small)


def _card(label: str, value: str, meaning: str, small: str = "") -> str:
    return (
        f'<div class="figure"><div class="top"><span class="label">{escape(label)}</span>'
        f'<span class="value">{escape(value)} <small>{escape(small)}</small></span></div>'
        f"<p>{escape(meaning)}</p></div>"
    )


def tasks_section(board: Leaderboard) -> str:
    header = "".join(f'<th class="task">{escape(row.task)}</th>' for row in board.per_task)
    body = ""
    for i, row in enumerate(board.policies):
        cells = "".join(_task_cell(task.policies[i]) for task in board.per_task)
        body += f'<tr><th class="name">{escape(row.name)}</th>{cells}</tr>'
    return (
        '<section><h2>Task by task</h2><p class="hint">Success in percent: imagined on the left, '
        f"true on the right. Outlined where they differ by {FAR_POINTS} points or more.</p>"
        '<p class="key"><span>imagined</span><span class="tr">true</span></p>'
        '<div class="scroll"><table class="heat"><thead><tr><th class="name"></th>'
        f"{header}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _task_cell(row: PolicyRow) -> str:
    halves, rates = "", []
    for side, tally in (("im", row.imagined), ("tr", row.real)):
        rate = None if tally is None else tally.rate
        rates.append(rate)
        if rate is None:
            halves += "<span>–</span>"
            continue
        assert tally is not None
        tip = f"{tally.successes} of {tally.decided} decided"
        halves += f'<span class="{side}" style="--v:{rate:.3f}" title="{tip}">{100 * rate:.0f}'
        halves += "</span>"
    first, second = rates
    far = (
        first is not None and second is not None and abs(first - second) >= FAR_POINTS / 100 - 1e-9
    )
    return f'<td><div class="cell{" far" if far else ""}">{halves}</div></td>'


def _rate_html(tally: Tally | None) -> str:
    if tally is None or tally.rate is None:
        return '<span class="soft">–</span>'
    return f'{percent_text(tally.rate)} <span class="soft">{bounds_text(tally)}</span>'


def _difference(row: PolicyRow) -> str:
    if row.real is None or row.real.rate is None or row.imagined.rate is None:
        return '<span class="soft">–</span>'
    points = round(100 * (row.imagined.rate - row.real.rate))
    return f"{points:+d}".replace("-", "−") if points else "0"


def bounds_text(tally: Tally) -> str:
    return f"{100 * tally.interval.low:.0f}–{100 * tally.interval.high:.0f}"


def percent_text(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.0f} %"


def escape(value: Any) -> str:
    return html.escape(str(value), quote=True)
