"""The world model as a world: reset to a recorded first frame, step by action chunks.

In: a world-model checkpoint, its autoencoder, and a store whose episodes begin at the start states
(``extra["start_id"]``). Out: the same answers as a simulator gives, except that no success flag
exists: a judge decides. A policy cannot tell the difference, nor can the rollout engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from worldeval.data import checkpoint
from worldeval.data.episodes import EpisodeStore
from worldeval.data.fit import check_store
from worldeval.errors import CheckpointError, MismatchError, StartStateError
from worldeval.robots import RobotSpec
from worldeval.types import ActionChunk, StartState, WorldStep
from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.dreamer import Dreamer
from worldeval.world_model.memory import Strategy
from worldeval.world_model.model import WorldModel
from worldeval.world_model.sampler import SamplerConfig


class Imagination:
    """A batch of imagined rollouts; implements ``worldeval.types.World``."""

    name = "imagination"

    def __init__(self, dreamer: Dreamer, robot: RobotSpec, starts: EpisodeStore) -> None:
        check_robot(dreamer.model, robot)
        check_store(starts, robot)
        self.robot = robot
        self.dreamer = dreamer
        self.frames_per_step = dreamer.model.config.future
        self._starts = starts
        table = starts.metadata()
        # by key too: a store of several policies' rollouts has a start state several times
        self._row_of_start = dict(zip(table["key"], table.index, strict=True)) | dict(
            zip(table.get("start_id", []), table.index, strict=False)
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
        world_model = Path(world_model)
        folder = Path(autoencoder) if autoencoder else world_model.parent / "autoencoder"
        model = WorldModel.load(world_model)
        expected, found = model.config.autoencoder, checkpoint.digest(folder)
        if expected and expected != found:
            raise CheckpointError(
                f"{world_model} was trained on the latents of autoencoder {expected}, but {folder} "
                f"is {found}; give the autoencoder it was trained with"
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dreamer = Dreamer(
            model, Autoencoder.load(folder), memory=memory, sampler=sampler, device=device
        )
        store = starts if isinstance(starts, EpisodeStore) else EpisodeStore.open(starts)
        return cls(dreamer, robot, store)

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        first, poses = self._start(starts)
        self.dreamer.reset(first, poses, seeds)
        return self._began(first, poses)

    def reset_rows(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> WorldStep:
        """Begin the rollouts ``rows`` of the last reset anew; the others go on untouched."""
        first, poses = self._start(starts)
        self.dreamer.reset_rows(rows, first, poses, seeds)
        return self._began(first, poses)

    @staticmethod
    def _began(frames: np.ndarray, poses: np.ndarray) -> WorldStep:
        return WorldStep(
            frames=frames[:, None], poses=poses[:, None], success=None, info=[{} for _ in poses]
        )

    def _start(self, starts: Sequence[StartState]) -> tuple[np.ndarray, np.ndarray]:
        """First frames (B, V, H, W, C) and poses (B, P)."""
        frames, poses = [], []
        for start in starts:
            if start.start_id not in self._row_of_start:
                known = sorted(self._row_of_start)[:3]
                raise StartStateError(
                    f"start state {start.start_id!r} is not in {self._starts.root}, which has "
                    f"{len(self._row_of_start)} (such as {', '.join(map(repr, known))}); record it "
                    "or choose one of these"
                )
            episode = self._starts.episode(int(self._row_of_start[start.start_id]))
            frames.append(episode.frames[0])
            poses.append(episode.poses[0])
        return np.stack(frames), np.stack(poses)

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        frames, info = self.dreamer.step(chunk.poses, rows)
        return WorldStep(frames=frames, poses=chunk.poses, success=None, info=info)

    def close(self) -> None:
        """Nothing is held that needs closing."""


def check_robot(model: WorldModel, robot: RobotSpec) -> None:
    """Raise MismatchError naming the first thing in which model and robot disagree."""
    c = model.config
    for what, ours, theirs in (
        ("robot", c.robot, robot.name),
        ("views", c.views, robot.views),
        ("frame rate in Hz", c.frame_hz, robot.frame_hz),
        ("frames per chunk", c.future, robot.frames_per_chunk),
        ("pose bounds", (c.pose_low, c.pose_high), (robot.pose_low, robot.pose_high)),
    ):
        if ours != theirs:
            raise MismatchError(
                f"the world model was trained with {what} {ours}, robot {robot.name!r} has "
                f"{theirs}; use the robot it was trained on or train a model for this one"
            )
