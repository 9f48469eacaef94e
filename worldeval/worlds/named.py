"""Robots by name, for the command line: each is imported when it is asked for.

Enters: a robot's name and, where it has a choice, its action space, frame rate and percentiles.
Leaves: a ``RobotSpec``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from worldeval.data.fit import check_store, kept_robot
from worldeval.data.store.reading import StoredEpisodes
from worldeval.errors import ConfigError, MismatchError
from worldeval.motion import panda
from worldeval.robots import RobotSpec, read_robot

SAWYER = "metaworld-sawyer"


def robot_named(
    name: str,
    *,
    action_space: str | None = None,
    steps_per_frame: int | None = None,
    image_size: tuple[int, int] | None = None,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
) -> RobotSpec:
    """The robot ``name``; what is None is as usual with it.

    statistics: lowest and highest poses for a world model: those with which it was trained.
    Raises ConfigError for an unknown name, and for a choice that the robot does not have.
    """
    robot = read_robot(name)
    for what, given in (
        ("action_space", action_space),
        ("steps_per_frame", steps_per_frame),
        ("image_size", image_size),
        ("statistics", statistics),
    ):
        own = (robot.pose_low, robot.pose_high) if what == "statistics" else getattr(robot, what)
        if robot.name == SAWYER and given is not None and given != own:  # as it is simulated
            raise ConfigError(
                f"robot {name!r} has {what} {own!r}, {given!r} was asked for; leave it out"
            )
    return as_asked(
        robot,
        action_space=action_space,
        steps_per_frame=steps_per_frame,
        image_size=image_size,
        statistics=statistics,
    )


def as_asked(
    robot: RobotSpec,
    *,
    action_space: str | None = None,
    steps_per_frame: int | None = None,
    image_size: tuple[int, int] | None = None,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
) -> RobotSpec:
    """``robot`` with another rate, size or bounds, or, if it is a Panda, another action space."""
    if action_space is not None and robot.kinematics == panda.KINEMATICS:
        robot = panda.commanded(robot, action_space)
    if action_space not in (None, robot.action_space):
        raise ConfigError(
            f"robot {robot.name!r} has action_space {robot.action_space!r}, {action_space!r} was "
            "asked for; leave it out"
        )
    if (steps_per_frame, image_size, statistics) == (None, None, None):
        return robot
    low, high = statistics or (robot.pose_low, robot.pose_high)
    return replace(
        robot,
        steps_per_frame=robot.steps_per_frame if steps_per_frame is None else steps_per_frame,
        image_size=image_size or robot.image_size,
        pose_low=tuple(float(x) for x in low),
        pose_high=tuple(float(x) for x in high),
    )


def space_of(robot: str, action_names: Sequence[str]) -> str | None:
    """The action space of ``robot`` whose actions have these names; None where it has no choice."""
    if robot != panda.NAME:
        return None
    for space, actions in panda.ACTION_SPACES.items():
        if tuple(name for name, _, _ in actions) == tuple(action_names):
            return space
    raise MismatchError(
        f"actions {tuple(action_names)} belong to no action space of {robot!r}, which has "
        f"{tuple(panda.ACTION_SPACES)}; was the store written by another version?"
    )


def robot_of_store(store: StoredEpisodes, given: str | None = None) -> RobotSpec:
    """The robot that recorded a store; a Panda's pose bounds are DROID's percentiles.

    given: a TOML file, a name or "module:attr" instead of what the store keeps. Raises
    MismatchError where the store is not of that robot.
    """
    layout = store.layout
    if given is not None:
        robot = read_robot(given)
        check_store(store, robot)
        return robot
    if (kept := kept_robot(store)) is not None:
        return kept
    if layout.robot_type != panda.NAME:
        return robot_named(layout.robot_type)
    return robot_named(
        layout.robot_type,
        action_space=space_of(layout.robot_type, layout.action_names),
        steps_per_frame=layout.steps_per_frame,
        image_size=layout.image_size,
    )


def robot_of_store_if_known(store: StoredEpisodes, given: str | None = None) -> RobotSpec | None:
    """``robot_of_store``; None for a store that keeps only a name that nobody knows here."""
    if given is None and kept_robot(store) is None:
        try:
            return robot_of_store(store)
        except ConfigError:
            return None
    return robot_of_store(store, given)
