"""``report.html``: a leaderboard as one self-contained page.

In: a ``Leaderboard``, video clips by path, provenance (JSON-able). Out: one HTML file that loads
nothing from elsewhere: the plots are inline SVG, the videos are embedded as base64, and a
Content-Security-Policy forbids every request. All text that a user or a policy may have chosen
is escaped.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from worldeval.data.atomic import write_whole
from worldeval.errors import DataError
from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.reports.markup import escape, notes, page_head, prose
from worldeval.reports.ranking.clips import Clip
from worldeval.reports.ranking.controls import controls_section, selection_section
from worldeval.reports.ranking.findings import findings
from worldeval.reports.ranking.pairs import pairs_section, plans_section
from worldeval.reports.ranking.rates import leaderboard_section, trials_section, trust_section
from worldeval.reports.ranking.stability import stability_section
from worldeval.reports.ranking.truth import agreement_section, tasks_section
from worldeval.reports.style import SCRIPT, STYLE
from worldeval.types import Outcome

_ALLOWED = "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:"


def write_report(
    path: str | os.PathLike[str],
    leaderboard: Leaderboard,
    *,
    clips: Sequence[Clip] = (),
    provenance: Mapping[str, Any] | None = None,
    title: str = "Policies ranked in imagination",
) -> Path:
    """Write the page, wholly or not at all, and return its path."""
    target = Path(path)
    parts = [
        page_head(title, allowed=_ALLOWED),
        _opening(leaderboard, title),
        *sections(leaderboard),
        _rollouts(clips),
        _provenance(provenance or {}),
        "<footer>Made by worldeval. This page loads nothing from the network.</footer></main>",
        f"<script>{SCRIPT}</script></body></html>\n",
    ]
    write_whole(target, "\n".join(parts))
    return target


def sections(leaderboard: Leaderboard) -> list[str]:
    """The HTML of all that a leaderboard says, in the order of the report; empty where nothing is
    known."""
    return [
        leaderboard_section(leaderboard),
        pairs_section(leaderboard),
        plans_section(leaderboard),
        stability_section(leaderboard),
        controls_section(leaderboard),
        selection_section(leaderboard),
        trials_section(leaderboard),
        trust_section(leaderboard),
        agreement_section(leaderboard),
        tasks_section(leaderboard),
    ]


def ranking_html(leaderboard: Leaderboard) -> str:
    """The whole ranking as part of another page, which gives it ``style.scoped_style``."""
    shown = [opening(leaderboard), *sections(leaderboard)]
    return f'<div class="we-report">{"".join(shown)}</div>'


def preload() -> None:
    """Import what a ranking and its page load when they first need it (half a second, 70 MB): for a
    server whose first reader shall not wait."""
    for name in (
        "scipy.optimize",
        "scipy.stats",
        "matplotlib.figure",
        "matplotlib.backends.backend_svg",
        "matplotlib.font_manager",
    ):
        with suppress(ImportError):  # whoever needs it says so
            import_module(name)


def leaderboard_html(leaderboard: Leaderboard) -> str:
    """The leaderboard alone, framed with its style, for a notebook that shows other things too."""
    body = f"<main>{leaderboard_section(leaderboard)}{notes(leaderboard.notes)}</main>"
    inner = f"<!doctype html><html><head><style>{STYLE}</style></head><body>{body}</body></html>"
    return (
        f'<iframe sandbox srcdoc="{escape(inner)}" '
        'style="width:100%;height:30em;border:0"></iframe>'
    )


def _opening(board: Leaderboard, title: str) -> str:
    head = f'<p class="eyebrow">worldeval report</p><h1>{escape(title)}</h1>'
    return f"<header>{head}{opening(board)}</header>"


def opening(board: Leaderboard) -> str:
    """What was found, in sentences, and from what."""
    rollouts = sum(row.imagined.rollouts for row in board.policies)
    chips = [
        f"<b>{len(board.policies)}</b> policies",
        f"<b>{len(board.per_task)}</b> tasks",
        f"<b>{rollouts}</b> imagined rollouts",
    ]
    for label, names in (
        ("world", board.worlds.get("imagined", ())),
        ("judge", board.judges.get("imagined", ())),
        ("truth", board.worlds.get("true", ())),
    ):
        if names:
            chips.append(f"{label} <b>{escape(', '.join(names))}</b>")
    items = "".join(f"<li>{chip}</li>" for chip in chips)
    (first, *rest), evidence = findings(board)
    lead = f"<b>{prose(first)}</b> {prose(' '.join(rest))}"
    below = "".join(f"<li>{prose(paragraph)}</li>" for paragraph in evidence)
    below = f'<ul class="evidence">{below}</ul>' if below else ""
    return f'<p class="lead">{lead}</p>{below}<ul class="chips">{items}</ul>{notes(board.notes)}'


def _rollouts(clips: Sequence[Clip]) -> str:
    if not clips:
        return ""
    body = ""
    for group in dict.fromkeys(clip.group for clip in clips):
        shown = "".join(_clip(clip) for clip in clips if clip.group == group)
        body += f'<h3>{escape(group)}</h3><div class="clips">{shown}</div>'
    return (
        '<section><h2>Rollouts</h2><p class="hint">All views, the imagined rollout above the true '
        f"one from the same start.</p>{body}</section>"
    )


def _clip(clip: Clip) -> str:
    sides = _video("imagined", clip.imagined, clip.imagined_outcome, clip.probability)
    if clip.true is not None:
        sides += _video("true", clip.true, clip.true_outcome, None)
    elif clip.true_outcome is not None:
        sides += f'<div class="side"><span>true</span>{_outcome(clip.true_outcome)}</div>'
    # A suite's start ids begin with their task; say it once.
    task = "" if clip.start_id.startswith(clip.task) else clip.task
    parts = [part for part in (task, clip.start_id, clip.note) if part]
    return (
        f'<figure class="clip"><figcaption><span><b>{escape(clip.policy)}</b><br>'
        f'<span class="soft">{escape(" · ".join(parts))}</span></span>'
        f'<button type="button">Play</button></figcaption><div class="pair">{sides}</div></figure>'
    )


def _video(side: str, path: Path, outcome: Outcome | None, probability: float | None) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the {side} clip {path}: {error.strerror or error}; expected an mp4 file"
        ) from error
    if content[4:8] != b"ftyp":
        raise DataError(
            f"the {side} clip {path} is no mp4 file; write it with data.video.write_mp4"
        )
    sure = "" if probability is None else f" (p = {probability:.2f})"
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<div><div class="side"><span>{side}</span><span>{_outcome(outcome)}{sure}</span></div>'
        f'<video muted playsinline preload="auto" '
        f'src="data:video/mp4;base64,{data}"></video></div>'
    )


def _provenance(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return ""
    facts, rest = "", ""
    for name, value in provenance.items():
        if isinstance(value, Mapping | list | tuple):
            dump = json.dumps(value, indent=2, ensure_ascii=False, default=str)
            rest += f"<details><summary>{escape(name)}</summary><pre>{escape(dump)}</pre></details>"
        else:
            facts += f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    return f"<section><h2>How this was made</h2><dl>{facts}</dl>{rest}</section>"


def _outcome(outcome: Outcome | None) -> str:
    return "" if outcome is None else f'<span class="{outcome.value}">{outcome.value}</span>'
