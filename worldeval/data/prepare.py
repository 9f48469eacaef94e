"""From raw robot recordings to a store of episodes with cached latents.

Enters: a folder in one of the layouts of ``ctrl_world.py`` and ``droid.py``. Leaves, in one folder:
an ``EpisodeStore`` (frames at 5 Hz, absolute poses, joints), ``latents/<digest>`` (``LatentCache``),
``statistics.json`` (1st and 99th percentiles of the poses) and, where episodes could not be used,
``skipped.json`` with the reason of each.

Workers decode, resize and encode; one process writes, in the order of the dataset, so the result
does not depend on the number of workers nor on how often it was killed: what is there is skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from worldeval.data.atomic import write_atomically
from worldeval.data.ctrl_world import CtrlWorldDataset, PoseBounds, load_latents
from worldeval.data.droid import LeRobotDroid
from worldeval.data.episodes import EpisodeStore
from worldeval.data.lerobot import STATE
from worldeval.data.raw import RawEpisode
from worldeval.data.workers import in_order
from worldeval.errors import ConfigError, DataError, StoreError
from worldeval.motion.panda import VIEWS, panda
from worldeval.robots import RobotSpec
from worldeval.types import Episode
from worldeval.world_model.latents import SVD, TYPES, LatentCache, encoder_digest, open_encoder

LAYOUTS = ("auto", "ctrl-world", "lerobot")
STATISTICS, SKIPPED = "statistics.json", "skipped.json"
TASK = "droid"
MUCH_CLIPPED = 0.2
"""Share of clipped frames above which a user should know: of seven values within their 1st and
99th percentiles, at least one is outside in up to 14 % of the frames."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare, and how; ``commands/prepare.py`` explains each."""

    source: Path
    layout: str = "auto"
    split: str = "train"
    encoder: Path | None = None
    published_latents: bool = False
    latent_dtype: str = "float16"
    image_size: tuple[int, int] = (192, 320)
    min_frames: int = 5
    key_map: Path | None = None
    limit: int | None = None
    workers: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout is {self.layout!r}, expected one of {', '.join(LAYOUTS)}")
        if self.encoder is not None and self.published_latents:
            raise ConfigError(
                f"encoder is {self.encoder} and published latents are wanted too; choose one"
            )
        if self.latent_dtype not in TYPES:
            raise ConfigError(f"latent_dtype is {self.latent_dtype!r}, expected {TYPES}")
        if len(self.image_size) != 2 or any(side < 8 or side % 8 for side in self.image_size):
            raise ConfigError(
                f"image_size is {self.image_size}, expected (height, width) in multiples of 8 px"
            )
        for name in ("min_frames", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}, expected 1 or more, or none")

    @property
    def digest(self) -> str | None:
        """Name of the latent space; None if no latents are wanted."""
        if self.published_latents:
            return SVD
        return None if self.encoder is None else encoder_digest(self.encoder)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An episode that could not be used, and why (the reason names the file)."""

    id: str
    reason: str


@dataclass(kw_only=True)
class PrepareReport:
    """What a call of ``prepare`` did."""

    written: int = 0
    present: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class RawDataset(Protocol):
    """What ``CtrlWorldDataset`` and ``LeRobotDroid`` have in common."""

    ids: tuple[str, ...]

    def episode(self, identity: str) -> RawEpisode: ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode and what is lacking of it."""

    id: str
    frames: bool
    latents: bool


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A worker's answer: an episode (None if only latents were wanted), or why there is none."""

    id: str
    episode: Episode | None = None
    problem: str | None = None


def open_dataset(config: PrepareConfig) -> RawDataset:
    """The dataset at ``config.source``, its layout recognised by what the folder holds."""
    layout = config.layout
    if layout == "auto":
        found = [
            name
            for name, mark in (("ctrl-world", "annotation"), ("lerobot", "meta/info.json"))
            if (config.source / mark).exists()
        ]
        if len(found) != 1:
            raise DataError(
                f"{config.source} holds {'both' if found else 'neither'} annotation/ (Ctrl-World) "
                f"{'and' if found else 'nor'} meta/info.json (LeRobot); "
                f"{'say which by --layout' if found else 'give the folder of a dataset'}"
            )
        layout = found[0]
    if layout == "ctrl-world":
        return CtrlWorldDataset(config.source, config.split)
    return LeRobotDroid(config.source, config.split, config.key_map)


