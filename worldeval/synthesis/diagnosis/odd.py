"""Which episodes of a dataset are odd: much longer or shorter than others, jerky, standing still.

Enters: a table of episodes and the path of each. Leaves: three numbers per episode, and a sentence
for each that stands out. ``find_odd`` is pure; ``odd_episodes`` reads what it needs from a store.
No film is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.synthesis.measuring import paths_of
from worldeval.synthesis.tables import KEY, TASK

if TYPE_CHECKING:
    import pandas as pd

LENGTH, JERK, STILL, FLAGS = "length", "jerk", "still", "flags"
LEAST_OTHERS = 5
"""A task with fewer episodes has no usual length or jerk: nothing in it stands out."""
FENCE = 1.5
"""Interquartile ranges beyond the quartiles at which a value stands out (Tukey)."""
LEAST_LONGER, LEAST_JERKIER = 1.25, 2.0
"""And so many times the median of its task at least: where all are alike, a little is not odd."""
MOVES = 0.002
"""Share of the robot's range; a hand that stays so near to where it was stands still."""
MOST_STILL = 0.5
"""Share of an episode; a longer standstill in one piece stands out."""


def odd_episodes(store: EpisodeStore | str | Path) -> pd.DataFrame:
    """``find_odd`` for all episodes of a store, or of the one at a path. The gripper is left out of
    the paths: it opens and closes at once by its nature."""
    opened = store if isinstance(store, EpisodeStore) else EpisodeStore.open(store)
    moving = [i for i, name in enumerate(opened.layout.pose_names) if "gripper" not in name]
    paths = {key: path[:, moving] for key, path in paths_of(opened).items()}
    return find_odd(opened.metadata(), paths, fps=opened.layout.fps)


def find_odd(
    episodes: pd.DataFrame, paths: Mapping[str, np.ndarray], *, fps: float
) -> pd.DataFrame:
    """One row per episode, in the order given: key, task, length, jerk, still, flags.

    episodes: columns key, task. paths: key -> poses (T, P) in shares of the robot's range, at
    ``fps`` frames per second. length: T, in frames. jerk: root mean square of the third derivative
    of the path, in ranges per s^3; NaN with fewer than 4 frames. still: the longest standstill, as
    a share of the episode. flags: what stands out against the other episodes of the task, a
    sentence each with "; " between them; "" if nothing does.
    """
    import pandas as pd

    keys = [str(key) for key in episodes[KEY]]
    found = pd.DataFrame(
        {
            KEY: keys,
            TASK: [str(task) for task in episodes[TASK]],
            LENGTH: [len(paths[key]) for key in keys],
            JERK: [jerk(paths[key], fps) for key in keys],
            STILL: [standstill(paths[key]) for key in keys],
        }
    )
    told: dict[int, list[str]] = {row: [] for row in range(len(found))}
    for task, rows in found.groupby(TASK, sort=False):
        lengths, jerks = rows[LENGTH].to_numpy(float), rows[JERK].to_numpy(float)
        for row, value, usual in _beyond(rows.index.to_numpy(), lengths, LEAST_LONGER, both=True):
            word = "long" if value > usual else "short"
            told[row].append(f"{word}: {value:.0f} frames, {usual:g} are usual for {task}")
        for row, value, usual in _beyond(rows.index.to_numpy(), jerks, LEAST_JERKIER, both=False):
            times = f"{value / usual:.1f} times the jerk" if usual > 0 else "jerk without parallel"
            told[row].append(f"jerky: {times} that is usual for {task}")
    for row, share in enumerate(found[STILL]):
        if share > MOST_STILL:
            told[row].append(f"standing still for {100 * share:.0f} % of it in one piece")
    found[FLAGS] = ["; ".join(told[row]) for row in range(len(found))]
    return found


def jerk(path: np.ndarray, fps: float) -> float:
    """Root mean square of the third derivative of a path (T, P), in its unit per s^3."""
    third = np.diff(np.asarray(path, np.float64), n=3, axis=0) * fps**3
    return float(np.sqrt((third**2).sum(axis=1).mean())) if len(third) else float("nan")


def standstill(path: np.ndarray) -> float:
    """The longest run of steps of a path (T, P) that stay within ``MOVES`` of where the run began,
    as a share of all steps; 0 for a path without steps."""
    values = np.asarray(path, np.float64)
    longest = begin = 0
    for end in range(1, len(values)):
        while np.abs(values[begin:end] - values[end]).max() > MOVES:
            begin += 1
            if begin == end:
                break
        longest = max(longest, end - begin)
    return longest / (len(values) - 1) if len(values) > 1 else 0.0


def _beyond(
    rows: np.ndarray, values: np.ndarray, times: float, *, both: bool
) -> list[tuple[int, float, float]]:
    """(row, value, median) of those far beyond the others, upwards or, with ``both``, also down."""
    known = values[np.isfinite(values)]
    if len(known) < LEAST_OTHERS:
        return []
    low, median, high = (float(x) for x in np.quantile(known, (0.25, 0.5, 0.75)))
    reach = FENCE * (high - low)
    found = []
    for row, value in zip(rows, values, strict=True):
        above = value > max(high + reach, times * median)
        below = both and value < min(low - reach, median / times)
        if above or below:
            found.append((int(row), float(value), median))
    return found
