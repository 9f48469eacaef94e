"""What a world model makes of its own frames, in latents alone: to learn from, and to stop by.

In: a model, episodes with their latents, and where to begin. Out: imagined latents; a table of them
that stands for what was seen while training, so that the model learns to lead its own drift back
(as DAgger does for policies, arXiv 1011.0686); and by how many dB a replay is nearer the truth than
its first frame is. Nothing is decoded, so this costs a small part of a replay in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from worldeval.data.atomic import write_array
from worldeval.errors import DataError
from worldeval.learning.loop import Loop
from worldeval.world_model.clips import ClipSource, FrameTable
from worldeval.world_model.latent_rollout import LatentRollouts
from worldeval.world_model.model import WorldModel

FRAMES = 32
"""How far own replays go before they set out from a true frame again."""
TRUSTS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.1)
STILL = 0.005
"""Squared error added to both sides of a quotient in dB: what latents of a still scene differ by
anyway, for H.264."""


def starts_of(table: FrameTable, frames: int, every: int) -> np.ndarray:
    """(N, 2) episode and frame of all replays of ``frames`` frames that fit, ``every`` apart."""
    rows = [
        (episode, start)
        for episode, length in enumerate(table.lengths)
        for start in range(0, int(length) - frames, every)
    ]
    if not rows:
        raise DataError(
            f"no episode is long enough for a replay of {frames} frames, the longest has "
            f"{int(table.lengths.max())}; replay fewer chunks or hold out longer episodes"
        )
    return np.asarray(rows, np.int64)


def replay_latents(
    model: WorldModel,
    table: FrameTable,
    latents: np.ndarray,
    starts: np.ndarray,
    chunks: int,
    seed: int = 0,
) -> np.ndarray:
    """Autoregressive replays from ``starts`` (N, 2): (N, chunks*F + 1, V, C, h, w) float32.

    Where an episode ends earlier its last pose is held.
    """
    future, every = model.config.future, range(len(starts))
    rows = rows_of(table, starts, chunks * future + 1)
    poses = table.poses[rows]  # (N, T+1, P)
    first = torch.from_numpy(latents[rows[:, 0]].astype(np.float32))
    rollouts = LatentRollouts(model, device=next(model.parameters()).device)
    rollouts.begin(every, first, poses[:, 0], [seed + i for i in every])
    seen = [first[:, None]]
    for now in range(1, chunks * future, future):
        ahead = poses[:, now : now + future]
        imagined, _ = rollouts.imagine(ahead, every)
        rollouts.remember(imagined, ahead, every)
        seen.append(imagined.float().cpu())
    return torch.cat(seen, dim=1).numpy()


def own_replays(
    model: WorldModel, table: FrameTable, latents: np.ndarray, frames: int, seed: int
) -> dict[int, np.ndarray]:
    """Episode -> its latents (T+1, V, C, h, w) with all but one frame in ``frames`` imagined.

    The frames from which replays set out lie elsewhere with another seed.
    """
    future = model.config.future
    chunks = -(-frames // future)
    offset = int(np.random.default_rng(seed).integers(frames))
    legs = np.asarray(  # episode and first frame; that of an episode's first leg is before it
        [
            (episode, start)
            for episode, length in enumerate(table.lengths)
            for start in range(-offset, int(length) - 1, frames)
        ]
    )
    replays = replay_latents(model, table, latents, np.maximum(legs, 0), chunks, seed)
    own = {
        e: latents[table.first[e] : table.first[e + 1]].copy() for e in range(len(table.lengths))
    }
    for (episode, start), replay in zip(legs, replays, strict=True):
        here = own[int(episode)][max(start, 0) + 1 : start + frames]
        here[:] = replay[1 : 1 + len(here)]
    return own


class OwnReplays:
    """Keeps what was seen in training replaced by replays of the averaged weights, made anew
    every so many steps. They are files beside the state, so a killed run goes on as it would."""

    def __init__(self, model: WorldModel, source: ClipSource, loop: Loop, every: int) -> None:
        """every: 0 for never."""
        self.model, self.source, self.loop, self.every = model, source, loop, every
        self._made = 0

    def refresh(self, step: int) -> None:
        """Call before each step is drawn."""
        due = step // self.every * self.every if self.every else 0
        if due == self._made:
            return
        path = self._path(due)
        if not path.is_file() and self.loop.is_main:
            self._make(path, due)
        self.loop.accelerator.wait_for_everyone()
        table, replays = self.source.table, np.load(path)
        self.source.alternative = {
            e: replays[table.first[e] : table.first[e + 1]] for e in range(len(table.lengths))
        }
        self._made = due
        self.loop.save()  # no state may be older than the replays before these
        self._path(due - 2 * self.every).unlink(missing_ok=True)

    def _make(self, path: Path, step: int) -> None:
        with self.loop.averaged_weights(), self.loop.accelerator.autocast():
            own = own_replays(self.model, self.source.table, self.source.latents, FRAMES, step)
        replays = np.concatenate([own[e] for e in sorted(own)]).astype(np.float16)
        write_array(path, replays)

    def _path(self, step: int) -> Path:
        return self.loop.folder / f"replays-{step:07d}.npy"


def measure_trust(
    model: WorldModel, table: FrameTable, latents: np.ndarray, exchangeable: Sequence[int] = ()
) -> tuple[tuple[float, ...], dict[str, float]]:
    """The ``trust`` of each view with which replays are nearest, and the gain in dB with it.

    exchangeable: views that differ in nothing; they get one trust, the best for their mean.
    """
    before = model.config
    try:
        gains = []
        for trust in TRUSTS:
            model.config = replace(before, trust=(trust,) * len(before.views))
            gains.append(replay_gain(model, table, latents))
    finally:
        model.config = before
    measured = np.stack(gains)  # (trusts, V)
    shared = measured.copy()
    if exchangeable:
        shared[:, list(exchangeable)] = measured[:, list(exchangeable)].mean(axis=1, keepdims=True)
    best = shared.argmax(axis=0)
    chosen = tuple(TRUSTS[i] for i in best)
    gain = measured[best, np.arange(len(best))]
    row = {f"trust_{v}": t for v, t in zip(before.views, chosen, strict=True)}
    row |= {f"gain_db_{v}": float(g) for v, g in zip(before.views, gain, strict=True)}
    return chosen, row | {"gain_db": float(gain.mean())}


def replay_gain(
    model: WorldModel,
    table: FrameTable,
    latents: np.ndarray,
    chunks: int = 8,
    every: int = 2,
) -> np.ndarray:
    """How much nearer replays come to the truth than their first frame, in dB, (V,).

    Mean over replays and chunks of 10 log10 of the quotient of squared errors of latents.
    """
    c = model.config
    starts = starts_of(table, chunks * c.future, every)
    true = latents[rows_of(table, starts, chunks * c.future + 1)].astype(np.float32)
    imagined = replay_latents(model, table, latents, starts, chunks)

    def error(guess: np.ndarray) -> np.ndarray:
        """(N, chunks, V)"""
        error = ((guess - true[:, 1:]) ** 2).mean(axis=(-3, -2, -1))
        return error.reshape(len(starts), chunks, c.future, -1).mean(axis=2) + STILL

    gain: np.ndarray = 10 * np.log10(error(true[:, :1]) / error(imagined[:, 1:]))
    return gain.mean(axis=(0, 1))


def rows_of(table: FrameTable, starts: np.ndarray, frames: int) -> np.ndarray:
    """(N, frames) rows of the table from ``starts`` on, the last of an episode repeated."""
    within = starts[:, 1:] + np.arange(frames)
    return table.first[starts[:, :1]] + np.minimum(within, table.lengths[starts[:, :1]] - 1)
