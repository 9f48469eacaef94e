"""What a world model is trained on: decoded frames, cached latents, and the clips cut from them.

In: a store of episodes and an autoencoder. Out: ``ClipSource.draw``, a batch of present, retrieved
memory and future with their poses. Frames are decoded once; latents are computed once and cached
beside the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from worldeval.data import digests
from worldeval.data.atomic import write_array, write_atomically
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import to_model
from worldeval.data.windows import window_starts
from worldeval.errors import DataError, StoreError
from worldeval.learning.processes import one_after_the_other
from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.denoiser import DenoiserConfig
from worldeval.world_model.few_recordings.clip_augmentation import Augmentation
from worldeval.world_model.latents import LatentCache
from worldeval.world_model.memory import retrieve, strategy
from worldeval.world_model.model import Context, WorldModelConfig


@dataclass(kw_only=True)
class FrameTable:
    """All frames of a store in memory: (N, V, H, W, C) uint8 with episode borders."""

    frames: np.ndarray
    """(N, 0) where pixels were left out."""
    poses: np.ndarray
    first: np.ndarray
    """(E+1,) row of each episode's first frame, and the end."""
    keys: list[str]
    start_ids: list[str]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.first)


def load_frames(
    store: EpisodeStore,
    limit: int | None = None,
    *,
    keys_wanted: Collection[str] | None = None,
    pixels: bool = True,
) -> FrameTable:
    """Decode every frame of a store once.

    keys_wanted: these episodes alone. pixels: without them only poses and borders are read.
    """
    if len(store) == 0:
        raise DataError(f"{store.root} holds no episodes; record some with `worldeval record`")
    count = min(len(store), limit or len(store))
    known = store.metadata()
    frames, poses, lengths, keys, start_ids = [], [], [], [], []
    for i in tqdm(range(count), desc="reading episodes", unit="episode", mininterval=1.0):
        key = str(known["key"][i])
        if keys_wanted is not None and key not in keys_wanted:
            continue
        path = store.trajectory(i)
        frames.append(store.frames(i) if pixels else np.empty((len(path.poses), 0), np.uint8))
        poses.append(path.poses)
        lengths.append(len(path.poses))
        keys.append(key)
        start_id = known["start_id"][i] if "start_id" in known else None
        start_ids.append(key if start_id is None else str(start_id))
    if not keys:
        raise DataError(
            f"{store.root} has none of the episodes {sorted(keys_wanted or ())}, it has such as "
            f"{known['key'][0]!r}"
        )
    return FrameTable(
        frames=np.concatenate(frames),
        poses=np.concatenate(poses),
        first=np.concatenate([[0], np.cumsum(lengths)]),
        keys=keys,
        start_ids=start_ids,
    )


def joined(one: FrameTable, other: FrameTable) -> FrameTable:
    """The episodes of two tables in one."""
    return FrameTable(
        frames=np.concatenate([one.frames, other.frames]),
        poses=np.concatenate([one.poses, other.poses]),
        first=np.concatenate([one.first, other.first[1:] + one.first[-1]]),
        keys=one.keys + other.keys,
        start_ids=one.start_ids + other.start_ids,
    )


