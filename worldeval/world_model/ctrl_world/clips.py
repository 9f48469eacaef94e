"""What Ctrl-World at full size is trained on: clips of cached latents.

In: stores of episodes with latents beside them (``world_model/latents.py``). Out:
``LatentClips.draw``, a batch of memory, present and future with their poses and instructions.
Latents are paged in as they are used, so a data set may be larger than the main memory.

A clip is M memory frames, the present t and F new frames (arXiv 2510.10125, section 3, and the
published training data). With a skip s of 1 or 2 drawn for each clip, the new frames are t + s k
and the memory frames t - 4 s k; for 15 % of the clips all memory frames are the present. Memory
frames before the first are the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.store.reading import StoredEpisodes
from worldeval.data.windows import window_starts
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.world_model.ctrl_world.config import CtrlWorldConfig
from worldeval.world_model.latents import LatentCache
from worldeval.world_model.model import Context


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """How clips are cut from episodes."""

    skips: tuple[int, ...] = (1, 2)
    """Frames from one new frame to the next, drawn for each clip: 1 is as recorded, 2 twice as
    fast."""
    memory_stride: int = 4
    """Frames between two memory frames, times the skip."""
    still_share: float = 0.15
    """Share of clips whose memory is the present frame alone, as at the start of a rollout."""

    def __post_init__(self) -> None:
        if not self.skips or min(self.skips) < 1:
            raise ConfigError(f"skips is {self.skips}, expected one number or more, all above 0")
        if self.memory_stride < 1:
            raise ConfigError(f"memory_stride is {self.memory_stride}, expected 1 or more")
        if not 0 <= self.still_share <= 1:
            raise ConfigError(f"still_share is {self.still_share}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class LatentEpisode:
    """latents: (T+1, V, C, h, w), usually mapped into memory. poses: (T+1, P) physical."""

    key: str
    instruction: str
    latents: np.ndarray
    poses: np.ndarray


def read_episodes(
    store: StoredEpisodes, model: CtrlWorldConfig, limit: int | None = None
) -> list[LatentEpisode]:
    """All episodes of a store, with the latents that ``worldeval prepare`` put beside it.

    Raises MismatchError if the store is of another robot or the latents of another size, DataError
    if an episode has no latents.
    """
    for what, found, wanted in (
        ("robot", store.layout.robot_type, model.robot),
        ("views", store.layout.views, model.views),
        ("poses", len(store.layout.pose_names), len(model.pose_low)),
        ("frames per second", float(store.layout.fps), model.frame_hz),
    ):
        if found != wanted:
            raise MismatchError(
                f"{store.root} has {what} {found!r}, the model was made for {wanted!r}; give a "
                "store of the same robot"
            )
    cache = LatentCache(store.root, model.latents)
    table = store.metadata().head(limit) if limit else store.metadata()
    missing = cache.missing([str(key) for key in table["key"]])
    if missing:
        raise DataError(
            f"{len(missing)} of {len(table)} episodes of {store.root} have no latents "
            f"{model.latents!r}, the first is {missing[0]!r}; run `worldeval prepare` to compute "
            "them"
        )
    shape = (len(model.views), model.latent_channels, *model.latent_size)
    episodes = []
    for index, row in table.iterrows():
        poses = store.trajectory(int(index)).poses
        latents = cache.read(str(row["key"]), frames=len(poses))
        if latents.shape[1:] != shape:
            raise MismatchError(
                f"latents of {row['key']!r} in {cache.root} are {latents.shape[1:]} a frame, the "
                f"model expects {shape} (views, channels, height, width)"
            )
        episodes.append(
            LatentEpisode(
                key=str(row["key"]),
                instruction=str(row["instruction"]),
                latents=latents,
                poses=poses.astype(np.float32),
            )
        )
    return episodes


def read_stores(
    folders: Sequence[str | Path], model: CtrlWorldConfig, limit: int | None = None
) -> list[LatentEpisode]:
    """The episodes of several stores, one after the other."""
    parts = [read_episodes(EpisodeStore.open(folder), model, limit) for folder in folders]
    return [episode for part in parts for episode in part]


class LatentClips:
    """Draws clips, each frame of each episode with a whole future being equally likely."""

    def __init__(
        self,
        episodes: Sequence[LatentEpisode],
        model: CtrlWorldConfig,
        config: ClipConfig | None = None,
    ) -> None:
        """Episodes that are shorter than the present and its future are left out and counted."""
        self.episodes, self.model, self.config = episodes, model, config or ClipConfig()
        lengths = [len(episode.latents) for episode in episodes]
        self._reach = model.future * min(self.config.skips)
        self.windows = window_starts(lengths, self._reach)
        self.too_short = sum(n <= self._reach for n in lengths)

    @property
    def outside(self) -> float:
        """Share of frames of which a pose lies outside the model's range, and is clipped."""
        low, high = np.asarray(self.model.pose_low), np.asarray(self.model.pose_high)
        poses = np.concatenate([episode.poses for episode in self.episodes])
        return float(((poses < low) | (poses > high)).any(axis=1).mean())

    def frames(self, length: int, t: int, skip: int, still: bool) -> np.ndarray:
        """(M+1+F,) rows of an episode of ``length`` frames, in clip order."""
        m, f = self.model.memory_slots, self.model.future
        stride = 0 if still else self.config.memory_stride * skip
        past = t - stride * np.arange(m, 0, -1)
        return np.concatenate([past.clip(min=0), t + skip * np.arange(f + 1)])

    def draw(self, count: int, generator: torch.Generator, rows: slice) -> tuple[Context, Tensor]:
        """``rows`` of a global batch of ``count`` clips: the clean context, and the new latents
        (B, F, V, C, h, w)."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        picks = rng.integers(len(self.windows), size=count)[rows]
        skips = rng.choice(self.config.skips, size=count)[rows]
        still = (rng.random(count) < self.config.still_share)[rows]
        m = self.model.memory_slots
        latents, poses, texts = [], [], []
        for pick, skip, stands in zip(picks, skips, still, strict=True):
            number, t = (int(n) for n in self.windows[pick])
            episode = self.episodes[number]
            length = len(episode.latents)
            if t + self.model.future * skip >= length:  # too near the end for this pace
                skip = min(self.config.skips)
            frames = self.frames(length, t, int(skip), bool(stands))
            latents.append(episode.latents[frames].astype(np.float32))
            poses.append(episode.poses[frames])
            texts.append(episode.instruction)
        clips = torch.from_numpy(np.stack(latents))  # (B, M+1+F, V, C, h, w)
        context = Context(
            current=clips[:, m],
            memory=clips[:, :m],
            valid=torch.ones(len(clips), m, dtype=torch.bool),
            poses=np.stack(poses),
            level=torch.zeros(len(clips)),
            instructions=tuple(texts),
        )
        return context, clips[:, m + 1 :]
