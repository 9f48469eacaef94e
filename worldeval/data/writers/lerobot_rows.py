"""Episodes of a store as rows of a LeRobot dataset: one row for each control step.

Enters: a robot, how its columns are spelled, an ``Episode``. Leaves: ``features`` for ``info.json``
and the columns of one episode. A store has a frame every S control steps; a row has one action::

    row     0  1  2  3  4  5  6        S = 3: action (0, 0), (0, 1), (0, 2), (1, 0), ...
    frame   0  0  0  1  1  1  2        the newest frame, as a policy is shown it between two frames
    state   of the row where the actions say it, else of the newest frame; joints are interpolated

so that what ``worldeval prepare`` reads back (rows 0, S, 2 S ...) is the episode that was written.
The last row has no action of its own: it stands still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from worldeval.data.readers.droid_keys import FOLDER, Column, KeyMap, read_key_map
from worldeval.data.readers.lerobot_robot import commands_poses
from worldeval.data.store.layout import StoreLayout
from worldeval.errors import ConfigError
from worldeval.motion import panda
from worldeval.robots import RobotSpec
from worldeval.types import Episode

STATE, ACTION = "observation.state", "action"
EXPERT = "expert_action"
"""LeRobot takes whatever begins with "action" for an action, and with "observation" for an input;
this is neither."""
SUCCESS, DONE = "next.success", "next.done"
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
ANNOTATION = "annotation.human.action.task_description"
"""Where GR00T looks for the number of the instruction."""
DROID = "droid_1_0_1"
PLAIN = "plain"


@dataclass(frozen=True)
class Spelling:
    """Names of the columns: of each view, and of further columns with a part of the numbers.

    parts: column -> (width, [(first, last, what, axes)]), where what is "pose", "joints" or
    "action" and axes are places in it.
    """

    name: str
    views: Mapping[str, str]
    parts: Mapping[str, tuple[int, list[tuple[int, int, str, tuple[int, ...]]]]]
    success: str | None = None


def spellings() -> tuple[str, ...]:
    """What ``spelling_of`` takes by name."""
    return (PLAIN, *sorted(path.stem for path in FOLDER.glob("droid_*.json")))


def spelling_of(robot: RobotSpec, layout: StoreLayout, name: str | None = None) -> Spelling:
    """The spelling ``name``; None: of DROID's Panda that of DROID 1.0.1, else LeRobot's plain."""
    is_panda = robot.name == panda.NAME
    name = name or (DROID if is_panda else PLAIN)
    if name not in spellings():
        raise ConfigError(f"keys are {name!r}, expected one of {', '.join(spellings())}")
    if name == PLAIN:
        return Spelling(name, {view: f"observation.images.{view}" for view in robot.views}, {})
    if not is_panda or set(robot.views) != set(panda.VIEWS):
        raise ConfigError(
            f"keys are {name!r}, which spells a {panda.NAME} with the views "
            f"{', '.join(panda.VIEWS)}; robot {robot.name!r} has {', '.join(robot.views)}: take "
            f"{PLAIN!r}"
        )
    keys = read_key_map(FOLDER / f"{name}.json")
    parts: dict[str, tuple[int, list[tuple[int, int, str, tuple[int, ...]]]]] = {}
    for column, what, axes in _sources(keys, robot, layout):
        width, some = parts.setdefault(column.name, (column.width, []))
        some.append((column.first, column.last, what, axes))
    whole = {
        name: (width, some)
        for name, (width, some) in parts.items()
        if sum(last - first for first, last, _, _ in some) == width  # no column is half known
    }
    if layout.joint_names:  # as DROID has it: seven joints and the gripper
        arm, hand = (0, 7, "joints", tuple(range(7))), (7, 8, "pose", (6,))
        whole.setdefault(STATE, (8, [arm, hand]))
    return Spelling(name, dict(keys.views), whole, keys.success)


def _sources(
    keys: KeyMap, robot: RobotSpec, layout: StoreLayout
) -> list[tuple[Column, str, tuple[int, ...]]]:
    found: list[tuple[Column, str, tuple[int, ...]]] = []
    if keys.cartesian_position is not None:
        found.append((keys.cartesian_position, "pose", tuple(range(6))))
    if keys.joint_position is not None and layout.joint_names:
        found.append((keys.joint_position, "joints", tuple(range(7))))
    found.append((keys.gripper, "pose", (6,)))
    motion = {"absolute_pose": "cartesian_position"}.get(robot.control_mode, robot.control_mode)
    if motion in keys.actions:
        width = robot.action_dim - 1
        found.append((keys.actions[motion], "action", tuple(range(width))))
        if "gripper_position" in keys.actions:
            found.append((keys.actions["gripper_position"], "action", (width,)))
    return found


@dataclass(frozen=True, kw_only=True)
class RowForm:
    """What a dataset's rows have. flags: whether every episode's success is known.

    annotated: with GR00T's column of the instruction.
    """

    robot: RobotSpec
    layout: StoreLayout
    spelling: Spelling
    flags: bool
    annotated: bool = False

    @property
    def fps(self) -> float:
        """Rows a second."""
        rate = float(self.layout.fps) * self.layout.steps_per_frame
        return int(rate) if rate == int(rate) else rate

    @property
    def state_names(self) -> tuple[str, ...]:
        """Of observation.state: the pose, then joints, if they are not the same."""
        joints, poses = self.layout.joint_names, self.layout.pose_names
        return poses if joints in ((), poses) else (*poses, *joints)

    @property
    def views(self) -> tuple[str, ...]:
        """Features of the views, in the store's order."""
        return tuple(self.spelling.views[view] for view in self.layout.views)

    def features(self) -> dict[str, dict[str, Any]]:
        """For ``info.json``, in the order of the columns."""
        height, width = self.layout.image_size
        found: dict[str, dict[str, Any]] = {}
        parts = self.spelling.parts
        if STATE not in parts:
            found[STATE] = _feature("float32", self.state_names)
        if not {ACTION, "actions"} & set(parts):
            found[ACTION] = _feature("float32", self.layout.action_names)
        names = {
            "pose": self.layout.pose_names,
            "joints": self.layout.joint_names,
            "action": self.layout.action_names,
        }
        for name, (_, some) in parts.items():
            places = [names[what][axis] for _, _, what, axes in sorted(some) for axis in axes]
            found[name] = _feature("float32", tuple(places))
        if self.layout.expert_actions:
            found[EXPERT] = _feature("float32", self.layout.action_names)
        if self.flags:
            found[SUCCESS] = _feature("bool")
            if self.spelling.success:
                found[self.spelling.success] = _feature("bool")
        found[DONE] = _feature("bool")
        if self.annotated:
            found[ANNOTATION] = _feature("int64")
        for view in self.views:
            found[view] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "h264",
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": self.fps,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
        for name in COUNTERS:
            found[name] = _feature("float32" if name == "timestamp" else "int64")
        return found

    def schema(self) -> pa.Schema:
        """Columns of the data parquet."""
        kinds = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}
        columns: list[tuple[str, pa.DataType]] = []
        for name, feature in self.features().items():
            if feature["dtype"] != "video":
                kind, size = kinds[feature["dtype"]], feature["shape"][0]
                columns.append((name, kind if size == 1 else pa.list_(kind, size)))
        return pa.schema(columns)

    def values(self, episode: Episode, *, index: int, first: int, task: int) -> dict[str, Any]:
        """Columns of an episode, (N,) or (N, D).

        index: the episode's number. first: its first row's. task: its instruction's.
        """
        rows = np.arange((episode.length - 1) * self.layout.steps_per_frame + 1)
        count = len(rows)
        action = _with_standstill(np.asarray(episode.actions, np.float32), self.robot)
        pose = _states(episode, self.robot)
        known = {"pose": pose, "action": action}
        state = [pose]
        if self.layout.joint_names == self.layout.pose_names:
            known["joints"] = pose
        elif self.layout.joint_names:
            measured = np.asarray(episode.joints, np.float32)
            known["joints"] = _between(measured, self.layout.steps_per_frame)
            state.append(known["joints"])
        found: dict[str, Any] = {
            STATE: np.concatenate(state, axis=1),
            ACTION: action,
            DONE: rows == count - 1,
            "timestamp": (rows / self.fps).astype(np.float32),
            "frame_index": rows,
            "episode_index": np.full(count, index),
            "index": first + rows,
            "task_index": np.full(count, task),
            ANNOTATION: np.full(count, task),
        }
        for name, (width, some) in self.spelling.parts.items():
            found[name] = np.empty((count, width), np.float32)
            for begin, end, what, axes in some:
                found[name][:, begin:end] = known[what][:, list(axes)]
        if self.layout.expert_actions:
            found[EXPERT] = _with_standstill(
                np.asarray(episode.expert_actions, np.float32), self.robot
            )
        if self.flags:
            found[SUCCESS] = _solved(episode, self.layout.steps_per_frame)
            if self.spelling.success:
                found[self.spelling.success] = np.full(count, bool(episode.success))
        names = self.features()
        return {name: found[name] for name in names if name in found}

    def table(self, values: Mapping[str, np.ndarray]) -> pa.Table:
        """Columns of an episode as the data parquet has them."""
        schema = self.schema()
        columns = []
        for name, kind in zip(schema.names, schema.types, strict=True):
            flat = np.ascontiguousarray(values[name]).ravel()
            listed = pa.types.is_fixed_size_list(kind)
            array = pa.array(flat, kind.value_type if listed else kind)
            if listed:
                array = pa.FixedSizeListArray.from_arrays(array, type=kind)
            columns.append(array)
        return pa.table(columns, schema=schema)