def prepare(config: PrepareConfig, out: str | Path, *, progress: bool = True) -> PrepareReport:
    """Bring into ``out`` what is lacking there of the dataset, and report.

    Episodes that cannot be used are named in the report, the others go on. Ctrl-C or a kill loses
    the episodes under way; calling again continues. Raises DataError if there is nothing at all.
    """
    out = Path(out)
    dataset, robot, digest = open_dataset(config), robot_of(config), config.digest
    store = open_store(robot, out)
    cache = None if digest is None else LatentCache(out, digest)
    ids = dataset.ids[: config.limit]
    todo = []
    for identity in ids:
        key = f"{config.split}/{identity}"
        job = Job(id=identity, frames=key not in store, latents=_lacks(cache, key))
        if job.frames or job.latents:
            todo.append(job)
    report = PrepareReport(present=len(ids) - len(todo))
    changed = False
    bar = tqdm(total=len(todo), desc=f"prepare {config.split}", disable=not progress, unit="ep")
    results = in_order(
        _work, todo, min(config.workers, max(1, len(todo))), begin=_begin, arguments=(config, out)
    )
    try:
        with bar:
            for result in results:
                if result.problem is not None:
                    report.skipped.append(Skipped(id=result.id, reason=result.problem))
                else:
                    if not changed:  # what it says is no longer so
                        (out / STATISTICS).unlink(missing_ok=True)
                        changed = True
                    if result.episode is not None:
                        store.append(result.episode)
                    report.written += 1
                bar.set_postfix(skipped=len(report.skipped), refresh=False)
                bar.update()
    finally:
        store.close()
    _note_skipped(out, report.skipped)
    if not len(store):
        first = report.skipped[0].reason if report.skipped else "the split is empty"
        raise DataError(f"no episode of {config.source} could be prepared; the first: {first}")
    if changed or not (out / STATISTICS).exists():
        if cache is not None:
            cache.write_index(sorted(store.keys))
        store.compact()
        measure(store, _bounds(dataset, robot))
    report.warnings += clipped(store)
    return report


def robot_of(config: PrepareConfig) -> RobotSpec:
    """The robot of the store: DROID's Panda, moved by absolute poses."""
    return panda(action_space="absolute_pose", image_size=config.image_size)


def open_store(robot: RobotSpec, out: Path) -> EpisodeStore:
    """The store at ``out``. Raises MismatchError if one of another layout is there."""
    return EpisodeStore.open_or_create(
        out,
        views=robot.views,
        image_size=robot.image_size,
        pose_names=robot.pose_names,
        action_names=robot.action_names,
        joint_names=robot.joint_names,
        steps_per_frame=robot.steps_per_frame,
        fps=robot.frame_hz,
        robot_type=robot.name,
        images="video",
    )


def as_episode(raw: RawEpisode, image_size: tuple[int, int], bounds: PoseBounds) -> Episode:
    """Decode an episode into ours. Raises DataError naming the file that is at fault."""
    poses = raw.poses()
    return Episode(
        key=raw.key,
        task=TASK,
        instruction=raw.instructions[0],
        views=VIEWS,
        frames=raw.images(image_size),
        poses=poses,
        joints=raw.joints(),
        actions=raw.steps(),
        success=raw.success,
        extra={
            "start_id": raw.key,
            "seed": int.from_bytes(hashlib.sha256(raw.key.encode()).digest()[:4], "big"),
            "split": raw.split,
            "share_clipped": round(float(_outside(poses, bounds).any(axis=1).mean()), 4),
            **raw.extra(),
        },
    )


def measure(store: EpisodeStore, bounds: PoseBounds) -> dict[str, Any]:
    """Percentiles of all poses of a store, written to its ``statistics.json``."""
    poses = _all_poses(store)
    low, high = np.percentile(poses, [1, 99], axis=0)
    outside = _outside(poses, bounds)
    content = {
        "pose_names": list(store.layout.pose_names),
        "episodes": len(store),
        "frames": len(poses),
        "pose_p01": low.tolist(),
        "pose_p99": high.tolist(),
        "bounds": {"low": bounds.low.tolist(), "high": bounds.high.tolist()},
        "share_outside_bounds": outside.mean(axis=0).tolist(),
        "share_of_frames_clipped": float(outside.any(axis=1).mean()),
    }
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(store.root / STATISTICS, partial(_write_text, text))
    return content


