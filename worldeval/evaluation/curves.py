"""What is known of one rollout over its frames: for exports that show it on a clock.

Enters: a folder of rollouts and a key. Leaves: the judge's probability, progress and trust as
curves, events, and a few lines of Markdown. What was not measured is absent, with a note how to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import read_parquet
from worldeval.data.writers.rerun import Curve
from worldeval.errors import ConfigError, DataError
from worldeval.evaluation.folder import TRUST, VERDICTS, read_verdicts
from worldeval.evaluation.opening import stores_in
from worldeval.evaluation.trust import CHUNKS
from worldeval.registry import did_you_mean

if TYPE_CHECKING:
    from worldeval.judging.learned import LearnedJudge
    from worldeval.judging.progress import ProgressJudge
    from worldeval.types import Episode


@dataclass(frozen=True, kw_only=True)
class Known:
    """curves: path -> numbers. events: frame and words. notes: what is missing, a sentence each."""

    curves: dict[str, Curve]
    events: list[tuple[float, str]]
    about: str
    notes: list[str]


def find_rollout(folder: Path, key: str) -> EpisodeStore:
    """The store in ``folder``, an evaluation or a store, that has the rollout ``key``."""
    keys: list[str] = []
    for place in stores_in(folder):
        store = EpisodeStore.open(place)
        if key in store:
            return store
        keys += sorted(store.keys)
    raise DataError(
        f"{folder} has no rollout {key!r:.200}{did_you_mean(key, keys)}; it has {len(keys)}"
        + (f", such as {keys[0]!r}" if keys else "")
    )


def known_of(
    store: EpisodeStore,
    episode: Episode,
    *,
    judge: LearnedJudge | None = None,
    progress: ProgressJudge | None = None,
) -> Known:
    """All that the store's folder and the judges given tell of a rollout of ``store``."""
    curves: dict[str, Curve] = {}
    events: list[tuple[float, str]] = []
    notes: list[str] = []
    facts = store.facts(store.index_of(episode.key))
    starts = _chunk_starts(facts, store.layout.steps_per_frame)
    events += [(frame, f"chunk {n + 1} begins") for n, frame in enumerate(starts)]
    told = {n: facts.get(n) for n in ("key", "policy", "task", "instruction", "world", "seed")}
    told |= {name: facts[name] for name in ("success",) if facts.get(name) is not None}

    verdict = _row(store.root / VERDICTS, episode.key, judged=True)
    if verdict is not None:
        told |= {n: verdict.get(n) for n in ("judge", "outcome", "probability", "reason")}
        frames = [int(n) for n in str(verdict.get("frames", "")).split()]
        if judge is None and frames and _number(verdict.get("probability")) is not None:
            # One number for the whole rollout: it is known when the last frame was looked at.
            curves["judge/probability"] = Curve([frames[-1]], [float(verdict["probability"])])
            notes.append("the judge's probability is that of the whole rollout; --judge gives one "
                         "for every frame")  # fmt: skip
    elif judge is None:
        notes.append(f"not judged; run `worldeval judge {store.root}`, or give --judge")
    if judge is not None:
        times, probabilities = judge.probability_until(episode)
        curves["judge/probability"] = Curve(times.tolist(), probabilities.tolist())
        told["judge of the curve"] = judge.name
    if progress is not None:
        curves["progress/progress"] = Curve(range(episode.length), progress.progress(episode))
    else:
        notes.append("no progress; give --progress, such as checkpoints/progress")

    trust = _row(store.root / TRUST, episode.key)
    if trust is not None:
        told |= {name: trust.get(name) for name in ("distrust", "trusted")}
    signals = _trust_curves(store.root / CHUNKS, episode.key, starts)
    if not signals:
        notes.append(f"no trust; `worldeval trust {store.root}` measures it")
    lines = [f"- **{name}**: {_escaped(value)}" for name, value in told.items() if _said(value)]
    return Known(curves={**curves, **signals}, events=events, about="\n".join(lines), notes=notes)


def learned(judge: Any, option: str) -> LearnedJudge:
    """``judge`` if it can tell a probability frame by frame. ConfigError if not."""
    from worldeval.judging.learned import LearnedJudge

    if not isinstance(judge, LearnedJudge):
        raise ConfigError(
            f"{option} names a judge that gives one verdict for a rollout, expected the checkpoint "
            "of a trained one, such as checkpoints/judge; leave it out to keep the verdict"
        )
    return judge


def _chunk_starts(facts: dict[str, Any], steps_per_frame: int) -> list[float]:
    """Frame at which each chunk begins, as far as the log of the rollout can be read."""
    try:
        chunks = json.loads(facts.get("chunks") or "[]")
        steps = [float(chunk["step"]) for chunk in chunks]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return [s / steps_per_frame for s in steps] if np.isfinite(steps).all() else []


def _row(path: Path, key: str, *, judged: bool = False) -> dict[str, Any] | None:
    """A rollout's row of a table beside the store; None where there is none."""
    if not path.is_file():
        return None
    table = read_verdicts(path.parent) if judged else read_parquet(path)
    rows = table[table["key"] == key].to_dict("records")
    return {str(name): value for name, value in rows[0].items()} if rows else None


def _trust_curves(path: Path, key: str, starts: list[float]) -> dict[str, Curve]:
    if not path.is_file():
        return {}
    table = read_parquet(path)
    table = table[(table["key"] == key) & (table["chunk"] < len(starts))].sort_values("chunk")
    at = [starts[int(number)] for number in table["chunk"]]
    names = [name for name in table.columns if name not in ("key", "chunk")]
    return {f"trust/{name}": Curve(at, table[name].tolist()) for name in names if len(at)}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _said(value: Any) -> bool:
    return value is not None and value == value and value != ""


def _escaped(value: Any) -> str:
    """Text of policies and instructions stays text in Markdown."""
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#|!" else c for c in text)