def step_rows(count: int, wanted: int) -> np.ndarray:
    """At most ``wanted`` rows, evenly spread over ``count``."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(np.int64))


def cache_latents(table: FrameTable, model: Autoencoder, path: Path, digest: str) -> np.ndarray:
    """(N, V, C, h, w) float16 latents of all frames, computed once and kept in ``path``."""
    note = path.with_suffix(".json")
    stamp = {
        "autoencoder": digest,
        "episodes": len(table.keys),
        "frames": len(table.frames),
        "keys": hash_keys(table.keys),
        "pixels": digests.of_arrays(table.frames),
    }
    with one_after_the_other(path):  # the first computes them
        if path.is_file() and note.is_file() and json.loads(note.read_text()) == stamp:
            return np.load(path, mmap_mode="r")
        return _computed_latents(table, model, path, note, stamp)


def _computed_latents(
    table: FrameTable, model: Autoencoder, path: Path, note: Path, stamp: Mapping[str, Any]
) -> np.ndarray:
    parts = [
        batched(model.encode, to_model(table.frames[i : i + 512])).astype(np.float16)
        for i in tqdm(range(0, len(table.frames), 512), desc="latents", unit="batch")
    ]
    latents = np.concatenate(parts)
    try:
        note.unlink(missing_ok=True)  # it must never describe other latents than those
        write_array(path, latents)
        write_atomically(note, lambda temporary: _write(temporary, json.dumps(stamp)))
    except OSError as error:
        raise StoreError(
            f"cannot write the latents {path}, {latents.nbytes / 2**20:.0f} MiB: "
            f"{error.strerror or error}; free some space or choose another folder"
        ) from error
    return latents


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def given_latents(table: FrameTable, store: EpisodeStore, digest: str) -> np.ndarray:
    """(N, V, C, h, w) of all frames of a table from the cache beside its store."""
    cache = LatentCache(store.root, digest)
    return np.concatenate(
        [
            cache.read(key, frames=int(length))
            for key, length in zip(table.keys, table.lengths, strict=True)
        ]
    )


def measure_denoiser(table: FrameTable, latents: np.ndarray, future: int) -> DenoiserConfig:
    """Noise levels around the spread of the change over ``future`` frames.

    Training noise is centred at that spread, where half of the signal is hidden.
    """
    windows = window_starts([int(n) for n in table.lengths], future)
    picks = windows[step_rows(len(windows), 2000)]
    now = table.first[picks[:, 0]] + picks[:, 1]
    change = [
        (latents[now + k].astype(np.float32) - latents[now]).var() for k in range(1, future + 1)
    ]
    spread = float(np.sqrt(np.mean(change)))
    return DenoiserConfig(sigma_data=spread, log_sigma_mean=float(np.log(spread)) + 0.3)


def hash_keys(keys: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def batched(function: Callable[[Tensor], Tensor], video: np.ndarray, size: int = 256) -> np.ndarray:
    """Apply a torch function to a float array in batches, without gradients."""
    with torch.inference_mode():
        return np.concatenate(
            [
                function(torch.from_numpy(video[i : i + size])).numpy()
                for i in range(0, len(video), size)
            ]
        )


class ClipSource:
    """Draws training clips: present, retrieved memory, future, with their poses."""

    def __init__(
        self,
        table: FrameTable,
        latents: np.ndarray,
        model: WorldModelConfig,
        mix: Sequence[tuple[str, float]],
        augmentation: Augmentation | None = None,
    ) -> None:
        self.table, self.latents, self.model = table, latents, model
        self.augmentation = augmentation if augmentation and augmentation.changes else None
        self.windows = window_starts([int(n) for n in table.lengths], model.future)
        self.strategies = [strategy(name, model.spec) for name, _ in mix]
        share = np.asarray([s for _, s in mix], np.float64)
        self.share = share / share.sum()
        self.normal = model.normalizer.normalize(table.poses)
        self.alternative: dict[int, np.ndarray] = {}
        """Episode index -> imagined latents (T+1, V, C, h, w) of its replay."""

    def draw(
        self, count: int, generator: torch.Generator, rows: slice, imagined_share: float = 0.0
    ) -> tuple[Context, Tensor]:
        """A batch: its context (clean) and the future latents (B, F, V, C, h, w)."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        picks = rng.integers(len(self.windows), size=count)[rows]
        kinds = rng.choice(len(self.share), p=self.share, size=count)[rows]
        own = (rng.random(count) < imagined_share)[rows]
        m, f = self.model.memory_slots, self.model.future
        # one seed per clip, so that it does not depend on which others this process makes
        seeds = rng.integers(2**62, size=count)[rows] if self.augmentation else [0] * len(picks)
        current, memory, valid, poses, future = [], [], [], [], []
        for pick, kind, drifted, seed in zip(picks, kinds, own, seeds, strict=True):
            episode, t = self.windows[pick]
            base, length = self.table.first[episode], self.table.lengths[episode]
            track, rng = np.arange(t + 1 + f), np.random.default_rng(seed)
            if self.augmentation:
                track = self.augmentation.track(rng, length, t, f)
            past, ahead = self.normal[base + track[:-f]], self.normal[base + track[-f:]]
            indices, good = retrieve(self.strategies[kind], past, ahead, m)
            shown = track[np.concatenate([indices, np.arange(len(past) - 1, len(track))])]
            clip = self.latents[base + shown]  # memory, current, future
            if drifted and int(episode) in self.alternative:
                clip[: m + 1] = self.alternative[int(episode)][shown[: m + 1]]
            if self.augmentation:
                clip = self.augmentation.move(rng, clip)
            current.append(clip[m])
            memory.append(clip[:m])
            valid.append(good)
            future.append(clip[m + 1 :])
            poses_of_clip = self.table.poses[base + shown]
            if self.augmentation and self.model.angles:
                poses_of_clip = self.augmentation.stand(rng, poses_of_clip, self.model.angles)
            poses.append(poses_of_clip)
        tensor = lambda parts: torch.from_numpy(np.stack(parts).astype(np.float32))  # noqa: E731
        context = Context(
            current=tensor(current),
            memory=tensor(memory),
            valid=torch.from_numpy(np.stack(valid)),
            poses=np.stack(poses),
            level=torch.zeros(len(picks)),
        )
        return context, tensor(future)

    def add_imagined(self, store: EpisodeStore, autoencoder: Autoencoder) -> None:
        """Take the frames of imagined replays as what was seen, for the episodes they are of."""
        rows = {start_id: i for i, start_id in enumerate(self.table.start_ids)}
        for i in tqdm(range(len(store)), desc="imagined replays", unit="episode"):
            episode = store.episode(i)
            row = rows.get(str(episode.extra.get("start_id")))
            if row is not None and episode.length == self.table.lengths[row]:
                self.alternative[row] = batched(
                    autoencoder.encode, to_model(episode.frames)
                ).astype(np.float16)
