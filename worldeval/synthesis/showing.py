"""What a synthesis leaves for people: ``funnel.json``, ``report.html`` with pictures, and which
rollouts were kept and why.

Enters: rollouts, the funnel. Leaves: files beside the dataset, written also if there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldeval.data.provenance import jsonable, write_atomically
from worldeval.data.store.episodes import EpisodeStore
from worldeval.reports.synthesis.page import Strip, funnel_section, strips_section, write_page
from worldeval.synthesis.dataset import Relabelled
from worldeval.synthesis.selecting import Funnel
from worldeval.synthesis.selection_file import write_selection
from worldeval.synthesis.tables import KEY, OUTCOME, PROBABILITY, TASK

PER_GROUP = 2
"""Pictures per task and stage."""
MOST_TASKS = 12


def write_funnel(
    out: Path,
    imagined: EpisodeStore,
    funnel: Funnel,
    relabelled: Mapping[str, Relabelled],
    facts: Mapping[str, Any],
) -> None:
    """Write funnel.json, selection.parquet and report.html to ``out``."""
    content = {**funnel.to_json(), "relabelled": len(relabelled), **facts}
    write_atomically(out / "funnel.json", json.dumps(jsonable(content), indent=1) + "\n")
    write_selection(funnel, out)
    counts = funnel.counts()
    kept = len(funnel.kept)
    first = (
        f"{kept} of {len(funnel.rollouts)} imagined rollouts are in the dataset."
        if kept
        else f"No dataset was written: {funnel.why_nothing()}."
    )
    if relabelled:
        first += f" {len(relabelled)} failed ones joined it with another task that they achieved."
    write_page(
        out / "report.html",
        title="What was imagined, and what was kept",
        lead=first,
        remarks=funnel.notes,
        chips={"judge": facts.get("judge"), "rules": len(funnel.stages)},
        sections=[
            funnel_section(counts),
            strips_section(
                "Pictures",
                "Five moments of a rollout, one row per view; of each task some that were kept and "
                "some that were lost at each stage.",
                _strips(imagined, funnel, relabelled),
            ),
        ],
    )


def _strips(
    imagined: EpisodeStore, funnel: Funnel, relabelled: Mapping[str, Relabelled]
) -> list[Strip]:
    strips = []
    for task in list(dict.fromkeys(funnel.rollouts[TASK]))[:MOST_TASKS]:
        shown: dict[str, int] = {}
        for row in funnel.rollouts[funnel.rollouts[TASK] == task].to_dict("records"):
            key = row[KEY]
            lost = funnel.lost_at(key)
            group = f"not {lost}" if lost else "kept"
            if key in relabelled:
                group = f"taken for {relabelled[key].task}"
            if shown.get(group, 0) >= PER_GROUP:
                continue
            shown[group] = shown.get(group, 0) + 1
            said = [str(row["instruction"]), str(row.get(OUTCOME) or "not judged")]
            if row.get(PROBABILITY) == row.get(PROBABILITY) and row.get(PROBABILITY) is not None:
                said.append(f"p = {row[PROBABILITY]:.2f}")
            strips.append(
                Strip(
                    group=f"{task}: {group}",
                    title=key,
                    text=", ".join(said),
                    frames=imagined.by_key(key).frames,
                )
            )
    return sorted(strips, key=lambda strip: strip.group)
