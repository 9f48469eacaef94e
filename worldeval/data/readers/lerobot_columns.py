"""Where a LeRobot dataset keeps what a robot needs: its views, and its numbers by name.

Enters: the features of ``info.json``, a robot, and perhaps a key map. Leaves: ``RobotColumns``, or
a DataError that lists what there is. A view "front" is the feature ``observation.images.front``,
``front`` or another that ends so; numbers are found by the names of the columns ``action`` and
``observation.state``, with or without LeRobot's ending ".pos"; a column without names is taken as
it is if it has the robot's width. Odd spellings are said in a key map, a JSON file::

    {"views": {"front": "cam_high"}, "action": "actions", "state": "qpos",
     "names": {"gripper": "jaw.position"}, "instructions": ["language"], "success": "ok",
     "fps": 30}

Each entry may be left out. names: the robot's name -> the dataset's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldeval.data.files import load_json
from worldeval.errors import ConfigError, DataError
from worldeval.robots import RobotSpec

ACTIONS, STATES = ("action", "actions"), ("observation.state", "state")
SUCCESS = "next.success"
"""LeRobot's own names."""
_KNOWN = {"name", "views", "action", "state", "names", "instructions", "success", "fps"}


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Places of a column of ``width`` numbers, in the order of the robot's names."""

    column: str
    width: int
    places: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """A key map for any robot; see the module's docstring."""

    views: Mapping[str, str] = field(default_factory=dict)
    action: str | None = None
    state: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()
    success: str | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class RobotColumns:
    """views: feature of each camera of the robot. state and joints: None where there are none."""

    views: tuple[str, ...]
    action: Numbers
    state: Numbers | None
    joints: Numbers | None


def read_spelling(path: Path) -> Spelling:
    """A key map for any robot. Raises ConfigError naming what is wrong."""
    content = key_map_content(path, _KNOWN, " where a robot is given")
    for name, kind in (("views", dict), ("names", dict), ("instructions", list)):
        values = content.get(name, kind())
        if not isinstance(values, kind) or not all(
            isinstance(v, str) for v in (values.values() if isinstance(values, dict) else values)
        ):
            raise ConfigError(f"key map {path}: {name} is {values!r}, expected texts in a {kind}")
    for name in ("action", "state", "success"):
        if not isinstance(content.get(name), str | None):
            raise ConfigError(f"key map {path}: {name} is {content[name]!r}, expected a column")
    fps = content.get("fps")
    if fps is not None and not (type(fps) in (int, float) and math.isfinite(fps) and fps > 0):
        raise ConfigError(f"key map {path}: fps is {fps!r}, expected rows per second")
    return Spelling(
        views=content.get("views", {}),
        action=content.get("action"),
        state=content.get("state"),
        names=content.get("names", {}),
        instructions=tuple(content.get("instructions", ())),
        success=content.get("success"),
        fps=fps,
    )


def key_map_content(path: Path, known: Set[str], when: str = "") -> dict[str, Any]:
    """The JSON object in a key map, with ``known`` entries only. Raises ConfigError."""
    try:
        content = load_json(path)
    except FileNotFoundError:
        raise ConfigError(f"there is no key map {path}; check the spelling of the path") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"key map {path} cannot be read as JSON: {error}; mend it") from error
    if not isinstance(content, dict) or set(content) - known:
        surplus = sorted(set(content) - known) if isinstance(content, dict) else content
        raise ConfigError(f"key map {path} has {surplus!r}, expected only {sorted(known)}{when}")
    return content


def columns_of(
    features: Mapping[str, Any], robot: RobotSpec, spelling: Spelling, where: Path
) -> RobotColumns:
    """Raises DataError naming the first thing of ``robot`` that the dataset does not have."""
    views = tuple(_view(features, name, robot, spelling, where) for name in robot.views)
    if len(set(views)) < len(views):
        raise DataError(
            f"{where}: two views of robot {robot.name!r} are both {_twice(views)!r}; name the "
            "feature of each in a key map (--key-map FILE)"
        )
    action = _numbers(features, robot.action_names, ACTIONS, spelling.action, spelling.names)
    if action is None:
        raise DataError(
            f"{where}: no column of actions has the numbers {', '.join(robot.action_names)} of "
            f"robot {robot.name!r}; found {described(features)}; name the robot's actions like "
            "those, or say by a key map which is which (--key-map FILE)"
        )
    state = _numbers(features, robot.pose_names, STATES, spelling.state, spelling.names)
    joints = _numbers(features, robot.joint_names, STATES, spelling.state, spelling.names)
    return RobotColumns(
        views=views, action=action, state=state, joints=joints if robot.joint_names else None
    )


