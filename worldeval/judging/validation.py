"""How good a judge is on rollouts whose outcome is known, and its calibration on them.

Enters: a judge and stores with true outcomes. Leaves: one scored row per rollout, the calibration
in the judge, and a summary: counts per world, per task and for both, reliability, speed. A judge
that decides about imagined rollouts has to be calibrated on imagined ones (replays of recorded
actions with the recorded outcome): its errors there are other than on true video.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from worldeval.data.checkpoint import read_header
from worldeval.data.finite import finite
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError
from worldeval.judging.learned import LearnedJudge
from worldeval.judging.loading import load_judge
from worldeval.judging.probability import Calibration, calibrate, count, reliability
from worldeval.judging.samples import world_of


@dataclass(frozen=True, kw_only=True)
class JudgeReport:
    """Answer of ``train_judge`` and ``recalibrate``; ``summary`` is in ``validation.json`` too."""

    checkpoint: Path
    steps: int
    summary: dict[str, Any]


def score_stores(judge: LearnedJudge, stores: Sequence[EpisodeStore]) -> pd.DataFrame:
    """One row per rollout of known outcome: key, task, world, label, score, frames, seconds."""
    rows = []
    for store in stores:
        for index in range(len(store)):
            episode = store.episode(index)
            if episode.success is None:
                continue
            begin = time.perf_counter()
            score = judge.score(episode)
            rows.append(
                {
                    "key": episode.key,
                    "task": episode.task,
                    "world": world_of(episode),
                    "policy": str(episode.extra.get("policy", "")),
                    "label": bool(episode.success),
                    "score": score,
                    "frames": len(judge.frame_times(episode.length)),
                    "seconds": time.perf_counter() - begin,
                }
            )
    if not rows:
        raise DataError("no validation rollout has a known outcome; give a store that has some")
    table = pd.DataFrame(rows)
    return table[np.isfinite(table["score"])].reset_index(drop=True)


def calibrate_judge(
    judge: LearnedJudge,
    rollouts: pd.DataFrame,
    *,
    target: float = 0.95,
    max_abstention: float = 0.2,
) -> dict[str, Any]:
    """Set the judge's calibration from ``score_stores`` rows and summarise how it does.

    Every world weighs the same. The counts are cross-fitted: each half of the rollouts is judged
    with the calibration of the other, so they do not flatter; the calibration that is kept is that
    of all. Adds the columns probability and outcome to ``rollouts``.
    """
    scores, labels = rollouts["score"].to_numpy(), rollouts["label"].to_numpy(bool)
    worlds = rollouts["world"]
    weights = (1.0 / worlds.map(worlds.value_counts())).to_numpy(float)

    def fitted(chosen: np.ndarray) -> tuple[Calibration, bool]:
        return calibrate(
            scores[chosen],
            labels[chosen],
            target=target,
            max_abstention=max_abstention,
            weights=weights[chosen],
        )

    everything = np.ones(len(scores), bool)
    judge.calibration, reached = fitted(everything)
    half = rollouts["key"].map(lambda key: zlib.crc32(key.encode()) % 2 == 0).to_numpy(bool)
    crossed = all(0 < labels[side].sum() < side.sum() for side in (half, ~half))
    probability = np.zeros(len(scores))
    outcomes = np.empty(len(scores), object)
    for side in (half, ~half):
        used = fitted(~side)[0] if crossed else judge.calibration
        probability[side] = used.probability(scores[side])
        outcomes[side] = [used.outcome(p) for p in probability[side]]
    rollouts["probability"] = probability
    rollouts["outcome"] = [outcome.value for outcome in outcomes]

    def rates(mask: np.ndarray) -> dict[str, Any]:
        return count(list(outcomes[mask]), labels[mask]).to_row()

    def by(columns: list[str]) -> list[dict[str, Any]]:
        return [
            {**dict(zip(columns, name, strict=True)), **rates(rollouts.index.isin(group.index))}
            for name, group in rollouts.groupby(columns)
        ]

    table = reliability(probability, labels)
    return {
        "calibration": asdict(judge.calibration),
        "target_precision": target,
        "target_reached": reached,
        "cross_fitted": crossed,
        "overall": rates(everything),
        "worlds": by(["world"]),
        "tasks": by(["task"]),
        "worlds_tasks": by(["world", "task"]),
        "brier": table.attrs["brier"],
        "ece": table.attrs["ece"],
        "reliability": table.dropna().to_dict("records"),
        "frames_per_second": float(rollouts["frames"].sum() / max(rollouts["seconds"].sum(), 1e-9)),
    }


def recalibrate(
    folder: str | Path,
    stores: Sequence[EpisodeStore],
    *,
    target: float = 0.95,
    max_abstention: float = 0.2,
    device: str = "cpu",
) -> JudgeReport:
    """Fit only the calibration of a trained judge anew, e.g. on replays of a new world model."""
    folder = Path(folder)
    judge = load_judge(folder, device=device)
    if not isinstance(judge, LearnedJudge):
        raise DataError(f"{folder} is no learned judge; give the folder of a checkpoint")
    card = read_header(folder)["card"]
    rollouts = score_stores(judge, stores)
    summary = calibrate_judge(judge, rollouts, target=target, max_abstention=max_abstention)
    judge.save(folder, card={**card, "validation": summary})
    write_validation(folder, rollouts, summary)
    steps = card.get("training", {}).get("steps", 0)
    return JudgeReport(checkpoint=folder, steps=steps, summary=summary)


def write_validation(out: Path, rollouts: pd.DataFrame, summary: Mapping[str, Any]) -> None:
    """``validation.json`` and ``validation.parquet``; NaN becomes null."""
    rollouts.to_parquet(out / "validation.parquet", index=False)
    (out / "validation.json").write_text(json.dumps(finite(summary), indent=1) + "\n")
