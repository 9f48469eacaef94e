"""What is kept of one rollout while it runs, and the episode that it becomes.

Enters: the start frame, then each chunk's frames, actions and log. Leaves: an ``Episode`` with key
``policy/start_id`` for the store. Frames are kept in one buffer of the rollout's full length, made
at the start, so that memory does not grow while it runs and is freed when it is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.data.fit import robot_extra, store_fields
from worldeval.data.provenance import jsonable
from worldeval.data.store.episodes import EpisodeStore
from worldeval.robots import RobotSpec
from worldeval.rollout.suite import rollout_seed
from worldeval.types import Episode, Outcome, StartState, World

if TYPE_CHECKING:
    import pandas as pd

START = "start_digest"
"""Fact of a rollout: the digest of what it began at; see ``resuming.py``."""

MOST_TRACEBACK = 8000
"""Characters of a traceback that are kept, its last ones."""


def rollout_key(policy: str, start_id: str) -> str:
    """The name of a rollout in a store."""
    return f"{policy}/{start_id}"


def starts_of(rollouts: pd.DataFrame) -> tuple[StartState, ...]:
    """The start state of each row of a table of rollouts, as ``EpisodeStore.metadata`` gives it."""
    return tuple(
        StartState(
            start_id=str(row["start_id"]),
            task=str(row["task"]),
            seed=int(row["start_seed"]),
            split=str(row["split"]),
            instruction=str(row["instruction"]),
        )
        for _, row in rollouts.iterrows()
    )


def start_digest(world: World, start: StartState) -> str | None:
    """What the world says of the content of a start state, by its method of this name; None where
    it has none, because it makes up what it shows from the seed."""
    known = getattr(world, "start_digest", None)
    return None if known is None else str(known(start))


def open_rollouts(root: str | Path, robot: RobotSpec, *, images: str = "video") -> EpisodeStore:
    """Open or create a store for rollouts of ``robot``; images: "video" or "lossless"."""
    return EpisodeStore.open_or_create(
        root,
        **store_fields(robot),
        images=images,
        extra={"kind": "rollouts", **robot_extra(robot)},
    )


class Recording:
    """One rollout under way."""

    def __init__(
        self,
        *,
        start: StartState,
        world: str,
        policy: str,
        robot: RobotSpec,
        seed: int,
        most_frames: int,
        start_digest: str | None = None,
    ) -> None:
        self.start = start
        self.start_digest = start_digest
        self.world = world
        self.policy = policy
        self.key = rollout_key(policy, start.start_id)
        self.chunks: list[dict[str, Any]] = []
        self._robot = robot
        self._seed = seed
        self._count = 0
        height, width = robot.image_size
        shape = (most_frames, len(robot.views), height, width, 3)
        self._frames = np.zeros(shape, np.uint8)
        self._poses = np.zeros((most_frames, robot.pose_dim), np.float32)
        self._joints = np.zeros((most_frames, robot.joint_dim), np.float32)
        self._actions = np.zeros(
            (most_frames - 1, robot.steps_per_frame, robot.action_dim), np.float32
        )
        self._success = np.zeros(most_frames, bool)
        self._has_flag = False
        self._last: int | None = None  # frame that ends it, known once success is flagged

    @classmethod
    def of(
        cls, world: World, policy: str, start: StartState, seed: int, *, most_frames: int
    ) -> Recording:
        """A rollout of the policy called so. seed: of all randomness, as of a suite."""
        return cls(
            start=start,
            world=world.name,
            policy=policy,
            robot=world.robot,
            seed=rollout_seed(seed, start.start_id, "world"),
            most_frames=most_frames,
            start_digest=start_digest(world, start),
        )

    @property
    def steps(self) -> int:
        """Control steps carried out."""
        return max(0, self._count - 1) * self._robot.steps_per_frame

    @property
    def succeeded(self) -> bool:
        """Whether the world has flagged success after the start."""
        return bool(self._success[1 : self._count].any())

    @property
    def shown(self) -> bool:
        """Whether a whole chunk of the robot follows the one in which success was flagged."""
        return self._last is not None and self._count > self._last

    def begin(
        self,
        frame: np.ndarray,
        pose: np.ndarray,
        success: bool | None,
        joints: np.ndarray | None = None,
    ) -> None:
        """The start: frame (V, H, W, 3), pose (P,), joints (J,)."""
        self._frames[0], self._poses[0] = frame, pose
        if joints is not None:
            self._joints[0] = joints
        self._has_flag = success is not None
        self._success[0] = bool(success)
        self._count = 1

    def add(
        self,
        *,
        frames: np.ndarray,
        poses: np.ndarray,
        actions: np.ndarray,
        success: np.ndarray | None,
        log: Mapping[str, Any],
        joints: np.ndarray | None = None,
    ) -> None:
        """One step of a world: frames (T, V, H, W, 3), poses (T, P), actions (K, A), success (T,),
        joints (T, J)."""
        new = slice(self._count, self._count + len(frames))
        self._frames[new], self._poses[new] = frames, poses
        self._actions[self._count - 1 : new.stop - 1] = actions.reshape(
            len(frames), self._robot.steps_per_frame, self._robot.action_dim
        )
        if success is not None:
            self._success[new] = success
            if self._last is None and np.any(success):
                chunk = self._robot.frames_per_chunk
                first = new.start + int(np.argmax(success))
                self._last = (-(-first // chunk) + 1) * chunk
        if joints is not None:
            self._joints[new] = joints
        self._count = new.stop
        self.chunks.append(jsonable(log))

    def finish(self, error: str = "", traceback: str = "") -> Episode:
        """The episode. ``error`` is the text of what ended it early, empty otherwise; ``traceback``
        says where that came from.

        A rollout that could not even begin is kept with a black start frame, so that it is
        counted among the errors instead of vanishing.
        """
        if self._count == 0:
            pose = np.clip(
                np.zeros(self._robot.pose_dim), self._robot.pose_low, self._robot.pose_high
            )
            self.begin(np.zeros_like(self._frames[0]), pose, None)
        count = self._count
        if error:
            outcome, success = Outcome.ERROR, None
        elif not self._has_flag:
            outcome, success = Outcome.UNDECIDED, None
        else:
            success = self.succeeded
            outcome = Outcome.SUCCESS if success else Outcome.FAILURE
        return Episode(
            key=self.key,
            task=self.start.task,
            instruction=self.start.instruction,
            views=self._robot.views,
            frames=self._frames[:count],
            poses=self._poses[:count],
            actions=self._actions[: count - 1],
            joints=self._joints[:count] if self._robot.joint_names else None,
            success_at=self._success[:count] if self._has_flag else None,
            success=success,
            extra={
                "policy": self.policy,
                "world": self.world,
                "start_id": self.start.start_id,
                "split": self.start.split,
                "start_seed": self.start.seed,
                "seed": self._seed,
                **({} if self.start_digest is None else {START: self.start_digest}),
                "steps": self.steps,
                "outcome": outcome.value,
                "error": error,
                **({"traceback": traceback[-MOST_TRACEBACK:]} if traceback else {}),
                "chunks": json.dumps(self.chunks),
            },
        )
