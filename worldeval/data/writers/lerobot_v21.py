"""LeRobotDataset v2.1: a parquet file and a film per view for each episode, JSON lines about them.

Read by lerobot up to 0.3.3, by openpi and by GR00T.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from worldeval.data.writers.lerobot import Written, plain, write_text
from worldeval.data.writers.lerobot_rows import RowForm

_PER_CHUNK = 1000
_STATISTICS = ("min", "max", "mean", "std", "count")


class WriterV21:
    """Writes episodes as they come."""

    def __init__(self, folder: Path, form: RowForm) -> None:
        self.folder, self.form = folder, form
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, Any]] = []

    def add(self, episode: Written) -> None:
        """See ``lerobot.Writer``."""
        chunk = f"chunk-{episode.index // _PER_CHUNK:03d}"
        name = f"episode_{episode.index:06d}"
        path = self.folder / "data" / chunk / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.form.table(episode.values), path)
        for view, film in zip(self.form.views, episode.films, strict=True):
            target = self.folder / "videos" / chunk / view / f"{name}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(film, target)
        self._episodes.append(
            {
                "episode_index": episode.index,
                "tasks": [episode.instruction],
                "length": episode.length,
                **episode.provenance,
            }
        )
        stats = {
            feature: plain({name: values[name] for name in _STATISTICS})
            for feature, values in episode.stats.items()
        }
        self._stats.append({"episode_index": episode.index, "stats": stats})

    def finish(self, tasks: Sequence[str]) -> dict[str, Any]:
        """See ``lerobot.Writer``."""
        meta = self.folder / "meta"
        write_text(meta / "episodes.jsonl", self._episodes)
        write_text(meta / "episodes_stats.jsonl", self._stats)
        write_text(
            meta / "tasks.jsonl",
            [{"task_index": number, "task": task} for number, task in enumerate(tasks)],
        )
        count = len(self._episodes)
        return {
            "total_videos": count * len(self.form.views),
            "total_chunks": (count - 1) // _PER_CHUNK + 1,
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": (
                "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
            ),
        }