def clipped(store: EpisodeStore) -> list[str]:
    """Sentences about poses outside the percentiles, of which a model would see the bound only."""
    facts = json.loads((store.root / STATISTICS).read_text())
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


_config: PrepareConfig | None = None
_out: Path | None = None
_opened: tuple[RawDataset, PoseBounds, Any] | None = None
"""Of a worker: the dataset, its bounds and the encoder, opened with the first job."""


def _begin(config: PrepareConfig, out: Path) -> None:
    global _config, _out, _opened
    _config, _out, _opened = config, out, None


def _open() -> tuple[RawDataset, PoseBounds, Any]:
    # Not in _begin, where an error would break the pool instead of reaching the user.
    global _opened
    if _config is None:
        raise RuntimeError("a worker got a job before it began")
    if _opened is None:
        dataset = open_dataset(_config)
        encode = None
        if _config.encoder is not None:
            import torch

            torch.set_num_threads(1)
            encode, _ = open_encoder(_config.encoder, _config.device)
        _opened = dataset, _bounds(dataset, robot_of(_config)), encode
    return _opened


def _work(job: Job) -> Prepared:
    """Decode one episode and write its latents; what is wrong with it becomes words."""
    dataset, bounds, encode = _open()
    if _config is None or _out is None:
        raise RuntimeError("a worker got a job before it began")
    try:
        raw = dataset.episode(job.id)
        if raw.frames < _config.min_frames:
            raise DataError(
                f"{raw.described_in}: {raw.frames} frames are shorter than a clip of "
                f"{_config.min_frames}"
            )
        latents = None
        if job.latents and encode is None:
            latents = load_latents(raw)
            _check_size(raw, latents, _config.image_size)
        episode = None
        if job.frames or encode is not None:
            episode = as_episode(raw, _config.image_size, bounds)
        if job.latents and encode is not None and episode is not None:
            latents = encode(episode.frames)
        if latents is not None:
            digest = _config.digest
            if digest is None:
                raise RuntimeError("latents without a space")
            source = "published" if _config.published_latents else str(_config.encoder)
            cache = LatentCache(_out, digest)
            cache.write(raw.key, latents, dtype=_config.latent_dtype, source=source)
    except StoreError:  # a full disk is not the episode's fault
        raise
    except DataError as error:
        return Prepared(id=job.id, problem=" ".join(str(error).split()))
    return Prepared(id=job.id, episode=episode if job.frames else None)


def _check_size(raw: RawEpisode, latents: np.ndarray, image_size: tuple[int, int]) -> None:
    expected = (image_size[0] // 8, image_size[1] // 8)
    if latents.shape[-2:] != expected:
        raise DataError(
            f"{raw.described_in}: published latents are {latents.shape[-2:]}, frames of "
            f"{image_size} px have {expected}; choose the image size that they were made from"
        )


def _lacks(cache: LatentCache | None, key: str) -> bool:
    return cache is not None and key not in cache


def _bounds(dataset: RawDataset, robot: RobotSpec) -> PoseBounds:
    """The dataset's own percentiles, else those with which the published model was trained."""
    own = dataset.bounds() if isinstance(dataset, CtrlWorldDataset) else None
    return own or PoseBounds(low=np.asarray(robot.pose_low), high=np.asarray(robot.pose_high))


def _outside(poses: np.ndarray, bounds: PoseBounds) -> np.ndarray:
    """(T, 7) bool. A thousandth of the range is the rounding of the percentiles, not a distance."""
    slack = 1e-3 * (bounds.high - bounds.low)
    return (poses < bounds.low - slack) | (poses > bounds.high + slack)


def _all_poses(store: EpisodeStore) -> np.ndarray:
    """(N, 7), a column of each data file: fast where thousands of episodes share one."""
    return np.concatenate(list(_pose_columns(store)))


def _pose_columns(store: EpisodeStore) -> Iterator[np.ndarray]:
    for path in sorted((store.root / "data").glob("chunk-*/file-*.parquet")):
        column = pq.read_table(path, columns=[STATE], partitioning=None).column(STATE)
        yield column.combine_chunks().flatten().to_numpy().reshape(-1, store.layout.pose_dim)


def _note_skipped(out: Path, skipped: list[Skipped]) -> None:
    path = out / SKIPPED
    if not skipped:
        with suppress(FileNotFoundError):
            path.unlink()
        return
    text = json.dumps([{"id": s.id, "reason": s.reason} for s in skipped], indent=1) + "\n"
    write_atomically(path, partial(_write_text, text))


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
