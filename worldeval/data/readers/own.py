"""Readers that are not worldeval's: of another package, or "module:attr" in the working folder.

In: a name (an entry point of ``worldeval.readers``) or "module:attr", the dataset's folder, its
split and robot. Out: ``OwnDataset``, whose episodes ``prepare`` takes as those of its own readers.

A reader is a class, or any function ``(source, split, robot)`` whose value has::

    ids: tuple[str, ...]            which episodes there are
    episode(identity) -> Episode    one of them: frames at the robot's frame rate, of any size
    notes: list[str]                what a user must know, a sentence each (may be left out)

What it gives is checked before it is kept; an episode that is not as it should be is left out by
name, like a damaged file of any dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldeval import registry
from worldeval.data.readers.footage import resized
from worldeval.errors import ConfigError, DataError, WorldEvalError
from worldeval.robots import RobotSpec
from worldeval.types import Episode


def is_own(layout: str) -> bool:
    """Whether ``layout`` names a reader of somebody else."""
    return registry.is_attribute(layout) or layout in registry.entries("readers")


class OwnDataset:
    """The episodes of ``source`` as the reader called ``name`` gives them.

    Raises ConfigError for a reader that there is none of, or that lacks ``ids`` or ``episode``.
    """

    def __init__(self, name: str, source: Path, split: str, robot: RobotSpec) -> None:
        make = registry.registered("readers", name)
        make = registry.attribute(name) if make is None else make
        try:
            self._reader: Any = make(source, split, robot)
            self.ids = tuple(map(str, self._reader.ids))
            self._episode = self._reader.episode
        except WorldEvalError:
            raise
        except Exception as error:  # a stranger's reader may raise anything
            raise ConfigError(
                f"reader {name!r} cannot read {source}: {type(error).__name__}: {error}; it is "
                "called with (source, split, robot), and has ids and episode(identity)"
            ) from error
        self.notes: list[str] = list(getattr(self._reader, "notes", ()))
        self.name, self.source, self.split, self.robot = name, source, split, robot

    def episode(self, identity: str) -> OwnEpisode:
        """Raises DataError where the reader gives no episode of this robot."""
        given = self._episode(identity)
        where = f"episode {identity!r} of {self.source}, read by {self.name!r}"
        if not isinstance(given, Episode):
            raise DataError(
                f"{where} is a {type(given).__name__}, expected a worldeval.types.Episode"
            )
        _check(given, self.robot, where)
        return OwnEpisode(id=identity, split=self.split, where=where, given=given, robot=self.robot)


@dataclass(frozen=True, kw_only=True)
class OwnEpisode:
    """An ``Episode`` of somebody else's reader, in the form in which ``prepare`` takes episodes."""

    id: str
    split: str
    where: str
    given: Episode
    robot: RobotSpec
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.split}/{self.id}"

    @property
    def described_in(self) -> str:
        return self.where

    @property
    def instructions(self) -> tuple[str, ...]:
        return (self.given.instruction,) if self.given.instruction else ()

    @property
    def frames(self) -> int:
        """T+1."""
        return self.given.length

    @property
    def success(self) -> bool | None:
        return self.given.success

    def poses(self) -> np.ndarray:
        """(T+1, P) float32."""
        return self.given.poses.astype(np.float32)

    def joints(self) -> np.ndarray | None:
        """(T+1, J) float32, or None of a robot without joint names."""
        return None if self.given.joints is None else self.given.joints.astype(np.float32)

    def steps(self) -> np.ndarray:
        """(T, S, A) float32."""
        return self.given.actions.astype(np.float32)

    def images(self, size: tuple[int, int]) -> np.ndarray:
        """(T+1, V, H, W, 3) uint8, in the robot's order of views."""
        order = [self.given.views.index(view) for view in self.robot.views]
        pictures = [[resized(frame[view], size) for view in order] for frame in self.given.frames]
        return np.asarray(pictures, np.uint8)

    def extra(self) -> dict[str, Any]:
        """Facts for ``Episode.extra``."""
        return {"source_id": self.id, "steps": "recorded", **self.given.extra}


def _check(given: Episode, robot: RobotSpec, where: str) -> None:
    """Raise DataError naming the first thing that is not as a store of this robot has it."""
    lacking = [view for view in robot.views if view not in given.views]
    if lacking:
        raise DataError(
            f"{where} lacks the view {lacking[0]!r} of robot {robot.name!r}, it has "
            f"{', '.join(given.views) or 'none'}"
        )
    count = len(given.frames) - 1
    shapes: dict[str, tuple[Any, tuple[int | None, ...]]] = {
        "frames": (given.frames, (count + 1, len(given.views), None, None, 3)),
        "poses": (given.poses, (count + 1, robot.pose_dim)),
        "actions": (given.actions, (count, robot.steps_per_frame, robot.action_dim)),
    }
    if robot.joint_names:
        shapes["joints"] = (given.joints, (count + 1, len(robot.joint_names)))
    for name, (array, wanted) in shapes.items():
        found = np.shape(array)
        fits = len(found) == len(wanted) and all(
            n in (None, m) for n, m in zip(wanted, found, strict=True)
        )
        if not fits:
            spelled = ", ".join("any" if n is None else str(n) for n in wanted)
            raise DataError(f"{where}: {name} are {found}, expected ({spelled})")
        if name != "frames" and not np.isfinite(np.asarray(array, np.float32)).all():
            raise DataError(f"{where}: {name} have NaN or infinity")
    if given.frames.dtype != np.uint8:
        raise DataError(f"{where}: frames are {given.frames.dtype}, expected uint8 (0 to 255)")
