"""Robots from TOML files, by name, from Python, and back into a file.

Enters: ``my_robot.toml``, the name of a shipped profile or of an entry point ``worldeval.robots``,
or "module:attr". Leaves: a ``RobotSpec``, or a ConfigError that names the field. A file has the
fields of ``RobotSpec`` at its top and a table ``[[cameras]]`` for each view; what is left out is as
``RobotSpec`` says.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldeval import registry
from worldeval.errors import ConfigError
from worldeval.robots.spec import RobotSpec
from worldeval.settings import settings_from

PROFILES = Path(__file__).parent / "profiles"
NAMES = tuple(sorted(path.stem for path in PROFILES.glob("*.toml")))
"""The robots that are shipped."""


def read_robot(source: str | Path | RobotSpec) -> RobotSpec:
    """The robot that ``source`` names: a TOML file, a name, or "module:attr".

    A Python value may be a RobotSpec or a function without arguments that makes one. Raises
    ConfigError for what names none, and for a file whose fields are not those of a robot.
    """
    if isinstance(source, RobotSpec):
        return source
    text = str(source)
    if text in NAMES:
        return _profile(text)
    path = Path(source).expanduser()
    if path.suffix == ".toml" or path.is_file():
        return _read_file(path)
    value = registry.registered("robots", text)
    if value is None and registry.is_attribute(text):
        value = registry.attribute(text)
    if value is None:
        known = tuple(sorted({*NAMES, *registry.entries("robots")}))
        raise ConfigError(
            f"there is no robot {text!r}{registry.did_you_mean(text, known)}; known are {known}, "
            "or give a robot's TOML file"
        )
    robot = value if isinstance(value, RobotSpec) or not callable(value) else value()
    if not isinstance(robot, RobotSpec):
        raise ConfigError(
            f"robot {text!r} is a {type(robot).__name__}, expected a worldeval RobotSpec or a "
            "function that makes one"
        )
    return robot


def robot_as_json(robot: RobotSpec) -> dict[str, Any]:
    """All of a robot, for stores and checkpoints; fields that are as usual are left out."""
    values = {
        field.name: getattr(robot, field.name)
        for field in dataclasses.fields(robot)
        if getattr(robot, field.name) != field.default
    }
    return values | {"cameras": [_camera_fields(camera) for camera in robot.cameras]}


def robot_from_json(values: Any, where: str = "robot") -> RobotSpec:
    """The robot that ``robot_as_json`` wrote, before or after JSON. Raises ConfigError."""
    return settings_from(RobotSpec, _as_today(values), f"{where}.")


def write_robot(robot: RobotSpec, path: str | Path) -> None:
    """Write ``robot`` to a TOML file that ``read_robot`` reads as an equal robot."""
    values = robot_as_json(robot)
    cameras = values.pop("cameras")
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    if not cameras:
        lines.append("cameras = []")
    for camera in cameras:
        lines += [
            "",
            "[[cameras]]",
            *(f"{name} = {_toml(value)}" for name, value in camera.items()),
        ]
    try:
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error})") from error


@functools.cache
def _profile(name: str) -> RobotSpec:
    return _read_file(PROFILES / f"{name}.toml")


def _read_file(path: Path) -> RobotSpec:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"robot file {path} cannot be read ({error.strerror or error}); give a robot's TOML "
            f"file or one of {NAMES}"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"robot file {path} is no TOML ({error})") from error
    try:
        return settings_from(RobotSpec, _as_today(values))
    except ConfigError as error:
        raise ConfigError(f"robot file {path}: {error}") from error


def _as_today(values: Any) -> Any:
    """Fields of a robot as earlier versions wrote them, under their names of today."""
    if not isinstance(values, Mapping) or "motion" not in values:
        return values
    if "control_mode" in values:
        raise ConfigError("motion is the earlier name of control_mode; say one of the two")
    return {"control_mode" if name == "motion" else name: values[name] for name in values}


def _camera_fields(camera: Any) -> dict[str, Any]:
    return {
        field.name: getattr(camera, field.name)
        for field in dataclasses.fields(camera)
        if getattr(camera, field.name) != field.default
    }


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        texts = [_toml(item) for item in value]
        line = f"[{', '.join(texts)}]"
        return line if len(line) < 80 else "[\n" + "".join(f"    {text},\n" for text in texts) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"a robot has the number {value!r}, expected finite ones")
    return repr(float(value)) if isinstance(value, float) else repr(int(value))
