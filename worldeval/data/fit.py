"""Was a store recorded with this robot? Asked before anything is learned or imagined from it.

Enters: a store and a robot. Leaves: nothing, or MismatchError naming the first disagreement. Units
are part of the names of poses ("hand_x_m"), so that a store in centimetres is refused too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldeval.data import checkpoint
from worldeval.data.store.reading import StoredEpisodes
from worldeval.errors import CheckpointError, ConfigError, MismatchError, StoreError
from worldeval.robots import RobotSpec, robot_as_json, robot_from_json

ROBOT = "robot"
"""Where a store keeps the whole robot, among the extra facts of its info.json, and a checkpoint, in
its config.json."""


def check_store(
    store: StoredEpisodes, robot: RobotSpec, *, actions: bool = True, rates: bool = True
) -> None:
    """Raise MismatchError unless the store has the views, sizes, names and rate of ``robot``.

    actions: whether recorded actions are used, so that their names must agree. rates: whether
    recorded motion is; not where rollouts only begin at the episodes' first frames. A store may
    have joints that the robot does not name; the other way round it cannot be used.
    """
    layout = store.layout
    joints = layout.joint_names if robot.joint_names else ()
    names = (("action names", layout.action_names, robot.action_names),)
    speeds = (
        ("control steps per frame", layout.steps_per_frame, robot.steps_per_frame),
        ("frames per second", float(layout.fps), float(robot.frame_hz)),
    )
    for what, found, wanted in (
        ("robot", layout.robot_type, robot.name),
        ("views", layout.views, robot.views),
        ("image size", layout.image_size, tuple(robot.image_size)),
        ("pose names", layout.pose_names, robot.pose_names),
        ("joint names", joints, robot.joint_names),
        *(names if actions else ()),
        *(speeds if rates else ()),
    ):
        if found != wanted:
            raise MismatchError(
                f"{store.root} has {what} {found!r}, robot {robot.name!r} has {wanted!r}; choose a "
                "store of this robot, or record one"
            )


def robot_extra(robot: RobotSpec) -> dict[str, Any]:
    """The whole robot, for ``extra`` of a store, so that no verb has to ask for it."""
    return {ROBOT: robot_as_json(robot)}


def kept_robot(store: StoredEpisodes) -> RobotSpec | None:
    """The whole robot that a store keeps; None in stores of versions that kept its name only."""
    values = store.info.get("worldeval", {}).get("extra", {}).get(ROBOT)
    if not isinstance(values, Mapping):
        return None
    try:
        return robot_from_json(values)
    except ConfigError as error:
        raise StoreError(
            f"{store.root} keeps a robot that cannot be read ({error}); it is damaged, or of "
            "another version"
        ) from error


def robot_of_checkpoint(folder: str | Path) -> RobotSpec | None:
    """The whole robot that a checkpoint was made for; None of one that kept no robot."""
    header = checkpoint.read_header(folder)
    config = header["config"]
    # World models and policies keep it among their settings.
    found = (header.get(ROBOT), config.get("spec"), config.get(ROBOT))
    values = next((value for value in found if isinstance(value, Mapping)), None)
    if values is None:
        return None
    try:
        return robot_from_json(values)
    except ConfigError as error:
        raise CheckpointError(
            f"{folder} keeps a robot that cannot be read ({error}); it is damaged, or of another "
            "version"
        ) from error


def check_made_for(
    made: str, kept: RobotSpec | None, data: StoredEpisodes | RobotSpec, *, rates: bool = True
) -> None:
    """Raise MismatchError unless ``made``, trained for the robot ``kept``, is for ``data`` too.

    made: what it is called in the sentence, such as "judge runs/judge". kept: None for what kept no
    robot, of which nothing can be said. data: a store, or the robot that it is to serve. rates:
    whether it looks at motion from frame to frame, so that frames must follow as fast.
    """
    if kept is None:
        return
    if isinstance(data, RobotSpec):
        where, name, poses, rate = f"robot {data.name!r}", data.name, data.pose_names, data.frame_hz
    else:
        layout = data.layout
        where, name, poses = str(data.root), layout.robot_type, tuple(layout.pose_names)
        rate = float(layout.fps)
    same_rate = not rates or math.isclose(kept.frame_hz, rate, rel_tol=1e-6)
    for what, ours, theirs in (
        ("robot", kept.name, name),
        ("pose names", kept.pose_names, poses),
        ("frames per second", kept.frame_hz, kept.frame_hz if same_rate else rate),
    ):
        if ours != theirs:
            raise MismatchError(
                f"{made} was trained for {what} {ours!r}, {where} has {theirs!r}; use one that was "
                "trained for this robot, or train one"
            )


def store_fields(robot: RobotSpec) -> dict[str, Any]:
    """What the robot decides of a store: arguments for ``EpisodeStore.create``."""
    return {
        "views": robot.views,
        "image_size": robot.image_size,
        "pose_names": robot.pose_names,
        "action_names": robot.action_names,
        "joint_names": robot.joint_names,
        "steps_per_frame": robot.steps_per_frame,
        "fps": robot.frame_hz,
        "robot_type": robot.name,
    }
