"""``report.html``: a leaderboard as one self-contained page.

In: a ``Leaderboard``, video clips by path, provenance (JSON-able). Out: one HTML file that loads
nothing from elsewhere: the plot is inline SVG, the videos are embedded as base64, and a
Content-Security-Policy forbids every request. All text that a user or a policy may have chosen
is escaped.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldeval.errors import DataError
from worldeval.ranking.clips import Clip
from worldeval.ranking.leaderboard import Leaderboard, Tally, write_whole
from worldeval.ranking.report_sections import (
    agreement_section,
    bounds_text,
    escape,
    leaderboard_section,
    percent_text,
    tasks_section,
)
from worldeval.ranking.report_style import SCRIPT, STYLE
from worldeval.types import Outcome

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
_POLICY += "img-src data:; media-src data:"


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
        _head(title),
        _opening(leaderboard, title),
        leaderboard_section(leaderboard),
        agreement_section(leaderboard),
        tasks_section(leaderboard),
        _rollouts(clips),
        _provenance(provenance or {}),
        "<footer>Made by worldeval. This page loads nothing from the network.</footer></main>",
        f"<script>{SCRIPT}</script></body></html>\n",
    ]
    write_whole(target, "\n".join(parts))
    return target


def headline(board: Leaderboard) -> str:
    """The result in one or two sentences of plain text."""
    ranked = [row for row in board.policies if row.rank is not None]
    if not ranked:
        return "No policy has a decided rollout: nothing can be ranked."
    first = [row for row in ranked if row.rank == 1]
    names = " and ".join(row.name for row in first)
    tasks = f"{len(board.per_task)} task" + ("s" if len(board.per_task) > 1 else "")
    best = first[0].imagined
    said = (
        f"{names} {'share' if len(first) > 1 else 'takes'} the first place of "
        f"{len(board.policies)} in imagination: {percent_text(best.rate)} success on {tasks} "
        f"({100 * best.confidence:.0f} % interval {bounds_text(best)})."
    )
    agreement = board.agreement
    if agreement.pearson is None:
        why = agreement.reasons["pearson"] if agreement.policies else "there are no true results"
        return f"{said} How well that agrees with the truth cannot be told: {why}."
    regret = agreement.top1_regret or 0.0
    choice = (
        "the imagined winner is the true one"
        if regret == 0
        else f"taking the imagined winner costs {100 * regret:.1f} points of true success"
    )
    return (
        f"{said} Over the {agreement.policies} policies with true results the rates correlate "
        f"with r = {agreement.pearson:.3f}, and among these {choice}."
    )


def _head(title: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
    )


def _opening(board: Leaderboard, title: str) -> str:
    rollouts = sum(_all(row.imagined) for row in board.policies)
    chips = [
        f"<b>{len(board.policies)}</b> policies",
        f"<b>{len(board.per_task)}</b> tasks",
        f"<b>{rollouts}</b> imagined rollouts",
    ]
    for label, names in (
        ("world", board.worlds.get("imagined", ())),
        ("judge", board.judges.get("imagined", ())),
        ("truth", board.worlds.get("real", ())),
    ):
        if names:
            chips.append(f"{label} <b>{escape(', '.join(names))}</b>")
    items = "".join(f"<li>{chip}</li>" for chip in chips)
    notes = "".join(f'<p class="notes">{escape(note)}</p>' for note in board.notes)
    return (
        f'<header><p class="eyebrow">worldeval report</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(headline(board))}</p><ul class="chips">{items}</ul>{notes}'
        "</header>"
    )


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
    if clip.real is not None:
        sides += _video("true", clip.real, clip.real_outcome, None)
    elif clip.real_outcome is not None:
        sides += f'<div class="side"><span>true</span>{_outcome(clip.real_outcome)}</div>'
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


def _all(tally: Tally) -> int:
    return tally.decided + tally.undecided + tally.errors
