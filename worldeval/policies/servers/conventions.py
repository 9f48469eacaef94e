"""What the numbers and pictures on a wire mean, as values that both sides can compare.

Enters: a robot and a policy's spec; what a server says of itself. Leaves: nothing, or one
MismatchError that names every value in which the two differ, and what to write. Each of these
differences is answered without an error by a policy, and costs from some points of its success rate
to all of it. What a server does not say stays unknown: it is not compared, and that is told.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldeval.data.files import read_text
from worldeval.errors import ConfigError, MismatchError
from worldeval.registry import did_you_mean
from worldeval.robots import RobotSpec
from worldeval.robots.spec import ABSOLUTE_MOTIONS
from worldeval.types import PolicySpec

REMEDIES: dict[str, str] = {
    "action_space": "serve a policy of the robot's action space",
    "action_names": "put the actions into the robot's order in the server",
    "action_reference": "make absolute of relative actions, or the reverse, in the server",
    "action_frame": "turn the actions into the robot's frame in the server",
    "action_repeat": "repeat the actions in the server, one for each control step",
    "action_statistics": "unnormalise with the statistics of this robot (unnorm_key=NAME)",
    "camera_mounts": "give each key its own camera in the server",
    "channel_order": "reverse the last axis of images, image[..., ::-1]",
    "chunk": "correct chunk=STEPS",
    "execute": "say execute=STEPS",
    "gripper_kind": "say gripper=binary or gripper=continuous, as the policy was trained",
    "gripper_range": "rescale it to the robot's bounds in the server",
    "gripper_sense": "negate the gripper in the server, or correct gripper_sense of the robot",
    "history": "serve it with sessions, so that it remembers earlier frames",
    "image_rotation": "turn or flip the images back, image[::-1, ::-1] for 180 degrees",
    "image_scale": "multiply by 255, or divide by it, in the server",
    "image_size": "correct image_size",
    "joint_names": "put the joints into the robot's order in the server",
    "prompt": "write the instruction in the server's form",
    "quaternion_order": "reorder the quaternion, q[[3, 0, 1, 2]] from xyzw to wxyz",
    "quaternion_sign": "negate quaternions whose real part is negative",
    "rate_hz": "resample its actions, or serve a policy of the robot's rate",
    "resize": "resize as the policy was trained",
    "rotation": "convert the rotation to the robot's form in the server",
    "rotation_unit": "convert the angles, numpy.deg2rad or numpy.rad2deg",
    "state_source": "send the state from the source that the policy was trained with",
    "state_time": "send the state of the same moment as the images",
    "waiting_steps": "let the robot stand still as long as the policy was trained with",
}
"""Each convention, and what to do where it differs."""


def ours(robot: RobotSpec, spec: PolicySpec) -> dict[str, Any]:
    """Every convention as worldeval keeps it for ``robot`` and a policy of ``spec``.

    Values are text, numbers, lists and maps, as they travel. Worldeval itself sends no quaternion,
    no history and no state but the commanded one.
    """
    cameras = {camera.name: camera.mount for camera in robot.cameras}
    gripper = [[robot.action_low[i], robot.action_high[i]] for i in robot.gripper_axes]
    turns = robot.control_mode in ("delta_pose", "absolute_pose")
    return {
        "action_space": robot.action_space,
        "action_names": list(robot.action_names),
        "action_reference": "absolute" if robot.control_mode in ABSOLUTE_MOTIONS else "relative",
        "action_frame": "joints" if "joint" in robot.control_mode else "base",
        "action_repeat": 1,
        "action_statistics": "physical units",
        "camera_mounts": {name: cameras.get(name, "missing") for name in spec.cameras},
        "channel_order": "rgb",
        "chunk": spec.chunk,
        "execute": spec.execute,
        "gripper_kind": "continuous",
        "gripper_range": gripper,
        "gripper_sense": robot.gripper_sense if gripper else "none",
        "history": 1,
        "image_rotation": "upright",
        "image_scale": "uint8 0..255",
        "image_size": list(spec.image_size or robot.image_size),
        "joint_names": list(robot.joint_names),
        "prompt": "as written",
        "quaternion_order": "none",
        "quaternion_sign": "none",
        "rate_hz": float(robot.control_hz),
        "resize": "stretch",
        "rotation": robot.rotation if turns else "none",
        "rotation_unit": "rad",
        "state_source": "commanded",
        "state_time": "of the images",
        "waiting_steps": 0,
    }


def compare(theirs: Any, mine: Mapping[str, Any], policy: str, robot: str) -> list[str]:
    """Names of conventions that the other side does not say; MismatchError where it differs.

    theirs: name -> value, as in ``ours``.
    """
    if not isinstance(theirs, Mapping):
        raise MismatchError(
            f"policy {policy!r}: its conventions are {type(theirs).__name__}, expected a map of "
            f"{', '.join(sorted(REMEDIES))}"
        )
    differ = [
        f"{name} {theirs[name]!r} where robot {robot!r} has {value!r} ({REMEDIES[name]})"
        for name, value in mine.items()
        if name in theirs and not _equal(theirs[name], value)
    ]
    if differ:
        raise MismatchError(f"policy {policy!r} is served with {'; '.join(differ)}")
    return [name for name in mine if name not in theirs]


def compare_said(
    said: Mapping[str, Any] | None,
    robot: RobotSpec,
    spec: PolicySpec,
    *,
    unknown: Sequence[str] = (),
    **sent: Any,
) -> None:
    """MismatchError where what a file says of a server differs from what ``spec`` is sent.

    said: the file's values; nothing is compared if None. unknown: conventions that cannot be
    compared (yet). sent: those that are kept otherwise than in ``ours``.
    """
    if said is not None:
        mine = ours(robot, spec) | sent
        known = {name: value for name, value in mine.items() if name not in unknown}
        compare(said, known, spec.name, robot.name)


def read_conventions(path: str | Path | None) -> dict[str, Any] | None:
    """A TOML file of conventions, for a server that does not say them or says too much; None of
    none."""
    if path is None:
        return None
    text = read_text(path, "file of conventions", error=ConfigError)
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"conventions {path}: it cannot be read as TOML ({error})") from error
    for name in table:
        if name not in REMEDIES:
            raise ConfigError(
                f"conventions {path}: there is no {name!r}{did_you_mean(name, REMEDIES)}; there "
                f"are {', '.join(sorted(REMEDIES))}"
            )
    return table


def _equal(a: Any, b: Any) -> bool:
    number = (int, float)
    if isinstance(a, number) and isinstance(b, number):
        return math.isclose(a, b, rel_tol=1e-6) and isinstance(a, bool) == isinstance(b, bool)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)
