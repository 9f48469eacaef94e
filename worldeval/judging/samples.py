"""What a judge learns from: frames of episodes in a flat file, and balanced draws from them.

Enters: episode stores (recorded episodes; imagined replays whose success is the TRUE outcome of the
same actions, ``extra["world"] = "imagination"``). Leaves: batches of (moments of a frame, poses,
instruction, label), each a function of the seed and the step alone, so that a resumed training
draws what an unbroken one would have drawn.

Labels say "solved by this frame": the running maximum of ``success_at``; distances say how many
frames are missing to that, or only that it is further than the end of an episode that failed. Hard
negatives are frames
at which a task holds, shown with an instruction of the opposed task: a drawer that is open has not
been closed, so the label is known. No other frame is given another task's words.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from worldeval.data import digests
from worldeval.data.atomic import write_atomically
from worldeval.data.goal_distance import distances_of
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import to_model
from worldeval.errors import ConfigError, DataError, MismatchError, StoreError
from worldeval.judging.learned import moments_of
from worldeval.types import Episode

UNKNOWN = -1
BORDER = 0.5
"""Margins below this, either way, are near the limit of success."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRow:
    """Where an episode lies in the cache. Frames ``first`` ... ``first + length - 1``."""

    key: str
    task: str
    instruction: str
    world: str
    success: bool
    first: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Frames to learn from, and what is known of them.

    images: (B, moments, V, C, H, W) in [-1, 1]. poses: (B, 2, P). labels: (B,) float32, 1 solved by
    this frame. distances: (B,) int64, frames to go until it is solved where ``known`` (B,) bool,
    elsewhere the frames within which it was seen not to be. holds: (B,) float32, 1 where the task
    is solved at this very frame. margins: (B,) float32 log(limit / distance to the goal), NaN where
    nobody measured it.
    """

    images: np.ndarray
    poses: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    known: np.ndarray
    holds: np.ndarray
    margins: np.ndarray
    instructions: list[str]


class FrameCache:
    """All frames of several stores, decoded once into one memory-mapped file.

    frames: (N, V, H, W, C) uint8; poses: (N, P); solved: (N,) int8, 1 solved by this frame, 0 not
    yet, -1 unknown; holds: (N,) int8, the same for the world's flag at this very frame; margins:
    (N,) float32, see ``margins_of``.
    """

    def __init__(self, folder: Path) -> None:
        header = json.loads((folder / "cache.json").read_text())
        self.rows = [EpisodeRow(**row) for row in header["rows"]]
        self.frames = np.memmap(
            folder / "frames.bin", np.uint8, "r", shape=tuple(header["frames_shape"])
        )
        self.poses = np.load(folder / "poses.npy")
        self.solved = np.load(folder / "solved.npy")
        self.holds = np.load(folder / "holds.npy")
        self.margins = np.load(folder / "margins.npy")

    @classmethod
    def build(
        cls, stores: Sequence[EpisodeStore], folder: Path, views: tuple[str, ...]
    ) -> FrameCache:
        """Open the cache in ``folder``, decoding the stores again only if they have changed."""
        identity = _identity(stores, views)
        header_path = folder / "cache.json"
        if header_path.is_file():
            if json.loads(header_path.read_text())["identity"] == identity:
                return cls(folder)
            header_path.unlink()
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            rows, frame_shape = _decode(stores, folder, views)
            header = {
                "identity": identity,
                "rows": [asdict(row) for row in rows],
                "frames_shape": [sum(row.length for row in rows), *frame_shape],
            }
            # Written last: a cache without it was interrupted and is made again.
            write_atomically(header_path, lambda path: _write_text(path, json.dumps(header)))
        except OSError as error:
            raise StoreError(
                f"cannot write the frame cache {folder}: {error.strerror or error}; it needs the "
                "decoded size of all training frames, so free some space"
            ) from error
        return cls(folder)


class Sampler:
    """Draws batches: equally often every (task, success, world), then an episode, then a frame."""

    def __init__(
        self,
        cache: FrameCache,
        *,
        lag: int,
        batch: int,
        seed: int,
        solved_share: float,
        near_share: float,
        near_frames: int,
        opposed_share: float,
        rewording_share: float,
        border_share: float = 0.0,
        instructions: Mapping[str, Sequence[str]],
        opposed: Mapping[str, str],
    ) -> None:
        for task, other in opposed.items():
            if not instructions.get(other):
                raise ConfigError(
                    f"task {task!r} is opposed to {other!r}, which has no wording in instructions; "
                    "give at least one"
                )
        self.cache, self.lag, self.batch, self.seed = cache, lag, batch, seed
        self.solved_share, self.near_share = solved_share, near_share
        self.near_frames, self.opposed_share = near_frames, opposed_share
        self.rewording_share, self.border_share = rewording_share, border_share
        self.instructions, self.opposed = dict(instructions), dict(opposed)
        self._solved, self._open, self._held, self._border = [], [], [], []
        groups: dict[tuple[str, bool, str], list[int]] = {}
        for index, row in enumerate(cache.rows):
            span = slice(row.first, row.first + row.length)
            self._solved.append(np.flatnonzero(cache.solved[span] == 1))
            self._open.append(np.flatnonzero(cache.solved[span] == 0))
            self._held.append(np.flatnonzero(cache.holds[span] == 1))
            self._border.append(np.flatnonzero(np.abs(cache.margins[span]) < BORDER))
            if len(self._solved[-1]) + len(self._open[-1]):
                groups.setdefault((row.task, row.success, row.world), []).append(index)
        if {success for _, success, _ in groups} != {True, False}:
            raise DataError(
                f"{len(cache.rows)} training episodes hold only one outcome (groups: "
                f"{sorted(groups)}); a judge needs successes and failures"
            )
        self.groups = {name: np.array(members) for name, members in sorted(groups.items())}
        self._members = list(self.groups.values())

    def draw(self, step: int) -> Batch:
        """The batch of training step ``step``."""
        rng = np.random.default_rng([self.seed, step])
        episodes, times, distances, known, own, instructions = [], [], [], [], [], []
        for _ in range(self.batch):
            members = self._members[int(rng.integers(len(self._members)))]
            index = int(members[rng.integers(len(members))])
            time, (distance, sure), instruction, asked = self._draw_frame(index, rng)
            episodes.append(self.cache.rows[index].first)
            times.append(time)
            distances.append(distance)
            known.append(sure)
            own.append(asked)
            instructions.append(instruction)
        rows, asked_for = np.array(episodes) + np.array(times), np.array(own)
        moments = moments_of(np.array(times), self.lag) + np.array(episodes)[:, None]
        return Batch(
            images=to_model(self.cache.frames[moments]),
            poses=self.cache.poses[moments[:, [0, -1]]],
            labels=(np.array(known) & (np.array(distances) == 0)).astype(np.float32),
            distances=np.array(distances, np.int64),
            known=np.array(known),
            holds=(asked_for & (self._holding(rows) == 1)).astype(np.float32),
            margins=np.where(asked_for, self.cache.margins[rows], np.nan).astype(np.float32),
            instructions=instructions,
        )

    def _holding(self, rows: np.ndarray) -> np.ndarray:
        """Whether the task is solved at these very frames, as far as anybody knows."""
        holds = self.cache.holds[rows]
        return np.where(holds == UNKNOWN, self.cache.solved[rows], holds)

    def _draw_frame(
        self, index: int, rng: np.random.Generator
    ) -> tuple[int, tuple[int, bool], str, bool]:
        """A frame of an episode, its distance and whether that is known, an instruction, and
        whether that is of the episode's own task."""
        row = self.cache.rows[index]
        held = self._held[index]
        other = self.opposed.get(row.task)
        if other and len(held) and rng.random() < self.opposed_share:
            words = self.instructions[other]
            return int(rng.choice(held)), (0, False), words[int(rng.integers(len(words)))], False
        instruction = row.instruction
        wordings = self.instructions.get(row.task)
        if wordings and rng.random() < self.rewording_share:
            instruction = wordings[int(rng.integers(len(wordings)))]
        border = self._border[index]
        if self.border_share and len(border) and rng.random() < self.border_share:
            time = int(rng.choice(border))
            return time, self._distance(index, time), instruction, True
        solved, pending = self._solved[index], self._open[index]
        if len(solved) and (not len(pending) or rng.random() < self.solved_share):
            return int(rng.choice(solved)), (0, True), instruction, True
        if rng.random() < self.near_share:  # almost solved, or where a failure ended up
            pending = pending[-self.near_frames :]
        time = int(rng.choice(pending))
        return time, self._distance(index, time), instruction, True

    def _distance(self, index: int, time: int) -> tuple[int, bool]:
        """Frames to go at an unsolved frame, or (of a failure) those left, and which it is."""
        solved = self._solved[index]
        if len(solved):
            return max(0, int(solved[0]) - time), True
        return self.cache.rows[index].length - 1 - time, False