def picture_features(features: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Height and width of each feature that is a view; depth maps are none."""
    return {
        name: size
        for name, feature in features.items()
        if feature.get("dtype") in ("video", "image")
        and not is_depth(feature)
        and (size := _size(feature)) is not None
    }


def is_depth(feature: Mapping[str, Any]) -> bool:
    """Whether pictures of a feature are distances, not colours."""
    told = feature.get("info") or feature.get("video_info") or {}
    marks = ("video.is_depth_map", "is_depth_map")
    return isinstance(told, Mapping) and any(told.get(mark) is True for mark in marks)


def width_of(feature: Mapping[str, Any]) -> int:
    """How many numbers a row of a column has."""
    return math.prod(feature.get("shape") or [1])


def names_of(feature: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the numbers of a column; None if it has none, or not as many as numbers.

    Writers give a list, a list in a list, ``{"motors": [...]}`` or ``{name: place}``.
    """
    names: Any = feature.get("names")
    if isinstance(names, Mapping):
        if names and all(type(place) is int for place in names.values()):
            names = sorted(names, key=lambda name: names[name])
        else:
            names = list(names.values())
    if isinstance(names, list) and names and all(isinstance(part, list) for part in names):
        names = [name for part in names for name in part]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        return None
    fits = len(names) == len(set(names)) == width_of(feature)
    return tuple(names) if fits else None


def short_view(feature: str) -> str:
    """The name of a view without the words that LeRobot puts before it."""
    return feature.removeprefix("observation.").removeprefix("images.").removeprefix("image.")


def described(features: Mapping[str, Any]) -> str:
    """Columns of numbers with their names or widths, as errors list them."""
    told = []
    for name, feature in features.items():
        if feature.get("dtype") in ("video", "image", "string") or width_of(feature) < 2:
            continue
        names = names_of(feature)
        told.append(f"{name} ({', '.join(names) if names else f'{width_of(feature)} numbers'})")
    return "; ".join(told) or "no column of several numbers"


def first_of(features: Mapping[str, Any], usual: tuple[str, ...]) -> str | None:
    """The first of the usual names that there is."""
    return next((name for name in usual if name in features), None)


def _view(
    features: Mapping[str, Any], name: str, robot: RobotSpec, spelling: Spelling, where: Path
) -> str:
    known = picture_features(features)
    if name in spelling.views:
        found = [spelling.views[name]] if spelling.views[name] in known else []
    else:
        exact = (name, f"observation.images.{name}", f"observation.image.{name}")
        found = [key for key in exact if key in known][:1]
        found = found or [key for key in known if key.rpartition(".")[2] == name]
    if len(found) != 1:
        raise DataError(
            f"{where}: view {name!r} of robot {robot.name!r} is "
            f"{'several of its views' if found else 'none of its views'}: "
            f"{', '.join(known) or 'it has none'}; name the robot's cameras like those, or say by "
            "a key map which is which (--key-map FILE)"
        )
    return found[0]


def _numbers(
    features: Mapping[str, Any],
    wanted: tuple[str, ...],
    usual: tuple[str, ...],
    given: str | None,
    spelled: Mapping[str, str],
) -> Numbers | None:
    column = given or first_of(features, usual)
    if column is None or column not in features or not wanted:
        return None
    feature = features[column]
    names, width = names_of(feature), width_of(feature)
    if names is None:  # the order is all that is known
        if spelled or width != len(wanted):
            return None
        return Numbers(column=column, width=width, places=tuple(range(width)))
    places = []
    for name in wanted:
        name = spelled.get(name, name)
        found = [i for i, n in enumerate(names) if n == name]
        found = found or [i for i, n in enumerate(names) if _bare(n) == _bare(name)]
        if len(found) != 1:
            return None
        places += found
    return Numbers(column=column, width=width, places=tuple(places))


def _bare(name: str) -> str:
    return name.removesuffix(".pos")


def _size(feature: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width, also of shapes that begin with the channels."""
    shape = feature.get("shape") or []
    if len(shape) != 3 or min(shape) < 1:
        return None
    names = feature.get("names")
    first = isinstance(names, list) and names[:1] in (["channel"], ["channels"])
    if first or (not isinstance(names, list) and shape[0] in (1, 3) and shape[2] not in (1, 3)):
        return shape[1], shape[2]
    return shape[0], shape[1]


def _twice(views: tuple[str, ...]) -> str:
    return next(view for view in views if views.count(view) > 1)
