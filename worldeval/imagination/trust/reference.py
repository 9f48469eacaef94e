"""What is normal on true frames: the yardsticks by which imagined ones are measured.

Enters: recorded episodes that the inverse dynamics was trained on, others that it was not, and the
encoder of the world model's latents. Leaves: a ``Reference`` of small arrays: how wrong each
reading is (per axis and speed), how far true poses and latents lie from their nearest neighbours in
the training data, and how sharp true frames are and how much they change at each speed.

Distances are mean Euclidean distances to the ``NEIGHBOURS`` nearest points of a stored sample
(Sun et al. 2022 use the k-th), latents after pooling to 4x4 and whitened principal components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import read_mp4, write_mp4
from worldeval.errors import DataError
from worldeval.imagination.trust.inverse_dynamics import InverseDynamics
from worldeval.imagination.trust.observing import Observed, observe, pool, view_pairs
from worldeval.world_model.latents import Encode

NEIGHBOURS = 8
_LEAST = 1e-6
"""No yardstick is shorter, so that what does not vary on true frames is not divided by nought."""
SPEEDS = 4
"""Bins of speed, equally often filled on true frames."""
POSES_KEPT = 4096
LATENTS_KEPT = 1536
COMPONENTS = 32


_AXES = {
    "speed_edges": 1, "reading_error": 4, "view_difference": 4, "poses": 2, "pose_distance": 1,
    "latents": 3, "latent_mean": 2, "latent_axes": 3, "latent_distance": 1, "sharpness": 2,
    "jump": 3,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Arrays, float32: R readings, V views, G pairs of views, S speeds, P pose axes."""

    speed_edges: np.ndarray
    """(S - 1,) between bins of the length of the change, in units of its spread."""
    reading_error: np.ndarray
    """(R, 2, P, S) mean |read - commanded| on true frames."""
    view_difference: np.ndarray
    """(G, 2, P, S) mean |one view's reading - another's| on true frames."""
    poses: np.ndarray
    """(N, 2P) poses and changes of the training data, in units of their spread."""
    pose_distance: np.ndarray
    """() or, from a checkpoint, (1,): median distance of true poses to ``poses``."""
    latents: np.ndarray
    """(V, N, D) whitened latents of the training data."""
    latent_mean: np.ndarray
    """(V, F)"""
    latent_axes: np.ndarray
    """(V, F, D) to whitened components."""
    latent_distance: np.ndarray
    """(V,) median distance of true latents to ``latents``."""
    sharpness: np.ndarray
    """(V, 2) mean and spread of the logarithm of a frame's sharpness against the start's."""
    jump: np.ndarray
    """(V, S, 2) mean and spread of the logarithm of the change between two frames."""

    def tensors(self) -> dict[str, np.ndarray]:
        """By name; large ones as float16, of which distances need no more."""
        return {
            f.name: getattr(self, f.name).astype(
                np.float16 if f.name in ("poses", "latents", "latent_axes") else np.float32
            )
            for f in fields(self)
        }

    @classmethod
    def of(cls, tensors: dict[str, np.ndarray]) -> Reference:
        """The reverse of ``tensors``. Raises KeyError for one that is missing, ValueError for one
        that is no array of finite fractions of its shape."""
        for name, axes in _AXES.items():
            array = tensors[name]
            if array.ndim != axes or array.dtype.kind != "f" or not np.isfinite(array).all():
                raise ValueError(
                    f"reference.{name} is {array.dtype} of shape {array.shape}, expected finite "
                    f"floating-point numbers with {axes} axes"
                )
        return cls(**{f.name: tensors[f.name].astype(np.float32) for f in fields(cls)})

    def speed(self, moved: np.ndarray) -> np.ndarray:
        """Bin of each change (..., P) in units of its spread; (...) int."""
        return np.searchsorted(self.speed_edges, np.linalg.norm(moved, axis=-1))

    def whiten(self, pooled: np.ndarray) -> np.ndarray:
        """Pooled latents (T, V, F) -> (T, V, D)."""
        centred = pooled - self.latent_mean
        return np.einsum("tvf,vfd->tvd", centred, self.latent_axes)


