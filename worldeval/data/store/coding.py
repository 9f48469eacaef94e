"""Frames of an episode coded beside the store by a worker, for the one writer to move into it.

Enters: frames of all views. Leaves: an mp4 per view and their statistics. Coding takes ten times as
long as all else that is done for an episode, so it is what must not be left to one process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from worldeval.data.atomic import write_atomically
from worldeval.data.store import statistics
from worldeval.data.video import write_mp4


@dataclass(frozen=True, kw_only=True)
class CodedViews:
    """files: one mp4 per view, in the order of the views. statistics: of each view's frames."""

    files: tuple[Path, ...]
    statistics: tuple[dict[str, np.ndarray], ...]


def code_views(frames: np.ndarray, fps: float, folder: Path) -> CodedViews:
    """Code frames (T, V, H, W, 3) as ``EpisodeStore`` would; ``folder/0.mp4`` is the first view."""
    files = tuple(folder / f"{view}.mp4" for view in range(frames.shape[1]))
    for view, path in enumerate(files):
        write_atomically(path, partial(write_mp4, frames=frames[:, view], fps=fps), sync=False)
    return CodedViews(
        files=files,
        statistics=tuple(statistics.of_frames(frames[:, view]) for view in range(len(files))),
    )
