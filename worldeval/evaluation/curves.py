"""What is known of one rollout over its frames: for whoever shows it on a clock.

Enters: a store of rollouts and an episode of it. Leaves: the judge's probability, progress and
trust as curves, events, and a few lines of Markdown. What was not measured is absent, with a note
how to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import read_parquet
from worldeval.data.writers.rerun import Curve
from worldeval.errors import ConfigError, DataError
from worldeval.evaluation.folder import TRUST, VERDICTS, read_verdicts
from worldeval.evaluation.opening import stores_in
from worldeval.evaluation.trust import CHUNKS
from worldeval.registry import did_you_mean
from worldeval.types import Episode, Judge, Outcome

if TYPE_CHECKING:
    from worldeval.judging.learned import LearnedJudge

PROBABILITY, PROGRESS = "judge/probability", "progress/progress"
"""Paths of curves."""
_ENDING = {
    Outcome.SUCCESS: "a success if it ended here",
    Outcome.FAILURE: "a failure if it ended here",
    Outcome.UNDECIDED: "undecided if it ended here",
}


class Event(NamedTuple):
    """frame: not always whole. kind: "chunk", or "judge" where its verdict would be another one."""

    frame: float
    text: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Known:
    """curves: path, such as "judge/probability" or "trust/blur" -> numbers over frames. about:
    Markdown. notes: what is missing, or to be known of a curve, a sentence each."""

    curves: dict[str, Curve]
    events: list[Event]
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


def rollout_curves(
    store: EpisodeStore,
    episode: Episode,
    *,
    judge: Judge | None = None,
    progress: Judge | None = None,
) -> Known:
    """All that the folder of ``store`` and the judges given tell of ``episode``, a rollout of it.

    judge: of whom every frame's probability of success is asked, as if the rollout had ended there;
    if None, the verdict beside the rollouts is told, which is one number. progress: a judge of
    progress, asked at every frame. Raises ConfigError for judges that give one verdict for a
    rollout, MismatchError for an episode of which they know nothing.
    """
    curves: dict[str, Curve] = {}
    events: list[Event] = []
    notes: list[str] = []
    facts = store.facts(store.index_of(episode.key))
    starts = _chunk_starts(facts, store.layout.steps_per_frame)
    events += [Event(frame, f"chunk {n + 1} begins", "chunk") for n, frame in enumerate(starts)]
    told = {n: facts.get(n) for n in ("key", "policy", "task", "instruction", "world", "seed")}
    told |= {name: facts[name] for name in ("success",) if facts.get(name) is not None}

    verdict = _row(store.root / VERDICTS, episode.key, judged=True)
    if verdict is not None:
        told |= {n: verdict.get(n) for n in ("judge", "outcome", "probability", "reason")}
        frames = [int(n) for n in str(verdict.get("frames", "")).split()]
        if judge is None and frames and _number(verdict.get("probability")) is not None:
            # One number for the whole rollout: it is known when the last frame was looked at.
            curves[PROBABILITY] = Curve([frames[-1]], [float(verdict["probability"])])
            notes.append("the judge's probability is that of the whole rollout; --judge gives one "
                         "for every frame")  # fmt: skip
    elif judge is None:
        notes.append(f"not judged; run `worldeval judge {store.root}`, or give --judge")
    if judge is not None:
        looking = learned(judge, "judge")
        times, probabilities = looking.probability_until(episode)
        curves[PROBABILITY] = Curve(times.tolist(), probabilities.tolist())
        events += _turns(looking, times, probabilities)
        told["judge of the curve"] = judge.name
        if verdict is not None and verdict.get("judge") != judge.name:
            notes.append(f"the curve of the probability is that of {judge.name}, the verdict that "
                         f"of {verdict.get('judge')}")  # fmt: skip
    if progress is not None:
        curves[PROGRESS] = Curve(range(episode.length), _progress(progress, episode))
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


def _turns(judge: LearnedJudge, times: np.ndarray, probabilities: np.ndarray) -> list[Event]:
    """Where the verdict would become another one, were the rollout over. At first it is none, which
    counts as a failure."""
    events, before = [], Outcome.FAILURE
    for frame, probability in zip(times.tolist(), probabilities.tolist(), strict=True):
        now = judge.calibration.outcome(probability)
        if now != before:
            text = f"the judge's probability is {probability:.2f} now: {_ENDING[now]}"
            events.append(Event(frame, text, "judge"))
        before = now
    return events


def _progress(judge: Judge, episode: Episode) -> np.ndarray:
    from worldeval.judging.progress import ProgressJudge

    if not isinstance(judge, ProgressJudge):
        raise ConfigError(
            f"progress is a {type(judge).__name__}, expected a judge of progress, such as "
            "checkpoints/progress, which `worldeval train progress` makes"
        )
    return judge.progress(episode)


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
