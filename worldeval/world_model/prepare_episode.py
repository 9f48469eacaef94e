"""One raw episode into ours: what a worker of ``prepare`` does.

Enters: a ``PrepareConfig`` and the id of an episode. Leaves: an ``Episode`` with its frames coded
beside the store, its latents in the cache, or words about what is wrong with it.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from worldeval.data import checkpoint
from worldeval.data.pose_statistics import outside
from worldeval.data.readers.ctrl_world import CtrlWorldDataset, PoseBounds, load_latents
from worldeval.data.readers.droid import LeRobotDroid
from worldeval.data.readers.lerobot_robot import LeRobotRobot, RobotEpisode
from worldeval.data.readers.own import OwnDataset, OwnEpisode, is_own
from worldeval.data.readers.raw import RawEpisode
from worldeval.data.store.coding import CodedViews, code_views
from worldeval.errors import ConfigError, DataError, StoreError, WorldEvalError
from worldeval.motion.panda import panda
from worldeval.registry import did_you_mean
from worldeval.robots import RobotSpec
from worldeval.types import Episode
from worldeval.world_model.latents import SVD, TYPES, LatentCache, encoder_digest, open_encoder

LAYOUTS = ("auto", "ctrl-world", "lerobot")
TASK = "droid"
CODED = ".coded"
"""Folder in the store for videos on their way into it."""
NO_WORDS = (
    "no instruction is known of them; they are kept without words (instruction_known is false), "
    "--instruction TEXT gives them some"
)


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
    instruction: str | None = None
    key_map: Path | None = None
    limit: int | None = None
    workers: int = 2
    device: str = "cpu"
    robot: RobotSpec | None = None
    """Of the dataset; None for DROID's Panda."""

    def __post_init__(self) -> None:
        check_layout(self.layout)
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
        if self.robot is not None and self.published_latents:
            raise ConfigError(
                "published latents are DROID's; make those of another robot with --encoder"
            )
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}, expected 1 or more, or none")

    @property
    def digest(self) -> str | None:
        """Name of the latent space; None if no latents are wanted."""
        if self.published_latents:
            return SVD
        return None if self.encoder is None else encoder_digest(self.encoder)

    @property
    def latent_source(self) -> str:
        """What makes the latents; kept with them."""
        return f"encoder {checkpoint.digest(self.encoder)}" if self.encoder else "published"


RawKinds = RawEpisode | RobotEpisode | OwnEpisode


class RawDataset(Protocol):
    """What ``CtrlWorldDataset``, ``LeRobotDroid``, ``LeRobotRobot`` and ``OwnDataset`` share.

    notes: what the user of the dataset must know, a sentence each.
    """

    ids: tuple[str, ...]
    notes: list[str]

    def episode(self, identity: str) -> RawKinds: ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode and what is lacking of it."""

    id: str
    frames: bool
    latents: bool


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A worker's answer: an episode (None if only latents were wanted), or why there is none.

    The episode has the shape of its frames, but no pixels of its own: these are in ``coded``.
    notes: what was taken on trust.
    """

    id: str
    episode: Episode | None = None
    coded: CodedViews | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()


def open_dataset(config: PrepareConfig) -> RawDataset:
    """The dataset at ``config.source``, its layout recognised by what the folder holds."""
    layout = layout_of(config.source, config.layout)
    if layout not in LAYOUTS:
        return OwnDataset(layout, config.source, config.split, robot_of(config))
    if layout == "ctrl-world" and config.robot is not None:
        raise ConfigError(
            f"{config.source} is laid out as Ctrl-World's release, which is of DROID's Panda; "
            "leave the robot out"
        )
    if layout == "ctrl-world":
        return CtrlWorldDataset(config.source, config.split)
    if config.robot is None:
        return LeRobotDroid(config.source, config.split, config.key_map)
    return LeRobotRobot(config.source, config.robot, config.split, config.key_map)


def check_layout(layout: str) -> None:
    """Raise ConfigError for a layout that no reader has."""
    if layout not in LAYOUTS and not is_own(layout):
        raise ConfigError(
            f"layout is {layout!r}{did_you_mean(layout, LAYOUTS)}, expected one of "
            f"{', '.join(LAYOUTS)}, a registered reader, or module:attr of one"
        )


def layout_of(source: Path, layout: str) -> str:
    """ "ctrl-world", "lerobot" or a reader's name; "auto" looks at what the folder holds."""
    check_layout(layout)
    if layout != "auto":
        return layout
    found = [
        name
        for name, mark in (("ctrl-world", "annotation"), ("lerobot", "meta/info.json"))
        if (source / mark).exists()
    ]
    if len(found) != 1:
        raise DataError(
            f"{source} holds {'both' if found else 'neither'} annotation/ (Ctrl-World) "
            f"{'and' if found else 'nor'} meta/info.json (LeRobot); "
            f"{'say which by --layout' if found else 'give the folder of a dataset'}"
        )
    return found[0]


def robot_of(config: PrepareConfig) -> RobotSpec:
    """The robot of the store; DROID's Panda, moved by absolute poses, unless another is given."""
    return config.robot or panda(action_space="absolute_pose", image_size=config.image_size)


def bounds_of(dataset: RawDataset, robot: RobotSpec) -> PoseBounds:
    """The dataset's own percentiles, else those with which the published model was trained."""
    own = dataset.bounds() if isinstance(dataset, CtrlWorldDataset) else None
    return own or PoseBounds(low=np.asarray(robot.pose_low), high=np.asarray(robot.pose_high))


