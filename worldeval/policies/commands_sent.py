"""A server's commands against the robot's own conventions: where grippers are cut, what is clipped.

Enters: a RobotSpec, and actions as a server sent them. Leaves: at which number each gripper is
opened or closed, and sentences about numbers that fit the robot badly. A server knows nothing of
the robot at this end: a gripper of [0, 1] for one of [-1, 1], degrees for radians or statistics of
another robot are all answered without an error, and only their numbers tell.
"""

from __future__ import annotations

import math

import numpy as np

from worldeval.errors import ConfigError
from worldeval.robots import RobotSpec
from worldeval.robots.bounds import beyond

BINARY = "binary"
GRIPPERS = (BINARY, "continuous")
ENOUGH = 32
"""So many commands of a gripper on one side only are worth a word."""


def gripper_cuts(robot: RobotSpec, gripper: str, at: float | None) -> dict[int, float]:
    """Axis of each gripper that is opened or closed wholly -> the number that divides the two.

    By default the middle of the robot's own bounds: 0.5 for DROID's [0, 1], 0 for [-1, 1].
    """
    if gripper not in GRIPPERS:
        raise ConfigError(f"gripper is {gripper!r}, expected one of {GRIPPERS}")
    number = isinstance(at, int | float) and not isinstance(at, bool) and math.isfinite(at)
    if at is not None and not number:
        raise ConfigError(f"gripper_at is {at!r}, expected a number")
    if gripper != BINARY:
        if at is not None:
            raise ConfigError(f"gripper_at is {at!r}, but gripper is {gripper!r}; leave one out")
        return {}
    if at is not None and not robot.gripper_axes:
        raise ConfigError(
            f"gripper_at is {at!r}, but robot {robot.name!r} has no action with 'grip' in its name "
            f"({', '.join(robot.action_names)}); leave it out"
        )
    cuts = {}
    for axis in robot.gripper_axes:
        low, high = robot.action_low[axis], robot.action_high[axis]
        if not math.isfinite(low + high):
            raise ConfigError(
                f"robot {robot.name!r} has no bounds for {robot.action_names[axis]!r}, so it "
                "cannot be opened or closed wholly; say gripper=continuous"
            )
        cuts[axis] = (low + high) / 2 if at is None else float(at)
    return cuts


def told_cuts(robot: RobotSpec, cuts: dict[int, float]) -> str:
    """How the grippers are carried out, as a sentence."""
    if not cuts:
        return "its gripper is carried out as the server says"
    return "; ".join(
        f"{robot.action_names[axis]!r} is cut at {at:g} of [{robot.action_low[axis]:g}, "
        f"{robot.action_high[axis]:g}], up to it {robot.action_low[axis]:g} and above it "
        f"{robot.action_high[axis]:g} is carried out"
        for axis, at in cuts.items()
    )


class Sent:
    """Extremes and counts of the commands of a run, an axis each; constant memory."""

    def __init__(self, robot: RobotSpec, cuts: dict[int, float]) -> None:
        self._robot, self._cuts = robot, cuts
        self._count = 0
        self._outside = np.zeros(robot.action_dim, int)
        self._least = np.full(robot.action_dim, np.inf)
        self._most = np.full(robot.action_dim, -np.inf)

    def add(self, actions: np.ndarray) -> None:
        """Count actions (K, A), as they came."""
        self._count += len(actions)
        low, high = self._robot.action_low, self._robot.action_high
        self._outside += beyond(actions, low, high).sum(0)
        self._least = np.minimum(self._least, actions.min(0))
        self._most = np.maximum(self._most, actions.max(0))

    def notes(self, policy: str, *, clipped: bool) -> list[str]:
        """Sentences; none where all fits."""
        found = [*self._one_sided(policy)]
        axes = np.flatnonzero(self._outside)
        if len(axes) and clipped:
            robot = self._robot
            each = "; ".join(
                f"{robot.action_names[i]} {self._outside[i]} of {self._count}, "
                f"{self._least[i]:.4g} to {self._most[i]:.4g} where [{robot.action_low[i]:g}, "
                f"{robot.action_high[i]:g}] is allowed"
                for i in axes
            )
            found.append(
                f"policy {policy!r}: {self._outside.sum()} of {self._count * robot.action_dim} "
                f"numbers were outside of the bounds of robot {robot.name!r} and were clipped to "
                f"them ({each}); look for units or "
                "statistics of another robot, or have them refused with clip=false"
            )
        return found

    def _one_sided(self, policy: str) -> list[str]:
        """Of grippers that were never opened, or never closed, in the robot's other half."""
        found = []
        for axis, at in self._cuts.items():
            least, most = self._least[axis], self._most[axis]
            if self._count >= ENOUGH and most > least and (least > at or most <= at):
                found.append(
                    f"policy {policy!r}: all {self._count} commands of "
                    f"{self._robot.action_names[axis]!r} ({least:.4g} to {most:.4g}) were on one "
                    f"side of {at:g}, where it is cut, so it never moved; if its server means "
                    "another range, say gripper_at=NUMBER"
                )
        return found
