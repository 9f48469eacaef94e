"""Percentiles of the poses of a store, and how many poses a model would see clipped by others.

Enters: a store and the bounds with which a model normalises. Leaves: ``statistics.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from worldeval.data.atomic import write_atomically
from worldeval.data.files import read_json, regular_file
from worldeval.data.readers.ctrl_world import PoseBounds
from worldeval.data.store.layout import STATE
from worldeval.data.store.reading import StoredEpisodes

STATISTICS = "statistics.json"
MUCH_CLIPPED = 0.2
"""Share of clipped frames above which a user should know: of seven values within their 1st and
99th percentiles, at least one is outside in up to 14 % of the frames."""


def measure(store: StoredEpisodes, bounds: PoseBounds) -> dict[str, Any]:
    """Percentiles of all poses of a store, written to its ``statistics.json``."""
    poses = _all_poses(store)
    low, high = np.percentile(poses, [1, 99], axis=0)
    beyond = outside(poses, bounds)
    content = {
        "pose_names": list(store.layout.pose_names),
        "episodes": len(store),
        "frames": len(poses),
        "pose_p01": low.tolist(),
        "pose_p99": high.tolist(),
        "bounds": {"low": bounds.low.tolist(), "high": bounds.high.tolist()},
        "share_outside_bounds": beyond.mean(axis=0).tolist(),
        "share_of_frames_clipped": float(beyond.any(axis=1).mean()),
    }
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(store.root / STATISTICS, partial(_write_text, text))
    return content


def clipped(store: StoredEpisodes) -> list[str]:
    """Sentences about poses outside the percentiles, of which a model would see the bound only."""
    facts = read_json(store.root / STATISTICS, "statistics")
    share, sentences = facts["share_of_frames_clipped"], []
    if share > MUCH_CLIPPED:
        parts = zip(facts["pose_names"], facts["share_outside_bounds"], strict=True)
        worst, most = max(parts, key=lambda part: part[1])
        sentences.append(
            f"{share:.0%} of the frames have poses outside the percentiles by which they are "
            f"normalised, most often {worst} ({most:.0%}); a model would see them clipped, so "
            f"train with pose_p01 and pose_p99 of {STATISTICS} instead"
        )
    table = store.metadata()
    if "share_clipped" in table:
        far = table[table["share_clipped"] > 2 * MUCH_CLIPPED].sort_values("share_clipped")
        sentences += [
            f"episode {row.key}: {row.share_clipped:.0%} of its frames are clipped"
            for row in far.iloc[::-1][:5].itertuples()
        ]
        if len(far) > 5:
            sentences.append(f"... and {len(far) - 5} other episodes like these")
    return sentences


def outside(poses: np.ndarray, bounds: PoseBounds) -> np.ndarray:
    """(T, 7) bool. A thousandth of the range is the rounding of the percentiles, not a distance."""
    slack = 1e-3 * (bounds.high - bounds.low)
    return (poses < bounds.low - slack) | (poses > bounds.high + slack)


def _all_poses(store: StoredEpisodes) -> np.ndarray:
    """(N, 7), a column of each data file: fast where thousands of episodes share one."""
    return np.concatenate(list(_pose_columns(store)))


def _pose_columns(store: StoredEpisodes) -> Iterator[np.ndarray]:
    for path in sorted((store.root / "data").glob("chunk-*/file-*.parquet")):
        column = pq.read_table(regular_file(path), columns=[STATE], partitioning=None).column(STATE)
        yield column.combine_chunks().flatten().to_numpy().reshape(-1, store.layout.pose_dim)


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