def as_episode(
    raw: RawKinds,
    robot: RobotSpec,
    bounds: PoseBounds,
    instruction: str | None = None,
) -> Episode:
    """Decode an episode into ours. Raises DataError naming the file that is at fault.

    instruction: of episodes that have none. Without it they are kept without words, and
    ``extra["instruction_known"]`` is false: to have none is not to be told to do nothing.
    """
    given = raw.instructions or (() if instruction is None else (instruction,))
    poses = raw.poses()
    return Episode(
        key=raw.key,
        task=_task(raw, given, robot),
        instruction=given[0] if given else "",
        views=robot.views,
        frames=raw.images(robot.image_size),
        poses=poses,
        joints=raw.joints(),
        actions=raw.steps(),
        success=raw.success,
        success_at=raw.given.success_at if isinstance(raw, OwnEpisode) else None,
        extra={
            "start_id": raw.key,
            "seed": int.from_bytes(hashlib.sha256(raw.key.encode()).digest()[:4], "big"),
            "split": raw.split,
            "share_clipped": round(float(outside(poses, bounds).any(axis=1).mean()), 4),
            **({} if given else {"instruction_known": False}),
            **raw.extra(),
        },
    )


def _task(raw: RawKinds, given: tuple[str, ...], robot: RobotSpec) -> str:
    """DROID is one task, with a wording for each episode; others have a task for each wording."""
    if isinstance(raw, OwnEpisode) and raw.given.task:
        return raw.given.task
    if isinstance(raw, RawEpisode):
        return TASK
    words = re.sub(r"[^a-z0-9]+", "-", given[0].lower()).strip("-") if given else robot.name
    if words and len(words) <= _LONGEST_TASK:
        return words
    mark = hashlib.sha256(given[0].encode()).hexdigest()[:8]
    return f"{words[:_LONGEST_TASK]}-{mark}".lstrip("-")


_LONGEST_TASK = 60
"""Letters; tasks become names of folders and columns."""

_config: PrepareConfig | None = None
_out: Path | None = None
_opened: tuple[RawDataset, PoseBounds, Any] | None = None
"""Of a worker: the dataset, its bounds and the encoder, opened with the first job."""


def begin(config: PrepareConfig, out: Path) -> None:
    global _config, _out, _opened
    _config, _out, _opened = config, out, None


def _open() -> tuple[RawDataset, PoseBounds, Any]:
    # Not in ``begin``, where an error would break the pool instead of reaching the user.
    global _opened
    if _config is None:
        raise RuntimeError("a worker got a job before it began")
    if _opened is None:
        dataset = open_dataset(_config)
        encode = None
        if _config.encoder is not None:
            import torch

            torch.set_num_threads(max(1, (os.cpu_count() or 1) // _config.workers))
            encode, _ = open_encoder(_config.encoder, _config.device)
        _opened = dataset, bounds_of(dataset, robot_of(_config)), encode
    return _opened


def work(job: Job) -> Prepared:
    """Decode one episode and write its latents; what is wrong with it becomes words.

    Whatever its files make a library raise costs that episode alone. What is nobody's fault but
    the machine's (no memory, a full disk) ends the run, since it would cost all others as well.
    """
    dataset, bounds, encode = _open()
    if _config is None or _out is None:
        raise RuntimeError("a worker got a job before it began")
    notes: tuple[str, ...] = ()
    try:
        raw = dataset.episode(job.id)
        notes = raw.notes
        if not raw.instructions and _config.instruction is None:
            notes += (NO_WORDS,)
        episode, latents = _made(raw, job, bounds, encode, _config)
        if latents is not None:
            digest = _config.digest
            if digest is None:
                raise RuntimeError("latents without a space")
            cache = LatentCache(_out, digest)
            cache.write(raw.key, latents, dtype=_config.latent_dtype, source=_config.latent_source)
    except (StoreError, MemoryError):
        raise
    except WorldEvalError as error:
        return Prepared(id=job.id, problem=" ".join(str(error).split()))
    except Exception as error:
        said = " ".join(str(error).split())[:500]
        return Prepared(
            id=job.id,
            problem=f"episode {job.id} of {_config.source} cannot be read "
            f"({type(error).__name__}: {said}); fetch it again, or leave it out",
        )
    if episode is None or not job.frames:
        return Prepared(id=job.id, notes=notes)
    name = hashlib.sha256(raw.key.encode()).hexdigest()[:16]
    coded = code_views(episode.frames, robot_of(_config).frame_hz, _out / CODED / name)
    # Pixels would take longer on their way to the writer than all else that it does.
    shape = episode.frames.shape
    return Prepared(
        id=job.id,
        episode=replace(episode, frames=np.empty((0, *shape[1:]), np.uint8)),
        coded=coded,
        notes=notes,
    )


def _made(
    raw: RawKinds, job: Job, bounds: PoseBounds, encode: Any, config: PrepareConfig
) -> tuple[Episode | None, np.ndarray | None]:
    """The episode and its latents, as far as they are wanted."""
    if raw.frames < config.min_frames:
        raise DataError(
            f"{raw.described_in}: {raw.frames} frames are shorter than a clip of "
            f"{config.min_frames}"
        )
    latents = None
    if job.latents and encode is None and isinstance(raw, RawEpisode):
        latents = load_latents(raw)
        _check_size(raw, latents, config.image_size)
    episode = None
    if job.frames or encode is not None:
        episode = as_episode(raw, robot_of(config), bounds, config.instruction)
    if job.latents and encode is not None and episode is not None:
        latents = encode(episode.frames)
    return episode, latents


def _check_size(raw: RawEpisode, latents: np.ndarray, image_size: tuple[int, int]) -> None:
    expected = (image_size[0] // 8, image_size[1] // 8)
    if latents.shape[-2:] != expected:
        raise DataError(
            f"{raw.described_in}: published latents are {latents.shape[-2:]}, frames of "
            f"{image_size} px have {expected}; choose the image size that they were made from"
        )
