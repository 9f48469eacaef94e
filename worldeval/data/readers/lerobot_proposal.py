"""A first robot for a LeRobot dataset of which none is known, to be corrected by its user.

Enters: ``info.json`` (names, rate, views, sizes) and ``stats.json`` (bounds), or
``episodes_stats.jsonl`` in v2.1, or the rows themselves. Leaves: a robot, and in plain words what
had to be guessed. What an action *means* stands nowhere in such a dataset: it is taken for the
targets of joints where its numbers have the ranges of the state's, and left to the user elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.files import load_json
from worldeval.data.readers.lerobot_columns import (
    ACTIONS,
    STATES,
    Spelling,
    described,
    first_of,
    names_of,
    picture_features,
    short_view,
    width_of,
)
from worldeval.data.readers.lerobot_index import LeRobotIndex, read_lines
from worldeval.data.readers.lerobot_rows import RowFinder
from worldeval.errors import DataError
from worldeval.robots import NAMES, CameraSpec, RobotSpec, read_robot

FRAME_HZ, MOST_SIDE_PX, FRAMES_PER_CHUNK = 5.0, 320, 4
_ALIKE = 0.3
"""Of the range that two columns cover together, how much both must cover to be of one kind."""
Bounds = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """sure: whether actions are evidently targets of what the state measures. to_check: a
    sentence for each thing that a person has to check."""

    robot: RobotSpec
    sure: bool
    to_check: tuple[str, ...]


def propose_robot(root: str | Path, spelling: Spelling | None = None) -> Proposal:
    """Raises DataError where the dataset has no actions, no views or no rate to build on."""
    index, spelling = LeRobotIndex(Path(root)), spelling or Spelling()
    features, where = index.features, index.info_path
    action = spelling.action or first_of(features, ACTIONS)
    if action not in features or action is None:
        raise DataError(
            f"{where} has no column 'action'; found {described(features)}; say which is the "
            "robot's by a key map (--key-map FILE), or give the robot (--robot FILE)"
        )
    hz = spelling.fps or index.fps
    if not hz:
        raise DataError(
            f"{where} says nothing of frames per second; write fps there, or in a key map"
        )
    views = spelling.views or {short_view(name): name for name in picture_features(features)}
    sizes = [size for name, size in picture_features(features).items() if name in views.values()]
    if not sizes:
        raise DataError(f"{where} has no views (features of dtype video or image); record some")
    names = names_of(features[action]) or tuple(f"action_{i}" for i in range(_width(index, action)))
    low, high = _bounds(index, action, hz)
    state = spelling.state or first_of(features, STATES)
    absolute = False
    if state in features and state is not None and _width(index, state) == len(names):
        state_low, state_high = _bounds(index, state, hz)
        absolute = _same_range((low, high), (state_low, state_high))
        if absolute:  # to hold still where one was measured is a command too
            low, high = np.minimum(low, state_low), np.maximum(high, state_high)
    back = {there: name for name, there in spelling.names.items()}
    names = tuple(back.get(name, name) for name in names)
    lows, highs = _round_bounds(low, high)
    robot = RobotSpec(
        name=_name(index),
        action_space="joint_target",
        action_names=names,
        action_low=lows,
        action_high=highs,
        pose_names=names,
        pose_low=lows,
        pose_high=highs,
        action_scale_m=1.0,
        control_hz=hz,
        steps_per_frame=max(1, round(hz / FRAME_HZ)),
        frames_per_chunk=FRAMES_PER_CHUNK,
        image_size=_image_size(max(sizes)),
        cameras=tuple(CameraSpec(name=name, mount="uncalibrated") for name in views),
        control_mode="joint_target",
    )
    shipped = _known(robot)
    if shipped is not None:
        robot = replace(
            robot, gripper_index=shipped.gripper_index, gripper_sense=shipped.gripper_sense
        )
    return Proposal(
        robot=robot, sure=absolute, to_check=tuple(_to_check(robot, index, action, state, absolute))
    )


def _to_check(
    robot: RobotSpec, index: LeRobotIndex, action: str, state: str | None, absolute: bool
) -> list[str]:
    to_check = []
    if names_of(index.features[action]) is None:
        to_check.append(
            f"{action!r} has no names in info.json, so its numbers are called action_0, ..."
        )
    if not absolute:
        beside = f"{state!r}" if state else "any state"
        to_check.append(
            f"the numbers of {action!r} do not have the ranges of {beside}, so that they may be "
            "relative, velocities or poses: set motion, action_space, pose_names and bounds"
        )
    if _known(robot) is not None:
        pass  # its gripper is known
    elif robot.gripper_axes:
        grips = ", ".join(robot.action_names[i] for i in robot.gripper_axes)
        to_check.append(
            f"that {grips} closes towards its higher bound is a guess: gripper_sense is "
            "'close_positive' or 'close_negative'"
        )
    else:
        to_check.append("no name of an action has 'grip' in it: gripper_index says which is one")
    return to_check


def _known(robot: RobotSpec) -> RobotSpec | None:
    """The shipped robot whose actions have the same names: its gripper closes alike."""
    for name in NAMES:
        shipped = read_robot(name)
        if (
            shipped.control_mode == robot.control_mode
            and shipped.action_names == robot.action_names
        ):
            return shipped
    return None


def _width(index: LeRobotIndex, column: str) -> int:
    width = width_of(index.features[column])
    if width < 1:
        raise DataError(f"{index.info_path}: {column!r} has no numbers; fetch the dataset again")
    return width


def _bounds(index: LeRobotIndex, column: str, hz: float) -> Bounds:
    """Smallest and largest value of each number of a column."""
    width = _width(index, column)
    found = [b for stats in _statistics(index) if (b := _of(stats.get(column), width)) is not None]
    if not found:
        finder = RowFinder(index, tuple(dict.fromkeys(r for r in (index.fps, hz) if r)))
        for episode in sorted(index.rows):
            try:
                values = finder.rows(episode, {column}).numbers(column, width)
            except DataError:
                continue  # it will be named when it is prepared
            if len(values) and np.isfinite(values).all():
                found.append((values.min(axis=0), values.max(axis=0)))
    if not found:
        raise DataError(
            f"{index.root} has neither statistics nor rows of {column!r} that can be read; fetch "
            "it again, or give the robot (--robot FILE)"
        )
    return np.min([b[0] for b in found], axis=0), np.max([b[1] for b in found], axis=0)


def _statistics(index: LeRobotIndex) -> list[Mapping[str, Any]]:
    """Of the whole dataset, else of each episode; none where they cannot be read."""
    try:
        whole = load_json(index.root / "meta/stats.json")
    except (OSError, ValueError):
        whole = None
    if isinstance(whole, dict) and whole:
        return [whole]
    path = index.root / "meta/episodes_stats.jsonl"
    if not path.exists():
        return []
    parts = [row.get("stats") for _, row in read_lines(path)]
    return [part for part in parts if isinstance(part, dict)]


def _of(stats: Any, width: int) -> Bounds | None:
    """(low, high), each (width,) float64; None for what are no such bounds."""
    if not isinstance(stats, dict):
        return None
    try:
        low, high = (np.asarray(stats.get(end), np.float64).ravel() for end in ("min", "max"))
    except (TypeError, ValueError):
        return None
    fits = low.shape == high.shape == (width,)
    return (low, high) if fits and bool(np.isfinite([low, high]).all()) else None


def _same_range(first: Bounds, second: Bounds) -> bool:
    """Whether nearly all numbers cover the ranges of each other."""
    both = np.minimum(first[1], second[1]) - np.maximum(first[0], second[0])
    either = np.maximum(first[1], second[1]) - np.minimum(first[0], second[0])
    moved = either > 1e-6
    shares = both[moved] / either[moved]
    return bool(len(shares)) and float((shares >= _ALIKE).mean()) >= 0.8


def _round_bounds(low: np.ndarray, high: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rounded outwards to a hundredth of the range; what never moved is given a range of 2."""
    lows, highs = [], []
    for first, last in zip(low.tolist(), high.tolist(), strict=True):
        if not last - first > 1e-9 * max(1.0, abs(first)):
            first, last = first - 1, last + 1
        digits = 2 - math.floor(math.log10(last - first))
        step = 10.0**-digits
        lows.append(round(math.floor(first / step + 1e-9) * step, max(digits, 0)))
        highs.append(round(math.ceil(last / step - 1e-9) * step, max(digits, 0)))
    return tuple(lows), tuple(highs)


def _image_size(size: tuple[int, int]) -> tuple[int, int]:
    """Within MOST_SIDE_PX, of the same shape as far as multiples of 16 px allow."""
    scale = min(1.0, MOST_SIDE_PX / max(size))
    height, width = (max(16, round(side * scale / 16) * 16) for side in size)
    return height, width


def _name(index: LeRobotIndex) -> str:
    kind = index.info.get("robot_type")
    name = kind if isinstance(kind, str) and kind.strip() else index.root.resolve().name
    return re.sub(r"[^a-z0-9_]+", "-", name.strip().lower()).strip("-") or "robot"
