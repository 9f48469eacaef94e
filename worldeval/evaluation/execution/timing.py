"""Where the time of a run went: policy, model, decode, write, engine, judge, and around them.

Enters: ``RunSummary``s and the clock. Leaves: one line for people, and ``spent`` in run.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldeval.data.atomic import alone
from worldeval.data.provenance import (
    MANIFEST,
    naming_the_manifest,
    read_manifest,
    write_atomically,
)
from worldeval.evaluation.execution.options import ExecutionOptions
from worldeval.rollout.progress import duration, percentages
from worldeval.rollout.summary import RunSummary
from worldeval.settings import settings_from


@dataclass(frozen=True, kw_only=True)
class Spent:
    """by: "all", or the shard. seconds: by part as in ``RunSummary``, summed over workers; the rest
    of ``wall_s`` times ``workers`` is around it: starting, checking, gathering, waiting."""

    by: str
    wall_s: float
    workers: int
    rollouts: int
    seconds: dict[str, float]
    price_per_hour: float | None = None

    def __str__(self) -> str:
        whole = self.wall_s * self.workers
        if whole <= 0:
            return ""
        around = max(0.0, whole - sum(self.seconds.values()))
        shares = percentages({**self.seconds, "around it": around})
        told = ", ".join(f"{name} {share} %" for name, share in shares.items())
        many = f" of {self.workers} workers" if self.workers > 1 else ""
        return f"time: {duration(self.wall_s)}{many}: {told}"


def spent_of(
    by: str, summaries: Sequence[RunSummary], wall_s: float, execution: ExecutionOptions
) -> Spent:
    seconds: dict[str, float] = {}
    for summary in summaries:
        for part, value in summary.seconds.items():
            seconds[part] = seconds.get(part, 0.0) + value
    return Spent(
        by=by,
        wall_s=wall_s,
        workers=execution.workers,
        rollouts=sum(summary.rollouts for summary in summaries),
        seconds=seconds,
        price_per_hour=execution.price_per_hour,
    )


def keep(folder: Path, spent: Spent) -> None:
    """Add to ``spent`` of the folder's run.json, if it has one."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    with alone(path):
        manifest = read_manifest(folder)
        manifest["spent"] = [*manifest.get("spent", []), asdict(spent)]
        write_atomically(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def read(manifest: Mapping[str, Any], folder: Path) -> list[Spent]:
    """What runs of the folder have taken so far. ConfigError where its manifest is damaged."""
    with naming_the_manifest(folder):
        return list(settings_from(_Kept, {"spent": manifest.get("spent", [])}).spent)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    spent: tuple[Spent, ...]


def keep_judged(folder: Path, wall_s: float) -> None:
    """Add what judging took."""
    judged = Spent(by="judge", wall_s=wall_s, workers=1, rollouts=0, seconds={"judge": wall_s})
    keep(folder, judged)