def neighbour_distance(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance of points (T, D) to their nearest in ``known`` (N, D); (T,)."""
    count = min(NEIGHBOURS, len(known))
    squared = np.square(points).sum(1)[:, None] - 2 * points @ known.T + np.square(known).sum(1)
    nearest = np.partition(squared, count - 1, axis=1)[:, :count]
    return np.sqrt(np.maximum(nearest, 0)).mean(axis=1)


def build_reference(
    network: InverseDynamics,
    encode: Encode,
    training: Sequence[EpisodeStore],
    validation: Sequence[EpisodeStore],
    *,
    seed: int = 0,
) -> Reference:
    """Measure true frames, those of ``validation`` after coding as video, as rollouts are kept.

    Raises DataError where ``validation`` has no motions of different speeds.
    """
    rng = np.random.default_rng(seed)
    poses, pooled = _training_sample(network, encode, training, rng)
    mean, axes = zip(*(_whitening(pooled[:, v]) for v in range(pooled.shape[1])), strict=True)
    true = _observe_all(network, encode, validation)
    moved = np.concatenate([o.target[:, 1] for o in true])
    lengths = np.linalg.norm(moved, axis=-1)
    reference = Reference(
        speed_edges=np.quantile(lengths, np.arange(1, SPEEDS) / SPEEDS).astype(np.float32),
        reading_error=np.zeros(0),
        view_difference=np.zeros(0),
        poses=poses,
        pose_distance=np.zeros(0),
        latents=np.zeros(0),
        latent_mean=np.stack(mean),
        latent_axes=np.stack(axes),
        latent_distance=np.zeros(0),
        sharpness=np.zeros(0),
        jump=np.zeros(0),
    )
    latents = reference.whiten(pooled).swapaxes(0, 1)
    place = np.concatenate([o.target for o in true]).reshape(len(moved), -1)
    points = np.concatenate([reference.whiten(o.pooled) for o in true])
    distance = [
        np.median(neighbour_distance(points[:, v], known)) for v, known in enumerate(latents)
    ]
    speed = reference.speed(moved)
    if np.bincount(speed, minlength=SPEEDS).min() == 0:
        raise DataError(
            f"the validation stores have {len(moved)} motions, too few or too much alike to tell "
            f"{SPEEDS} speeds apart (such as an arm that stands still); give recordings in which "
            "the arm moves slowly and fast"
        )
    readings = np.concatenate([o.readings for o in true])
    error = np.abs(readings - np.concatenate([o.target for o in true])[:, None])
    first, second = view_pairs(len(network.config.views))
    difference = np.abs(readings[:, first] - readings[:, second])
    slow = reference.speed(np.concatenate([o.step for o in true]))
    change = np.concatenate([o.log_change for o in true])
    sharp = np.concatenate([o.log_sharpness for o in true])
    values = {
        **vars(reference),
        "reading_error": np.stack([error[speed == s].mean(0) for s in range(SPEEDS)], -1),
        "view_difference": np.stack([difference[speed == s].mean(0) for s in range(SPEEDS)], -1),
        "pose_distance": np.asarray(np.median(neighbour_distance(place, poses))),
        "latents": latents,
        "latent_distance": np.asarray(distance),
        "sharpness": np.stack([sharp.mean(0), sharp.std(0) + _LEAST], -1),
        "jump": np.stack([_moments(change, slow == s) for s in range(SPEEDS)], 1),
    }
    for name in ("reading_error", "view_difference", "pose_distance", "latent_distance"):
        values[name] = np.maximum(values[name], _LEAST)  # signals are divided by them
    return Reference(**{name: np.asarray(v, np.float32) for name, v in values.items()})


def _moments(change: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(V, 2) mean and spread of the chosen rows of (T, V); of all where there are hardly any."""
    rows = change[chosen] if chosen.sum() > 10 else change
    return np.stack([rows.mean(0), rows.std(0) + _LEAST], -1)


def _training_sample(
    network: InverseDynamics,
    encode: Encode,
    stores: Sequence[EpisodeStore],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Poses with changes (N, 2P), and pooled latents (N', V, F), of frames spread over all."""
    places = [(store, i) for store in stores for i in range(len(store))]
    if not places:
        raise DataError("the training stores hold no episodes; record some")
    poses, pooled = [], []
    per_pose, per_latent = (-(-kept // len(places)) for kept in (POSES_KEPT, LATENTS_KEPT))
    for store, i in places:
        path = store.trajectory(i).poses
        if len(path) < 2:
            continue
        after = rng.integers(1, len(path), per_pose)
        before = np.maximum(after - network.config.most_frames, 0)
        poses.append(network.targets(path[before], path[after]).reshape(per_pose, -1))
        times = rng.integers(0, len(path), per_latent)
        order = network.config.views
        pooled.append(pool(encode(store.frames(i, views=order, times=times))))
    return _some(np.concatenate(poses), POSES_KEPT, rng), _some(
        np.concatenate(pooled), LATENTS_KEPT, rng
    )


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rows[rng.permutation(len(rows))[:most]].astype(np.float32)


def _whitening(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) and axes (F, D) of the first principal components, scaled to unit spread."""
    mean = rows.mean(0)
    _, spread, axes = np.linalg.svd(rows - mean, full_matrices=False)
    kept = max(1, min(COMPONENTS, int((spread > spread[0] * 1e-4).sum())))
    scale = np.sqrt(len(rows)) / np.maximum(spread, 1e-12)
    # The last directions of few rows are noise: all views keep equally many, others are zero.
    scale[kept:] = 0
    count = min(COMPONENTS, len(axes))
    return mean.astype(np.float32), (axes[:count].T * scale[:count]).astype(np.float32)


def _observe_all(
    network: InverseDynamics, encode: Encode, stores: Sequence[EpisodeStore]
) -> list[Observed]:
    observed = []
    with TemporaryDirectory() as folder:
        for store in stores:
            for i in range(len(store)):
                frames = store.frames(i, views=network.config.views)
                poses = store.trajectory(i).poses
                if len(frames) < 2:
                    continue
                coded = frames if store.layout.images == "video" else _coded(frames, Path(folder))
                observed.append(observe(network, encode, coded, poses))
    if not observed:
        raise DataError(
            "the validation stores hold no episode of two frames or more; record some that are "
            "not in the training stores"
        )
    return observed


def _coded(frames: np.ndarray, folder: Path) -> np.ndarray:
    """Frames (T, V, H, W, C) as they come back from the video in which rollouts are kept."""
    path = folder / "view.mp4"
    coded = np.empty_like(frames)
    for view in range(frames.shape[1]):
        write_mp4(path, frames[:, view], fps=10)
        coded[:, view] = read_mp4(path, start_s=0.0, count=len(frames))
    return coded