def labels_of(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """(solved, holds) as in ``FrameCache``, (T+1,) int8 each."""
    if episode.success_at is not None:
        holds = episode.success_at.astype(np.int8)
        return np.maximum.accumulate(holds), holds
    solved = np.full(episode.length, UNKNOWN, np.int8)
    if episode.success is False:
        solved[:] = 0  # never solved: so at no frame, whatever happened between
    elif episode.success:
        solved[-1] = 1  # solved by the end; since when is not known
    return solved, np.full(episode.length, UNKNOWN, np.int8)


def margins_of(episode: Episode) -> np.ndarray:
    """(T+1,) float32 log(limit / distance to the goal) of every frame; NaN where not measured."""
    distances, limit = distances_of(episode)
    return -np.log(np.maximum(distances, 1e-4) / limit)


def world_of(episode: Episode) -> str:
    return str(episode.extra.get("world") or "recorded")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


def _decode(
    stores: Sequence[EpisodeStore], folder: Path, views: tuple[str, ...]
) -> tuple[list[EpisodeRow], tuple[int, ...]]:
    rows: list[EpisodeRow] = []
    parts: dict[str, list[np.ndarray]] = {
        "poses": [],
        "solved": [],
        "holds": [],
        "margins": [],
    }
    shape: tuple[int, ...] | None = None
    first = 0
    with (folder / "frames.bin").open("wb") as file:
        for store in stores:
            for index in range(len(store)):
                episode = store.episode(index)
                if episode.success is None and episode.success_at is None:
                    continue  # nobody knows how it ended: nothing to learn from
                missing = [view for view in views if view not in episode.views]
                if missing:
                    raise MismatchError(
                        f"episode {episode.key!r} has the views {tuple(episode.views)}, expected "
                        f"{views}: {missing} are missing"
                    )
                frames = episode.frames[:, [episode.views.index(view) for view in views]]
                if shape is None:
                    shape = frames.shape[1:]
                if frames.shape[1:] != shape:
                    raise MismatchError(
                        f"episode {episode.key!r} has frames {frames.shape[1:]}, the ones before "
                        f"it {shape}; all stores need the same views and size"
                    )
                file.write(np.ascontiguousarray(frames).data)
                solved, holds = labels_of(episode)
                parts["poses"].append(episode.poses.astype(np.float32))
                parts["solved"].append(solved)
                parts["holds"].append(holds)
                parts["margins"].append(margins_of(episode))
                success = bool(episode.success) if episode.success is not None else solved[-1] == 1
                rows.append(
                    EpisodeRow(
                        key=episode.key,
                        task=episode.task,
                        instruction=episode.instruction,
                        world=world_of(episode),
                        success=bool(success),
                        first=first,
                        length=len(frames),
                    )
                )
                first += len(frames)
    if shape is None:
        raise DataError("no training episode has a known outcome; record or label some first")
    for name, arrays in parts.items():
        np.save(folder / f"{name}.npy", np.concatenate(arrays))
    return rows, shape


def _identity(stores: Sequence[EpisodeStore], views: tuple[str, ...]) -> list[object]:
    """What the cache was made from: views, folders, and all episodes in them."""
    identity: list[object] = [list(views)]
    for store in stores:
        identity += [str(store.root.resolve()), digests.of_store(store)]
    return identity
