"""The distance behind the flag of success, as worlds that know it log it with an episode."""

from __future__ import annotations

import json

import numpy as np

from worldeval.types import Episode


def distances_of(episode: Episode) -> tuple[np.ndarray, float]:
    """(T+1,) float32 metres to the goal of every frame, NaN where not measured, and within how many
    metres it counts as reached.

    Recordings keep the distance of every frame, rollouts that of every chunk's frames in its log.
    """
    extra = episode.extra
    distances = np.full(episode.length, np.nan, np.float32)
    if extra.get("goal_distance_m") is not None:
        distances[:] = np.asarray(extra["goal_distance_m"], np.float32)  # None: not measured
        return distances, float(extra["success_distance_m"])
    first, limit = 1, 1.0
    for chunk in json.loads(extra.get("chunks") or "[]"):
        measured = np.asarray(chunk.get("goal_distance_m") or [], np.float32)
        if len(measured):
            distances[first : first + len(measured)] = measured
            first, limit = first + len(measured), float(chunk["success_distance_m"])
    return distances, limit
