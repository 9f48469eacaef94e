"""``report.html`` of a synthesis: the funnel, and pictures of what was kept and what was not.

Enters: counts per task and stage, strips of frames. Leaves: one page that loads nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.data.atomic import write_whole
from worldeval.reports.markup import escape, notes, page_head, prose, section, table

if TYPE_CHECKING:
    import pandas as pd

ENLARGE = 2
MOMENTS = 5
"""Pictures of one rollout in its strip."""
_STYLE = """
.bar{display:inline-block;height:10px;background:var(--imagined);border-radius:2px;
 vertical-align:middle;margin-right:6px}
.strip{margin:0 0 14px;max-width:100%}.strip img{max-width:100%;display:block;border-radius:6px;
 image-rendering:pixelated}
.strip figcaption{font-size:.86rem;margin-bottom:4px;overflow-wrap:anywhere}
"""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Some moments of one rollout. frames: (T, V, H, W, 3) uint8, all of it; group: its heading."""

    group: str
    title: str
    text: str
    frames: np.ndarray


def write_page(
    path: Path,
    *,
    title: str,
    lead: str,
    sections: Sequence[str],
    remarks: Sequence[str] = (),
    chips: Mapping[str, Any] | None = None,
) -> Path:
    """Write a page of ``sections`` (HTML), wholly or not at all."""
    items = "".join(
        f"<li>{escape(name)} <b>{escape(value)}</b></li>" for name, value in (chips or {}).items()
    )
    write_whole(
        path,
        page_head(title, style=_STYLE)
        + f'<header><p class="eyebrow">worldeval synthesis</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{prose(lead)}</p><ul class="chips">{items}</ul>{notes(remarks)}</header>'
        f"{''.join(sections)}"
        "<footer>Made by worldeval. This page loads nothing from the network.</footer>"
        "</main></body></html>\n",
    )
    return path


def funnel_section(counts: pd.DataFrame) -> str:
    """How many rollouts of each task are left after each stage, as bars and numbers."""
    first = str(counts.columns[0])
    rows = []
    for task, row in counts.iterrows():
        cells = [f'<span class="name">{escape(task)}</span>']
        most = max(1, int(row[first]))
        for value in row:
            width = round(60 * int(value) / most)
            cells.append(f'<span class="bar" style="width:{width}px"></span>{int(value)}')
        rows.append(cells)
    heads = [("task", False), *((str(name), True) for name in counts.columns)]
    return section(
        "From imagined to kept",
        "Each column is what is left after one more rule. A task that loses most at one stage says "
        "where to look: at the policy, at the judge, or at the world model.",
        table(heads, rows),
    )


def strips_section(title: str, hint: str, strips: Sequence[Strip]) -> str:
    """Rollouts as rows of pictures, all views, in groups."""
    body = ""
    for group in dict.fromkeys(strip.group for strip in strips):
        body += f"<h3>{escape(group)}</h3>"
        for strip in (s for s in strips if s.group == group):
            body += (
                f'<figure class="strip"><figcaption><b>{escape(strip.title)}</b> '
                f'<span class="soft">{escape(strip.text)}</span></figcaption>'
                f'<img alt="{escape(strip.title)}" src="{picture(strip.frames)}"></figure>'
            )
    return section(title, hint, body) if body else ""


def picture(frames: np.ndarray) -> str:
    """A data URI of some moments of a rollout (T, V, H, W, 3): one row, views below each other."""
    import cv2

    moments = np.unique(np.linspace(0, len(frames) - 1, MOMENTS).astype(int))
    rows = [np.concatenate(list(frames[moments, view]), axis=1) for view in range(frames.shape[1])]
    image = np.concatenate(rows, axis=0).repeat(ENLARGE, 0).repeat(ENLARGE, 1)
    good, coded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))
    assert good
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()
