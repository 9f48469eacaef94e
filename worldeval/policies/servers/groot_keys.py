"""Which camera, state and action of a robot stands under which key of a GR00T server.

Enters: what the server says of its modalities, a robot, and perhaps a TOML file. Leaves: ``Keys``,
or one MismatchError with both sides. A key is found by itself where it is a camera of the robot, a
state ("pose"), one number of the pose, joints or actions ("x", "gripper"), or a part that
``worldeval export lerobot --modality gr00t`` names ("arm", "gripper"). Others a file says::

    [images]
    front = "top"                    groot://host:5555?keys=my_robot.toml
    [state]
    single_arm = ["x", "y", "z"]     numbers of the pose or of the joints, or whole states
    [actions]
    single_arm = ["dx", "dy", "dz"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.files import read_text
from worldeval.data.writers.modality import parts
from worldeval.errors import ConfigError, MismatchError
from worldeval.motion import panda
from worldeval.policies.checking import CARTESIAN, GRIPPER, JOINTS, POSE, state_keys
from worldeval.policies.servers.groot_bytes import Modality
from worldeval.registry import did_you_mean
from worldeval.robots import RobotSpec

TABLES = ("images", "state", "actions")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """images: key -> camera. state: key -> [(state, places in it)]. actions: key -> places in the
    robot's action; together they are all of them."""

    images: Mapping[str, str]
    state: Mapping[str, tuple[tuple[str, tuple[int, ...]], ...]]
    actions: Mapping[str, tuple[int, ...]]

    @property
    def state_keys(self) -> tuple[str, ...]:
        """States of the robot that are sent."""
        return tuple(dict.fromkeys(name for some in self.state.values() for name, _ in some))

    def numbers(self, key: str, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """What is sent under a key of the state, (D,) float32."""
        chosen = [np.asarray(state[name])[list(places)] for name, places in self.state[key]]
        return np.concatenate(chosen).astype(np.float32)


def keys_of(said: Mapping[str, Modality], robot: RobotSpec, path: str | None, name: str) -> Keys:
    """What ``said`` asks for, of ``robot``. path: the TOML file. name: the policy's, in errors."""
    written = _read(path)

    def wanted(table: str, modality: str) -> list[str]:
        keys = list(said[modality].keys) if modality in said else []
        if strange := [key for key in written[table] if key not in keys]:
            raise MismatchError(
                f"keys {path}: the server has no {strange[0]!r} in its {modality}"
                f"{did_you_mean(strange[0], keys)}; it has {', '.join(keys) or 'none'}"
            )
        return keys

    def unknown(key: str, modality: str, table: str, known: list[str]) -> MismatchError:
        where = path or "keys.toml"
        return MismatchError(
            f"policy {name!r} is served with {modality} {key!r}, which is none of robot "
            f"{robot.name!r} ({', '.join(known)}); write [{table}] and a line {key!r} = ... of "
            f"these into {where}, and keys={where} into the URI"
        )

    images = {}
    for key in wanted("images", "video"):
        images[key] = written["images"].get(key, key)
        if images[key] not in robot.views:
            raise unknown(key, "video", "images", list(robot.views))
    numbers, groups = _numbers(robot), _groups(robot)
    state = {}
    for key in wanted("state", "state"):
        names = written["state"].get(key) or groups.get(key, [key])
        if strange := [n for n in names if n not in numbers]:
            shown = strange[0] if key in written["state"] else key
            raise unknown(shown, "state", "state", list(numbers))
        state[key] = tuple(numbers[n] for n in names)
    axes = {n: i for i, n in enumerate(robot.action_names)}
    halves = {k: list(robot.action_names[p["start"] : p["end"]]) for k, p in _runs(robot).items()}
    actions = {}
    for key in wanted("actions", "action"):
        names = written["actions"].get(key) or halves.get(key, [key])
        if strange := [n for n in names if n not in axes]:
            shown = strange[0] if key in written["actions"] else key
            raise unknown(shown, "action", "actions", list(axes))
        actions[key] = tuple(axes[n] for n in names)
    moved = [axis for places in actions.values() for axis in places]
    if sorted(moved) != list(range(robot.action_dim)):
        given = [robot.action_names[axis] for axis in moved]
        raise MismatchError(
            f"policy {name!r} answers {', '.join(given) or 'nothing'}, expected each of "
            f"{', '.join(robot.action_names)} once for robot {robot.name!r}; correct [actions] of "
            "keys=FILE, or serve a policy for this robot"
        )
    return Keys(images=images, state=state, actions=actions)


def _numbers(robot: RobotSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name of a number or of a whole state -> where it stands."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for state, names in ((JOINTS, robot.joint_names), (POSE, robot.pose_names)):
        found |= {name: (state, (place,)) for place, name in enumerate(names)}
    grippers = len(robot.pose_grippers)
    sizes = {
        POSE: robot.pose_dim,
        JOINTS: robot.joint_dim,
        GRIPPER: grippers,
        CARTESIAN: robot.pose_dim - grippers,
    }
    return found | {state: (state, tuple(range(sizes[state]))) for state in state_keys(robot)}


def _groups(robot: RobotSpec) -> dict[str, list[str]]:
    """The parts of a state as ``worldeval export`` names them -> their numbers."""
    if robot.name == panda.NAME and robot.joint_names:  # as DROID has it
        return {"arm": [JOINTS], "gripper": [GRIPPER]}
    names = robot.pose_names
    if robot.joint_names not in ((), names):
        names = (*names, *robot.joint_names)
    return {key: list(names[p["start"] : p["end"]]) for key, p in parts(names).items()}


def _runs(robot: RobotSpec) -> dict[str, dict[str, int]]:
    return parts(robot.action_names)


def _read(path: str | None) -> dict[str, dict[str, Any]]:
    """The three tables of a TOML file; empty ones without a file."""
    if path is None:
        return {table: {} for table in TABLES}
    text = read_text(Path(path), "file of keys", error=ConfigError)
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"keys {path}: it cannot be read as TOML ({error})") from error
    for table, lines in found.items():
        if table not in TABLES or not isinstance(lines, dict):
            raise ConfigError(
                f"keys {path}: there is no {table!r}{did_you_mean(table, TABLES)}; its tables are "
                f"{', '.join(f'[{t}]' for t in TABLES)}"
            )
        for key, value in lines.items():
            several = table != "images" and isinstance(value, list) and value
            if not all(isinstance(n, str) for n in (value if several else [value])):
                raise ConfigError(
                    f"keys {path}: {key!r} of [{table}] is {value!r}, expected "
                    f"{'a camera' if table == 'images' else 'names of numbers in a list'}"
                )
            if table != "images" and isinstance(value, str):
                lines[key] = [value]
    return {table: found.get(table, {}) for table in TABLES}
