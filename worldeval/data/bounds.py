"""Does what was recorded lie within the bounds of its robot? Told when it is stored.

Enters: a robot, and the poses and actions of its episodes. Leaves: sentences about what lies
outside. A world model takes the bounds of poses as -1 and 1, and
actions outside theirs are cut off when they are replayed: both would be found after training only.
"""

from __future__ import annotations

import numpy as np

from worldeval.data.store.reading import StoredEpisodes
from worldeval.errors import DataError
from worldeval.robots import RobotSpec
from worldeval.robots.bounds import beyond


def outside_bounds(store: StoredEpisodes, robot: RobotSpec) -> list[str]:
    """One sentence for each number of the actions (and of bounded poses) that leaves its bounds.

    Poses count where the robot stops at their bounds or they are joint targets; elsewhere bounds
    of poses are percentiles, which some of the data leave by their meaning.
    """
    actions, poses = _values(store)
    checked = [("action", actions, robot.action_names, robot.action_low, robot.action_high)]
    if robot.poses_are_bounded or robot.control_mode == "joint_target":
        checked.append(("pose", poses, robot.pose_names, robot.pose_low, robot.pose_high))
    sentences = []
    for what, values, names, lows, highs in checked:
        for name, column, low, high in zip(names, values.T, lows, highs, strict=True):
            share = float(np.mean(beyond(column, low, high)))
            if share > 0:
                sentences.append(
                    f"{what} {name!r} goes from {column.min():.4g} to {column.max():.4g}, but "
                    f"robot {robot.name!r} has the bounds {low:g} to {high:g} "
                    f"({share:.1%} lie outside); correct the bounds in the robot's file"
                )
    return sentences


def _values(store: StoredEpisodes) -> tuple[np.ndarray, np.ndarray]:
    """Actions (N, A) and poses (M, P) of all episodes."""
    known = [store.trajectory(i) for i in range(len(store))]
    if not known:
        raise DataError(f"{store.root} holds no episodes, so there are no bounds to look at")
    actions = [np.reshape(one.actions, (-1, one.actions.shape[-1])) for one in known]
    return np.concatenate(actions), np.concatenate([one.poses for one in known])
