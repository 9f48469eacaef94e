"""Where the time of a run went: policy, model, decode, write, engine, judge, and around them.

Enters: ``RunSummary``s and the clock. Leaves: one line for people, and ``spent`` in run.json.
"""

from __future__ import annotations

import json
import uuid
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
from worldeval.evaluation.execution.heartbeat import Beat, beats
from worldeval.evaluation.execution.options import ExecutionOptions
from worldeval.rollout.progress import duration, percentages
from worldeval.rollout.summary import RunSummary
from worldeval.settings import settings_from


@dataclass(frozen=True, kw_only=True)
class Spent:
    """by: "all", or the shard. seconds: by part as in ``RunSummary``, summed over workers; the rest
    of ``wall_s`` times ``workers`` is around it: starting, checking, gathering, waiting. id: of the
    process that took it, by which it is counted once; empty in those of earlier versions."""

    by: str
    wall_s: float
    workers: int
    rollouts: int
    seconds: dict[str, float]
    price_per_hour: float | None = None
    id: str = ""

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
    by: str,
    summaries: Sequence[RunSummary],
    wall_s: float,
    execution: ExecutionOptions,
    id: str,
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
        id=id,
    )


def keep(folder: Path, *spent: Spent) -> None:
    """Add to ``spent`` of the folder's run.json, if it has one; what stands there, once."""
    path = folder / MANIFEST
    if not spent or not path.is_file():
        return
    with alone(path):
        manifest = read_manifest(folder)
        manifest["spent"] = [asdict(one) for one in _each_once([*read(manifest, folder), *spent])]
        write_atomically(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def keep_of(folder: Path, others: Sequence[Path]) -> None:
    """Add what runs in other folders took, each once however often it is added."""
    keep(folder, *(s for o in others for s in (*read(read_manifest(o), o), *killed(o))))


def keep_killed(folder: Path, name: str) -> None:
    """Add what the last process of this name took, if it was killed and nobody added it."""
    keep(folder, *(one for one in killed(folder) if one.by == name))


def killed(folder: Path) -> list[Spent]:
    """What processes took that did not come to their end and are at work no more."""
    return [of_beat(beat) for beat in beats(folder) if not beat.ended and not beat.at_work]


def of_beat(beat: Beat) -> Spent:
    """What a process took until this beat."""
    return Spent(
        by=beat.name,
        wall_s=beat.now - beat.began,
        workers=beat.workers,
        rollouts=beat.made,
        seconds={},
        price_per_hour=beat.price_per_hour,
        id=beat.id,
    )


def _each_once(spent: Sequence[Spent]) -> list[Spent]:
    """Of several of one process the last word: it can only have taken longer."""
    found: dict[str, Spent] = {}
    for one in spent:
        key = one.id or json.dumps(asdict(one))
        if key not in found or one.wall_s > found[key].wall_s:
            found[key] = one
    return list(found.values())


def read(manifest: Mapping[str, Any], folder: Path) -> list[Spent]:
    """What runs of the folder have taken so far. ConfigError where its manifest is damaged."""
    with naming_the_manifest(folder):
        return list(settings_from(_Kept, {"spent": manifest.get("spent", [])}).spent)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    spent: tuple[Spent, ...]


def keep_judged(folder: Path, wall_s: float) -> None:
    """Add what judging took."""
    keep(
        folder,
        Spent(
            by="judge",
            wall_s=wall_s,
            workers=1,
            rollouts=0,
            seconds={"judge": wall_s},
            id=uuid.uuid4().hex,
        ),
    )
