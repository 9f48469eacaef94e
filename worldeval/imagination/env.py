"""The world model as a world: reset to a recorded first frame, step by action chunks.

In: a world-model checkpoint, its autoencoder, and a store whose episodes begin at the start states
(``extra["start_id"]``). Out: the same answers as a simulator gives, except that no success flag
exists: a judge decides. A policy cannot tell the difference, nor can the rollout engine.

Whole chunks of the model's F frames are imagined. Of a step by fewer, the rest is imagined with the
last commanded pose held and dropped: it is neither shown nor remembered, and costs as much.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldeval.data import digests
from worldeval.data.fit import check_store
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import MismatchError, StartStateError, WorldError
from worldeval.learning.out_of_memory import free
from worldeval.robots import RobotSpec
from worldeval.types import ActionChunk, StartState, WorldStep
from worldeval.world_model.interfaces import LatentModel
from worldeval.world_model.latent_rollout import FrameRollouts, RolloutState
from worldeval.world_model.latents import LatentCache
from worldeval.world_model.loading import open_world_model
from worldeval.world_model.memory import Strategy
from worldeval.world_model.sampler import SamplerConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _First:
    """What a rollout starts from: frame (V, H, W, C), pose (P,), joints (J,), latents (V, C, h, w);
    the last two where they are known."""

    frame: np.ndarray
    pose: np.ndarray
    joints: np.ndarray | None
    latents: np.ndarray | None


class Imagination:
    """A batch of imagined rollouts; implements ``worldeval.types.World``."""

    name = "imagination"

    def __init__(
        self, frame_rollouts: FrameRollouts, robot: RobotSpec, starts: EpisodeStore
    ) -> None:
        check_robot(frame_rollouts.model, robot)
        check_store(
            starts, robot, actions=False, rates=len(frame_rollouts.model.config.frame_rates) == 1
        )
        self.robot = robot
        self.frame_rollouts = frame_rollouts
        self.frames_per_step = frame_rollouts.model.config.future
        self._most = 0  # rollouts at once that memory allows, once it has run out
        self._starts = starts
        table = starts.metadata()
        self._keys = [str(key) for key in table["key"]]
        named = frame_rollouts.model.config.latents
        self._latents = LatentCache(starts.root, named) if named else None
        self._digests: dict[str, str] = {}
        self._known = [str(name) for name in table.get("start_id", table["key"])]
        # by key too: a store of several policies' rollouts has a start state several times
        self._row_of_start = dict(zip(self._keys, table.index, strict=True)) | dict(
            zip(self._known, table.index, strict=True)
        )

    @classmethod
    def open(
        cls,
        world_model: str | Path,
        starts: str | Path | EpisodeStore,
        robot: RobotSpec,
        *,
        autoencoder: str | Path | None = None,
        memory: str | Strategy | None = None,
        sampler: SamplerConfig | None = None,
        device: str | None = None,
    ) -> Imagination:
        """From checkpoint folders. ``autoencoder`` defaults to the sibling folder of that name."""
        model, codec = open_world_model(world_model, autoencoder)
        frame_rollouts = FrameRollouts(
            model, codec, memory=memory, sampler=sampler, device=device or default_device()
        )
        store = starts if isinstance(starts, EpisodeStore) else EpisodeStore.open(starts)
        return cls(frame_rollouts, robot, store)

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        first = [self._start(start) for start in starts]
        self.frame_rollouts.reset(**self._arguments(first, starts, seeds))
        return self._began(first)

    def reset_rows(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> WorldStep:
        """Begin the rollouts ``rows`` of the last reset anew; the others go on untouched."""
        first = [self._start(start) for start in starts]
        self.frame_rollouts.reset_rows(rows, **self._arguments(first, starts, seeds))
        return self._began(first)

    def _arguments(
        self, first: Sequence[_First], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> dict[str, Any]:
        latents = [f.latents for f in first if f.latents is not None]
        return {
            "frames": np.stack([f.frame for f in first]),
            "poses": np.stack([f.pose for f in first]),
            "seeds": seeds,
            "instructions": [start.instruction for start in starts],
            "latents": np.stack(latents) if len(latents) == len(first) else None,
        }

    @staticmethod
    def _began(first: Sequence[_First]) -> WorldStep:
        joints = [f.joints for f in first if f.joints is not None]
        return WorldStep(
            frames=np.stack([f.frame for f in first])[:, None],
            poses=np.stack([f.pose for f in first])[:, None],
            joints=np.stack(joints)[:, None] if joints else None,
            success=None,
            info=[{} for _ in first],
        )

    def beside(self) -> Imagination:
        """Another world of the same weights and start states, whose rollouts are its own."""
        mine, latent = self.frame_rollouts, self.frame_rollouts.rollouts
        other = FrameRollouts(
            mine.model,
            mine.autoencoder,
            memory=latent.choose,
            sampler=latent.sampler,
            device=mine.device,
        )
        other.rollouts.memory_name = latent.memory_name
        return Imagination(other, self.robot, self._starts)

    def start_states(self) -> tuple[StartState, ...]:
        """All that rollouts can begin at, in the order of the store."""
        table = self._starts.metadata()
        times = Counter(self._known)
        return tuple(
            StartState(
                start_id=name if times[name] == 1 else key,
                task=str(row["task"]),
                seed=int(row.get("start_seed", row.get("seed", 0)) or 0),
                split=str(row.get("split", "recorded")),
                instruction=str(row["instruction"]),
            )
            for name, key, row in zip(
                self._known, self._keys, table.to_dict("records"), strict=True
            )
        )

    def start_digest(self, start: StartState) -> str:
        """Twelve digits for the frame, pose, joints and latents that ``start`` begins with."""
        if start.start_id not in self._digests:
            first = self._start(start)
            self._digests[start.start_id] = digests.of_arrays(
                first.frame, first.pose, first.joints, first.latents
            )
        return self._digests[start.start_id]

    def _start(self, start: StartState) -> _First:
        if start.start_id not in self._row_of_start:
            known = sorted(self._known)[:3]
            raise StartStateError(
                f"start state {start.start_id!r} is not in {self._starts.root}, which has "
                f"{len(self._known)} (such as {', '.join(map(repr, known))}); record it "
                "or choose one of these"
            )
        row = int(self._row_of_start[start.start_id])
        path, key = self._starts.trajectory(row), self._keys[row]
        cache = self._latents if self._latents is not None and key in self._latents else None
        return _First(
            frame=self._starts.frames(row, times=[0])[0],
            pose=path.poses[0],
            joints=None if path.joints is None else path.joints[0],
            latents=None if cache is None else cache.read(key)[0],
        )

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        frames, info = self._step(chunk.poses, list(rows))
        return WorldStep(
            frames=frames, poses=chunk.poses, joints=chunk.joints, success=None, info=info
        )

    def _step(self, poses: np.ndarray, rows: list[int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """``FrameRollouts.step`` in as many parts as the GPU's memory needs; equal."""
        most = self._most or len(rows)
        frames: list[np.ndarray] = []
        info: list[dict[str, Any]] = []
        while len(info) < len(rows):
            part = slice(len(info), len(info) + most)
            try:
                some, told = self.frame_rollouts.step(poses[part], rows[part])
            except torch.OutOfMemoryError as error:
                if most == 1:
                    raise WorldError(
                        "memory ran out with a single rollout; free some on the device, imagine "
                        "on another one, or use a smaller world model"
                    ) from error
                self._most = most = max(1, most // 2)
                free()
                log.warning(
                    "memory ran out with %d rollouts at once; going on with %d, the result is the "
                    "same: give --batch %d",
                    len(rows),
                    most,
                    most,
                )
                continue
            frames.append(some)
            info += told
        return np.concatenate(frames), info

    def snapshot(self, row: int) -> RolloutState:
        """The rollout ``row`` as it is now: what it has seen, and its randomness."""
        return self.frame_rollouts.snapshot(row)

    def restore(self, row: int, state: RolloutState, frames: int | None = None) -> None:
        """Go on with ``row`` from a snapshot, of which the first ``frames`` count (None: all)."""
        self.frame_rollouts.restore(row, state, frames)

    def close(self) -> None:
        """Nothing is held that needs closing."""


def default_device() -> str:
    """A GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_robot(model: LatentModel, robot: RobotSpec) -> None:
    """Raise MismatchError naming the first thing in which model and robot disagree."""
    c = model.config
    rate = robot.frame_hz if robot.frame_hz in c.frame_rates else c.frame_hz
    for what, ours, theirs in (
        ("robot", c.robot, robot.name),
        ("views", c.views, robot.views),
        ("frame rate in Hz", rate, robot.frame_hz),
        ("frames per chunk", c.future, robot.frames_per_chunk),
        ("pose bounds", (c.pose_low, c.pose_high), (robot.pose_low, robot.pose_high)),
    ):
        if ours != theirs:
            raise MismatchError(
                f"the world model was trained with {what} {ours}, robot {robot.name!r} has "
                f"{theirs}; use the robot it was trained on or train a model for this one"
            )
