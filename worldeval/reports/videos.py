"""Videos of rollouts for people: enlarged, all views in a row, imagined above true.

Enters: stores of imagined rollouts and their verdicts, and the shipped clips of what truly
happened. Leaves: mp4 files, and what a report shows of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldeval import shipped
from worldeval.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.reports.ranking.clips import Clip

ENLARGE = 3
"""Videos for people are so many times larger than what the models see."""


def make_clips(
    stores: Sequence[Path],
    imagined: pd.DataFrame,
    against: pd.DataFrame | None,
    folder: Path,
    *,
    recorded: Collection[str] = (),
) -> list[Clip]:
    """Videos of the best and the worst rollouts: imagined, true, and one beside the other.

    stores: where the rollouts lie. imagined, against: verdict tables, of the truth the second.
    recorded: policies whose true rollouts are among the shipped clips of what truly happened.
    """
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.data.video import write_mp4
    from worldeval.reports.ranking.clips import Clip, choose_rollouts
    from worldeval.rollout.recording import rollout_key

    opened = [EpisodeStore.open(place) for place in stores]
    place = shipped.folder() / shipped.TRUTH_CLIPS
    true = EpisodeStore.open(place) if recorded and place.is_dir() else None
    if true is not None and against is not None:  # show what can be shown beside the truth
        filmed = imagined["key"].isin(true.keys) & imagined["policy"].isin(list(recorded))
        shown = filmed | ~imagined["policy"].isin(set(against["policy"]))
        imagined = imagined[shown] if shown.any() else imagined
    chosen_ones = choose_rollouts(imagined, against, per_group=6)
    if not chosen_ones:
        return []
    _make_folder(folder)
    clips = []
    for number, chosen in enumerate(chosen_ones, start=1):
        key = rollout_key(chosen.policy, chosen.start_id)
        store = next(one for one in opened if key in one)
        name = re.sub(r"[^A-Za-z0-9.=-]", "_", f"{number:02d}-{key}")
        imagined = tiled(store.by_key(key).frames)
        path = folder / f"{name}-imagined.mp4"
        write_mp4(path, imagined, store.layout.fps)
        true_path = None
        if true is not None and chosen.policy in recorded and key in true:
            fact = tiled(true.by_key(key).frames)
            true_path = folder / f"{name}-true.mp4"
            write_mp4(true_path, fact, store.layout.fps)
            write_mp4(folder / f"{name}.mp4", beside(imagined, fact), store.layout.fps)
        clips.append(
            Clip(
                group=chosen.group,
                policy=chosen.policy,
                task=chosen.task,
                imagined=path,
                imagined_outcome=chosen.imagined_outcome,
                true=true_path,
                true_outcome=chosen.true_outcome,
                probability=chosen.probability,
                start_id=chosen.start_id,
            )
        )
    return clips


def tiled(frames: np.ndarray) -> np.ndarray:
    """(T, V, H, W, 3) to (T, H', V * W', 3): the views in a row, enlarged without blurring."""
    from worldeval.data.video import tile_views

    return tile_views(frames).repeat(ENLARGE, axis=1).repeat(ENLARGE, axis=2)


def beside(imagined: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Imagined above true, (T, 2 H + gap, W, 3); the shorter one stands still at its end."""
    length = max(len(imagined), len(true))
    above, below = (
        np.concatenate([video, video[-1:].repeat(length - len(video), axis=0)])
        for video in (imagined, true)
    )
    gap = np.full((length, 4, above.shape[2], 3), 255, np.uint8)
    return np.concatenate([above, gap, below], axis=1)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {folder}: {error.strerror or error}; choose another --out"
        ) from error
