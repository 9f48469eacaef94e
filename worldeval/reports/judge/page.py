"""``calibration.html``: an assessment as one self-contained page that loads nothing.

In: an ``Assessment``. Out: plain sentences, both error rates per policy and task with intervals,
the confusions, the reliability curve, what other thresholds would cost, and how raters agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from worldeval.data.atomic import write_whole
from worldeval.judge_calibration.assessment import Assessment
from worldeval.reports.judge.plots import (
    KEY,
    STYLE,
    confusion_table,
    rates_svg,
    reliability_svg,
)
from worldeval.reports.judge.text import (
    RATE_HEADS,
    RATER_HEADS,
    THRESHOLD_HEADS,
    rate_rows,
    rater_rows,
    reliability_sentence,
    summary,
    threshold_rows,
)
from worldeval.reports.markup import escape, key, notes, page_head, prose, section, table


def write_page(path: str | Path, assessment: Assessment) -> Path:
    """Write the page, wholly or not at all, and return its path."""
    title = f"How often {assessment.judge} is right"
    body = [
        _opening(assessment, title),
        _rates(assessment),
        _confusions(assessment),
        _reliability(assessment),
        _thresholds(assessment),
        _raters(assessment),
        "<footer>Made by worldeval. This page loads nothing from the network.</footer>",
    ]
    target = Path(path)
    write_whole(
        target,
        f"{page_head(title, style=STYLE)}{''.join(body)}</main></body></html>\n",
    )
    return target


def _opening(assessment: Assessment, title: str) -> str:
    chips = [
        ("judge", assessment.judge),
        ("truth", assessment.truth),
        ("world", ", ".join(world for world in assessment.worlds if world) or "not named"),
        ("world model", assessment.world_model or "not known"),
    ]
    items = "".join(f"<li>{escape(name)} <b>{escape(value)}</b></li>" for name, value in chips)
    lead = " ".join(summary(assessment))
    return (
        f'<header><p class="eyebrow">worldeval calibration</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{prose(lead)}</p><ul class="chips">{items}</ul>'
        f"{notes(assessment.notes)}</header>"
    )


def _rates(assessment: Assessment) -> str:
    confidence = 100 * assessment.confidence
    pooled = [("all", assessment.rates())]
    if len(assessment.worlds) > 1:
        pooled += [(f"in {w}", assessment.rates(worlds=[w])) for w in assessment.worlds]
    policies = [(name, assessment.rates(policy=name)) for name in assessment.policies]
    tasks = [(name, assessment.rates(tasks=[name])) for name in assessment.tasks]
    figures = (
        f"{key(KEY)}<h3>By policy</h3>"
        f"{_scroll(rates_svg(pooled + policies, 'Error rates by policy'))}"
        f"<h3>By task</h3>{_scroll(rates_svg(tasks, 'Error rates by task'))}"
    )
    rows = [row for row in rate_rows(assessment) if row[0]]
    return section(
        "How often it is right",
        f"Lines are {confidence:.0f} % Wilson intervals over the rollouts that it decided. Where "
        "they are wide, too few rollouts of that kind were seen to tell.",
        f"{figures}<details><summary>As numbers</summary>{_table(RATE_HEADS, rows)}</details>",
    )


def _confusions(assessment: Assessment) -> str:
    return section(
        "Policy by policy, task by task",
        "Of the true successes (left) and the true failures (right), how many it called rightly.",
        key(KEY) + confusion_table(assessment),
    )


def _reliability(assessment: Assessment) -> str:
    if assessment.reliability is None:
        return ""
    heads = ("said from", "to", "rollouts", "said on average", "truly succeed")
    rows = [
        [
            f"{100 * float(row['from'] or 0):.0f} %",
            f"{100 * float(row['to'] or 0):.0f} %",
            str(row["count"]),
            *(
                "–" if row[name] is None else f"{100 * float(row[name] or 0):.0f} %"
                for name in ("mean_probability", "success_rate")
            ),
        ]
        for row in assessment.reliability.bins
    ]
    return section(
        "Does it happen as often as it says?",
        f"{reliability_sentence(assessment)} Each point is a group of rollouts, the larger the "
        "more; on the dashed line they succeed as often as the judge says.",
        f'<div class="two"><div>{reliability_svg(assessment)}</div>{_table(heads, rows)}</div>',
    )


def _thresholds(assessment: Assessment) -> str:
    if not assessment.thresholds:
        return ""
    return section(
        "Where to cut",
        "What other cuts of its probability would give on these very rollouts, and what they cost "
        "in undecided ones. On new rollouts a chosen cut does a little worse. The last column is "
        "the standard error of a rate corrected for the judge's errors, over as many rollouts.",
        _table(THRESHOLD_HEADS, threshold_rows(assessment.thresholds)),
    )


def _raters(assessment: Assessment) -> str:
    if assessment.raters is None:
        return ""
    return section(
        "Do raters agree?",
        "1 is perfect agreement, 0 what chance alone would give. Undecided rollouts do not count.",
        _table(RATER_HEADS, rater_rows(assessment.raters)),
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = [(head, number > 0) for number, head in enumerate(heads)]
    return table(columns, [[escape(cell) for cell in row] for row in rows])


def _scroll(figure: str) -> str:
    return f'<div class="scroll">{figure}</div>'
