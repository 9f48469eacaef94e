"""A quick look at a world model in training: replay a few held-out episodes and compare.

In: a model with its autoencoder and a validation store. Out: PSNR per view against the repeated
first frame, and a video of imagined (top) beside true (bottom). The full fidelity report is
``imagination/replay.py``; this one has to cost seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import tile_views, to_model, write_mp4
from worldeval.errors import DataError
from worldeval.metrics.fidelity import ssim
from worldeval.metrics.psnr import psnr_of_mse
from worldeval.world_model.latent_rollout import FrameRollouts

MOST_DB = 10 * np.log10(4 / 1e-5)
"""What an exact frame counts in a mean."""

if TYPE_CHECKING:
    from worldeval.metrics.learned import Lpips


def replay_quality(
    frame_rollouts: FrameRollouts,
    store: EpisodeStore,
    *,
    episodes: int = 8,
    chunks: int | None = None,
    with_ssim: bool = False,
    lpips: Lpips | None = None,
    video: Path | None = None,
) -> dict[str, Any]:
    """PSNR in dB per view of autoregressive replays, model and repeated first frame.

    chunks: how far at most; None as far as the shortest episode goes. with_ssim, lpips:
    that too.
    """
    picked = [
        store.episode(int(i))
        for i in np.unique(np.linspace(0, len(store) - 1, min(episodes, len(store))).astype(int))
    ]
    config = frame_rollouts.model.config
    future = config.future
    longest = min((e.length - 1) // future for e in picked)
    chunks = longest if chunks is None else min(chunks, longest)
    if chunks < 1:
        raise DataError(
            f"{store.root} has an episode of {min(e.length for e in picked)} frames, a replay "
            f"needs more than {future}; leave short episodes out of it"
        )
    true = np.stack([e.frames[: chunks * future + 1] for e in picked])
    poses = np.stack([e.poses[: chunks * future + 1] for e in picked])
    texts = [e.instruction for e in picked]
    frame_rollouts.reset(true[:, 0], poses[:, 0], range(len(picked)), texts)
    rows = range(len(picked))
    parts = [
        frame_rollouts.step(poses[:, 1 + k * future : 1 + (k + 1) * future], rows)[0]
        for k in range(chunks)
    ]
    imagined = np.concatenate(parts, axis=1)
    still = np.broadcast_to(true[:, :1], imagined.shape)
    result: dict[str, Any] = {}
    for i, view in enumerate(config.views):
        result[f"psnr_{view}"] = _psnr(imagined[:, :, i], true[:, 1:, i])
        result[f"psnr_first_{view}"] = _psnr(still[:, :, i], true[:, 1:, i])
        if with_ssim:
            result[f"ssim_{view}"] = ssim(true[:, 1:, i], imagined[:, :, i])
            result[f"ssim_first_{view}"] = ssim(true[:, 1:, i], still[:, :, i])
        if lpips is not None:
            pair = [to_model(x[:, :, i]) for x in (true[:, 1:], imagined)]
            images = [torch.from_numpy(x).flatten(0, 1) for x in pair]
            result[f"lpips_{view}"] = float(lpips(*images).mean())
    if video is not None:
        above = np.concatenate(list(tile_views(imagined[k]) for k in range(min(4, len(picked)))), 2)
        below = np.concatenate(
            list(tile_views(true[k, 1:]) for k in range(min(4, len(picked)))), axis=2
        )
        write_mp4(video, np.concatenate([above, below], axis=1), fps=10)
    return result


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over frames of the PSNR in dB of uint8 frames (..., H, W, C)."""
    error = ((to_model(a) - to_model(b)) ** 2).mean(axis=(-3, -2, -1))
    return float(np.mean(psnr_of_mse(error, peak=2, most=MOST_DB)))
