"""Whose recordings are these? The robot of a dataset that ``prepare`` is to read.

Enters: the dataset, and what the user said. Leaves: a robot, or None for DROID's Panda, and what
the user must know, a sentence each. A first robot is proposed where none is known.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from worldeval.data.atomic import write_atomically
from worldeval.data.files import load_json
from worldeval.data.readers.droid_keys import known_key_maps
from worldeval.data.readers.lerobot_columns import read_spelling
from worldeval.data.readers.lerobot_index import LeRobotIndex
from worldeval.data.readers.lerobot_proposal import Proposal, propose_robot
from worldeval.data.readers.own import is_own
from worldeval.errors import ConfigError, DataError
from worldeval.motion.panda import panda
from worldeval.robots import RobotSpec, read_robot, write_robot
from worldeval.world_model.prepare_episode import layout_of

ROBOT_FILE = "robot.toml"
_DROID_ENTRIES = frozenset({"cartesian_position", "joint_position", "gripper"})


def sized_robot(
    source: Path,
    out: Path,
    layout: str,
    robot: str | None,
    key_map: Path | None,
    image_size: tuple[int, int] | None,
) -> tuple[RobotSpec | None, list[str]]:
    """The robot with frames of ``image_size`` (its own, if None), see ``choose_robot``."""
    chosen, notes = choose_robot(source, out, layout, robot, key_map, image_size)
    if chosen is not None and image_size is not None:
        chosen = replace(chosen, image_size=image_size)
    return chosen, notes


def choose_robot(
    source: Path,
    out: Path,
    layout: str,
    robot: str | None,
    key_map: Path | None,
    image_size: tuple[int, int] | None = None,
) -> tuple[RobotSpec | None, list[str]]:
    """None for DROID's Panda. A proposed robot is written to ``out``/robot.toml, with the size of
    frames that was asked for.

    Raises DataError where what the actions mean cannot be told from the dataset: the file is
    written all the same, and read when the command is given again.
    """
    is_droid = panda(action_space="absolute_pose").name
    if layout_of(source, layout) == "ctrl-world":
        if robot is not None and read_robot(robot).name != is_droid:
            raise ConfigError(
                f"{source} is laid out as Ctrl-World's release, which is of DROID's Panda, not of "
                f"robot {robot!r}; leave --robot out"
            )
        return None, []
    if robot is not None:
        chosen = read_robot(robot)
        if is_own(layout):
            return chosen, []
        return (None if chosen.name == is_droid else chosen), []
    if is_own(layout):
        raise ConfigError(
            f"reader {layout!r} is not told of which robot {source} is; give --robot, as its TOML "
            "file or its name (`worldeval robots` lists them)"
        )
    if _spelled_as_droid(source, key_map):
        return None, []
    own = source / "meta" / ROBOT_FILE  # what `worldeval export lerobot` writes
    path = out / ROBOT_FILE if not own.is_file() else own
    if path.is_file():
        return read_robot(path), [f"the robot is that of {path}"]
    proposal = propose_robot(source, None if key_map is None else read_spelling(key_map))
    if image_size is not None:
        proposal = replace(proposal, robot=replace(proposal.robot, image_size=image_size))
    _write(proposal, source, path)
    notes = [f"a first robot was written to {path}: {sentence}" for sentence in proposal.to_check]
    if proposal.sure:
        return proposal.robot, notes
    raise DataError(
        f"no robot is known for {source}; a first one was written to {path}, where these are to be "
        f"corrected: {'; '.join(proposal.to_check)}. Then give the same command again"
    )


def _spelled_as_droid(source: Path, key_map: Path | None) -> bool:
    if key_map is not None:
        try:
            content = load_json(key_map)
        except (OSError, ValueError):
            return True  # its reader says what is wrong
        return not isinstance(content, dict) or bool(_DROID_ENTRIES & set(content))
    features = LeRobotIndex(source).features
    return any(not known.lacking(features) for known in known_key_maps())


def _write(proposal: Proposal, source: Path, path: Path) -> None:
    """A file with what to check as comments at its top, whole or not at all."""
    comments = [
        f"# A first robot for {source}, from its info.json and statistics. Correct it here,",
        "# then give the same command again, or --robot with this file and another folder.",
        *(f"# To check: {sentence}." for sentence in proposal.to_check),
    ]

    def write(temporary: Path) -> None:
        write_robot(proposal.robot, temporary)
        robot = temporary.read_text(encoding="utf-8")
        temporary.write_text("\n".join(comments) + "\n\n" + robot, encoding="utf-8")

    try:
        write_atomically(path, write)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}); choose another folder"
        ) from error
