"""A diagnosis as text and as a page: tables, findings, pictures.

Enters: tables of numbers (rows and columns are named), sentences, strips of frames. Leaves: text,
HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.reports.markup import escape, section, table
from worldeval.reports.synthesis.page import Strip, strips_section, write_page
from worldeval.reports.synthesis.text import table_text

if TYPE_CHECKING:
    import pandas as pd

HINTS = {
    "Variety": "Effective numbers: as if there were so many clearly different start poses, paths, "
    "instructions and first pictures (exp of the entropy of their similarity).",
    "What tells the task without the instruction": "How often the most similar other episode is of "
    "the same task, and how often it would be by chance.",
    "Sources": "How much of the variance lies between sources rather than within them, and how "
    "often the first picture tells the source.",
    "One thing changed": "Path: how far it moves from that of the unchanged rollout, in shares of "
    "the robot's range; times: of what another seed moves it. Solved: what the judge calls a "
    "success; other: of the task whose words were given.",
}
SHARES = ("chance", "between", "guessed", "solved", "other")
COUNTS = ("episodes", "values", "rollouts")


def diagnosis_text(named: Sequence[tuple[str, pd.DataFrame]], findings: Sequence[str]) -> str:
    """Every table that has rows, then the findings."""
    parts = [table_text(title, frame, _cells(frame)) for title, frame in named if len(frame)]
    return "\n\n".join([*parts, "\n".join(f"- {finding}" for finding in findings)])


def write_diagnosis(
    path: Path,
    *,
    name: str,
    named: Sequence[tuple[str, pd.DataFrame]],
    findings: Sequence[str],
    strips: Sequence[Strip],
    chips: dict[str, Any],
) -> Path:
    """Write the page, wholly or not at all."""
    sections = [_section(title, frame) for title, frame in named if len(frame)]
    sections.append(
        strips_section(
            "Pictures",
            "Five moments of a rollout, one row per view. Episodes of a task are those that are "
            "furthest apart by their first picture.",
            strips,
        )
    )
    return write_page(
        path,
        title=f"How diverse is {name}?",
        lead=" ".join(findings[:3]) or "Nothing stands out.",
        sections=sections,
        remarks=findings[3:],
        chips=chips,
    )


def _section(title: str, frame: pd.DataFrame) -> str:
    heads = [("", False), *((str(name), True) for name in frame.columns)]
    rows = [
        [f'<span class="name">{escape(index)}</span>', *(escape(cell) for cell in cells)]
        for index, cells in zip(frame.index, _cells(frame), strict=True)
    ]
    return section(title, HINTS.get(title, ""), table(heads, rows))


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    return [[_cell(str(name), value) for name, value in row.items()] for _, row in frame.iterrows()]


def _cell(name: str, value: Any) -> str:
    if value != value:
        return "-"
    if name.startswith(SHARES):
        return f"{100 * value:.0f} %"
    if name in COUNTS:
        return f"{value:.0f}"
    return f"{value:.3f}" if name == "path" else f"{value:.1f}"