def _feature(dtype: str, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [len(names) if names else 1],
        "names": None if names is None else list(names),
    }


def _with_standstill(steps: np.ndarray, robot: RobotSpec) -> np.ndarray:
    """(T, S, A) -> (T S + 1, A): a last row that stays where it is."""
    still = np.zeros((1, steps.shape[-1]), np.float32)
    if len(steps):
        held = list(robot.held_axes)
        still[0, held] = steps[-1, -1, held]
    return np.concatenate([steps.reshape(-1, steps.shape[-1]), still])


def _states(episode: Episode, robot: RobotSpec) -> np.ndarray:
    """(T S + 1, P): the commanded poses where actions say them, else the newest frame's.

    Rows with a frame have that frame's pose to the bit.
    """
    poses = np.asarray(episode.poses, np.float32)
    steps = np.asarray(episode.actions, np.float32)
    count, each = steps.shape[:2]
    rows = np.repeat(poses, each, axis=0)[: count * each + 1]
    between: np.ndarray | None = None
    if commands_poses(robot):
        between = steps
    elif robot.control_mode == "delta_position" and count:
        fine = replace(robot, steps_per_frame=1)
        between = fine.integrate(poses[:-1], steps)  # (T, S, P)
        if not np.allclose(between[:, -1], poses[1:], atol=1e-4):
            between = None  # measured poses: the arm does not go where it is sent
    if between is not None and count:
        rows[1:].reshape(count, each, -1)[:, :-1] = between[:, :-1]
    return rows


def _between(joints: np.ndarray, steps: int) -> np.ndarray:
    """(T + 1, J) at frames -> (T S + 1, J) at control steps, on straight lines."""
    rows = np.arange((len(joints) - 1) * steps + 1)
    share = (rows % steps / steps)[:, None]
    last = np.minimum(rows // steps + 1, len(joints) - 1)
    found = joints[rows // steps] * (1 - share) + joints[last] * share
    found[::steps] = joints
    return found.astype(np.float32)


def _solved(episode: Episode, steps_per_frame: int) -> np.ndarray:
    """(N,) whether the episode is solved after a row's action, and stays so to its end."""
    count = (episode.length - 1) * steps_per_frame + 1
    solved = np.zeros(count, bool)
    solved[-1] = bool(episode.success)
    if episode.success and episode.success_at is not None:
        flags = np.asarray(episode.success_at, bool)
        stays = np.logical_and.accumulate(flags[::-1])[::-1]
        for frame in np.flatnonzero(stays[1:]) + 1:
            solved[frame * steps_per_frame - 1 :] = True
            break
    return solved
