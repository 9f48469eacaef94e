"""The small pieces of HTML of which a report is made: numbers, tables, cards, keys.

In: values and text that a user may have chosen. Out: HTML, escaped, in the classes of
``report_style.py``. Text that is called HTML here ("cells") is taken as it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from worldeval.ranking.outcome_counts import OutcomeCounts
from worldeval.reports.ranking.findings import bounds, percent
from worldeval.reports.style import STYLE
from worldeval.terminal import printable

STILL = "style-src 'unsafe-inline'; img-src data:"
"""What a page without scripts and films may do; nothing is ever loaded from elsewhere."""
NOTHING = '<span class="soft">–</span>'


def escape(value: Any) -> str:
    return html.escape(printable(str(value), "\n\t"), quote=True)


def page_head(title: str, *, style: str = "", allowed: str = STILL, look: str = STYLE) -> str:
    """HTML of a whole page up to its <main>. style: beside that of all reports (look). allowed: its
    Content-Security-Policy, which forbids all else."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="'
        f"default-src 'none'; {allowed}\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{look}{style}</style></head><body><main>"
    )


def prose(text: str) -> str:
    """Escaped, with no line break between a number and its %."""
    return escape(text).replace(" %", "\u00a0%")


def section(title: str, hint: str, body: str) -> str:
    """title, hint: text. body: HTML."""
    return f'<section><h2>{escape(title)}</h2><p class="hint">{prose(hint)}</p>{body}</section>'


def table(heads: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> str:
    """heads: text, and whether the column is of numbers. rows: cells (HTML)."""
    numeric = [number for _, number in heads]

    def line(cells: Sequence[str], tag: str) -> str:
        parts = (
            f"<{tag}{' class=num' if number else ''}>{cell}</{tag}>"
            for cell, number in zip(cells, numeric, strict=True)
        )
        return f"<tr>{''.join(parts)}</tr>"

    header = line([escape(head) for head, _ in heads], "th")
    body = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table><thead>{header}</thead><tbody>{body}</tbody></table></div>'


def name_cell(name: str) -> str:
    return f'<span class="name">{escape(name)}</span>'


def rate_cell(tally: OutcomeCounts | None) -> str:
    if tally is None or tally.rate is None:
        return NOTHING
    return f'{percent(tally.rate)} <span class="soft">{bounds(tally)}</span>'


def estimate_cell(rate: float, low: float, high: float) -> str:
    return f'{percent(rate)} <span class="soft">{100 * low:.0f}–{100 * high:.0f}</span>'


def points(difference: float | None) -> str:
    """Percentage points with their sign, "+12", "−3" or "0"; "–" where nothing is known."""
    if difference is None:
        return "–"
    whole = round(100 * difference)
    return f"{whole:+d}".replace("-", "−") if whole else "0"


def key(kinds: Iterable[tuple[str, str]]) -> str:
    """A legend: (class of the mark, text)."""
    spans = "".join(f'<span class="{kind}">{escape(text)}</span>' for kind, text in kinds)
    return f'<p class="key">{spans}</p>'


def card(label: str, value: str, meaning: str, small: str = "") -> str:
    return (
        f'<div class="figure"><div class="top"><span class="label">{escape(label)}</span>'
        f'<span class="value">{escape(value)} <small>{escape(small)}</small></span></div>'
        f"<p>{prose(meaning)}</p></div>"
    )


def notes(sentences: Iterable[str]) -> str:
    """Sentences that a reader must not miss."""
    return "".join(f'<p class="notes">{prose(sentence)}</p>' for sentence in sentences)
