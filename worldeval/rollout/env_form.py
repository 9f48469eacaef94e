"""What a gymnasium environment of a world takes and shows: how long a step is, what is observed.

Enters: choices of the user, a robot and a suite. Leaves: gymnasium's spaces, and observations of
these spaces. "dict" is as LeRobot's environments give it, with the words beside::

    {"pixels": {view: (H, W, 3) uint8}, "agent_pos": (P,) float32, "instruction": text}

"flat" is one vector for learners of small networks, float32: the pose with its bounds as -1 and 1,
each view averaged down to ``view_size`` with its colours as 0 to 1, and, where a suite has several
tasks, a 1 at the place of the rollout's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from worldeval.errors import ConfigError
from worldeval.registry import did_you_mean
from worldeval.robots import RobotSpec
from worldeval.rollout.observing import resize
from worldeval.rollout.suite import Suite
from worldeval.types import StartState

STEPS = ("chunk", "action")
PICTURES = ("frame", "chunk")
OBSERVATIONS = ("dict", "flat")


@dataclass(frozen=True, kw_only=True)
class EnvForm:
    """The form of an environment's actions and observations.

    step: "chunk": as many control steps as the world is stepped by; "action": a single one.
    pictures: of single actions, whether the world goes on whenever they fill a "frame", as for a
        policy that is asked at each step, or a "chunk", as for one that carries out whole chunks
        (a world model is a chunk's frames faster then). Until it does, picture and pose stay.
    observation: "dict" or "flat". views: those in "flat", all if None. view_size: (H, W) of each.
    """

    step: str = "chunk"
    pictures: str = "frame"
    observation: str = "dict"
    view_size: tuple[int, int] = (8, 8)
    views: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("step", STEPS),
            ("pictures", PICTURES),
            ("observation", OBSERVATIONS),
        ):
            given = getattr(self, name)
            if given not in known:
                near = did_you_mean(str(given), known)
                raise ConfigError(
                    f"{name} is {given!r}{near}, expected {' or '.join(map(repr, known))}"
                )
        size: Any = self.view_size
        pair = size.tolist() if isinstance(size, np.ndarray) else size
        right = isinstance(pair, Sequence) and len(pair) == 2
        if not right or not all(type(n) is int and n > 0 for n in pair):
            raise ConfigError(f"view_size is {size!r}, expected (height, width) in pixels")
        object.__setattr__(self, "view_size", tuple(pair))
        if self.views is not None:
            names = (self.views,) if isinstance(self.views, str) else tuple(self.views)
            object.__setattr__(self, "views", names)

    def check(self, robot: RobotSpec) -> None:
        """Raise ConfigError for a view that the robot does not have."""
        for view in self.views or ():
            if view not in robot.views:
                raise ConfigError(
                    f"views has {view!r}{did_you_mean(view, robot.views)}, but robot "
                    f"{robot.name!r} has {', '.join(robot.views)}"
                )

    def space(self, robot: RobotSpec, suite: Suite) -> spaces.Space[Any]:
        """What one rollout shows."""
        self.check(robot)
        return self._flat_space(robot, suite) if self.observation == "flat" else _dict(robot, suite)

    def observe(
        self, robot: RobotSpec, suite: Suite, start: StartState, frame: np.ndarray, pose: np.ndarray
    ) -> Any:
        """An element of ``space``. frame: (V, H, W, 3) uint8, pose: (P,)."""
        if self.observation == "flat":
            return self._flat(robot, suite, start, frame, pose)
        return {
            "pixels": {view: frame[v].copy() for v, view in enumerate(robot.views)},
            "agent_pos": bounded(robot, pose),
            "instruction": start.instruction,
        }

    def _flat_space(self, robot: RobotSpec, suite: Suite) -> spaces.Box:
        most = 1.0 if robot.poses_are_bounded else np.inf
        pixels = len(self.views or robot.views) * self.view_size[0] * self.view_size[1] * 3
        rest = pixels + _places(suite)
        low = [*[-most] * robot.pose_dim, *[0.0] * rest]
        high = [*[most] * robot.pose_dim, *[1.0] * rest]
        return spaces.Box(np.asarray(low, np.float32), np.asarray(high, np.float32))

    def _flat(
        self, robot: RobotSpec, suite: Suite, start: StartState, frame: np.ndarray, pose: np.ndarray
    ) -> np.ndarray:
        low, high = np.asarray(robot.pose_low), np.asarray(robot.pose_high)
        shown = 2 * (bounded(robot, pose) - low) / (high - low) - 1
        if robot.poses_are_bounded:
            shown = np.clip(shown, -1, 1)
        seen = [frame[robot.views.index(view)] for view in self.views or robot.views]
        small = [resize(image, self.view_size).ravel() / np.float32(255) for image in seen]
        place = np.zeros(_places(suite))
        if len(place):
            place[suite.tasks.index(start.task)] = 1
        return np.concatenate([shown, *small, place]).astype(np.float32)


def bounded(robot: RobotSpec, pose: np.ndarray) -> np.ndarray:
    """The pose (P,) as float32, inside of bounds at which the controller stops."""
    if not robot.poses_are_bounded:
        return pose.astype(np.float32)
    # A pose on its bound may lie outside by the rounding of float32.
    low, high = (np.asarray(b, np.float32) for b in (robot.pose_low, robot.pose_high))
    return np.clip(pose, low, high).astype(np.float32)


def _places(suite: Suite) -> int:
    """How many numbers tell the tasks of a suite apart."""
    return len(suite.tasks) if len(suite.tasks) > 1 else 0


def _dict(robot: RobotSpec, suite: Suite) -> spaces.Dict:
    image, most = (*robot.image_size, 3), robot.poses_are_bounded
    words = [start.instruction for start in suite.starts]
    return spaces.Dict(
        {
            "pixels": spaces.Dict(
                {view: spaces.Box(0, 255, image, np.uint8) for view in robot.views}
            ),
            "agent_pos": spaces.Box(
                np.asarray(robot.pose_low, np.float32) if most else -np.inf,
                np.asarray(robot.pose_high, np.float32) if most else np.inf,
                shape=(robot.pose_dim,),
                dtype=np.float32,
            ),
            "instruction": spaces.Text(
                min_length=0,
                max_length=max(1, *map(len, words)),
                charset="".join(sorted(set("".join(words)))) or " ",
            ),
        }
    )
