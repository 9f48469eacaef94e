"""Does a policy fit the robot, and is what it answered usable?

Enters: a policy (anything with ``spec``, ``reset``, ``act``, ``close``), a RobotSpec, and later its
action chunks. Leaves: nothing, or clean float32 actions within the robot's bounds; every
disagreement raises, before the first step where that is possible. Two sides that disagree silently
(a camera, a rate, the sense of a gripper) are the classic way to a wrong ranking.

``check_policy`` asks nothing of the policy but its attributes; ``try_policy`` also lets it act once
on made-up observations, which is what an author wants to run before a long evaluation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from worldeval.errors import MismatchError, PolicyError
from worldeval.robots import RobotSpec
from worldeval.robots.bounds import beyond, reaching
from worldeval.types import Observation, Policy, PolicySpec

POSE = "pose"
"""Key of the commanded pose in ``Observation.state``; see ``RobotSpec.pose_names``."""

JOINTS, GRIPPER, CARTESIAN = "joint_position", "gripper_position", "cartesian_position"
"""Keys that robots with joints have too, named as in DROID and openpi; see ``Observation``."""


def state_keys(robot: RobotSpec) -> tuple[str, ...]:
    """Keys of the states that ``robot`` can show."""
    return (POSE, JOINTS, GRIPPER, CARTESIAN) if robot.joint_names else (POSE,)


def states(robot: RobotSpec, pose: np.ndarray, joints: np.ndarray | None) -> dict[str, np.ndarray]:
    """Every state that there is for a pose (P,) and joints (J,), float32 copies."""
    pose = np.array(pose, np.float32)
    if joints is None:
        return {POSE: pose}
    grippers = list(robot.pose_grippers)
    return {
        POSE: pose,
        JOINTS: np.array(joints, np.float32),
        GRIPPER: pose[grippers],
        CARTESIAN: np.delete(pose, grippers),
    }


def check_policy(policy: Any, robot: RobotSpec) -> None:
    """Raise PolicyError if ``policy`` is not one, MismatchError if it does not fit ``robot``."""
    spec = getattr(policy, "spec", None)
    if not isinstance(spec, PolicySpec):
        raise PolicyError(
            f"{type(policy).__name__} has no usable `spec`: found {spec!r}, expected a "
            "worldeval.types.PolicySpec; set self.spec in its __init__"
        )
    methods = ("reset", "act", "close")
    missing = [name for name in methods if not callable(getattr(policy, name, None))]
    if missing:
        raise PolicyError(
            f"policy {spec.name!r} ({type(policy).__name__}) has no method {missing[0]!r}, "
            "expected reset, act and close; see worldeval.types.Policy for their arguments"
        )
    check_spec(spec, robot)


def check_spec(spec: PolicySpec, robot: RobotSpec) -> None:
    """Compare what a policy needs and gives with what the robot shows and takes."""

    def differ(field: str, given: object, expected: str, remedy: str) -> MismatchError:
        return MismatchError(
            f"policy {spec.name!r} has {field} {given!r}, but robot {robot.name!r} has {expected}; "
            f"{remedy}"
        )

    for camera in spec.cameras:
        if camera not in robot.views:
            raise differ("camera", camera, f"cameras {list(robot.views)}", "rename or drop it")
    if spec.image_size is not None and not _is_size(spec.image_size):
        raise differ(
            "image_size",
            spec.image_size,
            f"images of {robot.image_size}",
            "give (height, width) in pixels, or None for what the robot has",
        )
    for key in spec.state_keys:
        if key not in state_keys(robot):
            raise differ("state key", key, f"states {list(state_keys(robot))}", "rename or drop it")
    if spec.action_space != robot.action_space:
        raise differ(
            "action_space",
            spec.action_space,
            repr(robot.action_space),
            "convert its actions and declare the robot's action space",
        )
    if spec.action_dim != robot.action_dim:
        raise differ(
            "action_dim",
            spec.action_dim,
            f"{robot.action_dim} ({', '.join(robot.action_names)})",
            "answer with one number for each of them",
        )
    check_timing(spec, robot)


def check_timing(spec: PolicySpec, robot: RobotSpec) -> None:
    """Raise MismatchError unless the policy's rate and numbers of steps can be carried out.

    Any chunk of 1 control step or more can, and any number of its steps, in every world alike.
    """
    chunk, execute, rate = spec.chunk, spec.execute, spec.rate_hz
    right_chunk = _is_count(chunk)
    right_rate = isinstance(rate, int | float | np.number) and math.isclose(
        rate, robot.control_hz, rel_tol=1e-3
    )
    if right_chunk and _is_count(execute) and execute <= chunk and right_rate:
        return
    steps = f"execute 1 to {chunk}" if right_chunk else "chunk 1 or more and execute 1 to chunk"
    resample = "" if right_rate else f"resample its actions to {robot.control_hz:g} Hz and "
    raise MismatchError(
        f"policy {spec.name!r} has rate_hz {rate!r}, chunk {chunk!r} and execute {execute!r}, but "
        f"robot {robot.name!r} takes rate_hz {robot.control_hz:g} ({robot.steps_per_frame} control "
        f"steps for each of its {robot.frame_hz:g} frames per second) and {steps}; {resample}"
        "correct its spec"
    )


def check_actions(
    actions: Any,
    spec: PolicySpec,
    robot: RobotSpec,
    batch: int,
    where: np.ndarray | None = None,
) -> np.ndarray:
    """``actions`` as (batch, chunk, A) float32 within the robot's bounds, or PolicyError.

    where: (batch, A), the actions that hold the robots where they are (``robots/bounds.py``): one
        that stands outside of its bounds may stay there and come back.
    Numbers that leave their bounds by rounding are clipped; anything beyond is refused, because
    clipping it in silence would evaluate another policy than the one given.
    """
    array = shaped_actions(actions, spec, robot, batch)
    low, high = reaching(
        np.asarray(robot.action_low, np.float32),
        np.asarray(robot.action_high, np.float32),
        None if where is None else np.asarray(where, np.float32)[:, None],
    )
    outside = beyond(array, low, high)
    if outside.any():
        row, step, axis = np.argwhere(outside)[0]
        first, last = (np.broadcast_to(end, array.shape)[row, step, axis] for end in (low, high))
        raise PolicyError(
            f"policy {spec.name!r} answered {array[row, step, axis]:.6g} for "
            f"{robot.action_names[axis]!r} (row {row}, step {step}), expected a number in "
            f"[{first:g}, {last:g}]; clip or rescale its actions to the robot's units"
        )
    return np.clip(array, low, high)


def shaped_actions(actions: Any, spec: PolicySpec, robot: RobotSpec, batch: int) -> np.ndarray:
    """``actions`` as (batch, chunk, A) finite float32, within bounds or not, or PolicyError."""
    try:
        array = np.asarray(actions, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PolicyError(
            f"policy {spec.name!r} answered with {type(actions).__name__}, expected an array of "
            f"numbers ({error}); return a float32 numpy array"
        ) from error
    expected = (batch, spec.chunk, robot.action_dim)
    if array.shape != expected:
        raise PolicyError(
            f"policy {spec.name!r} answered with shape {array.shape}, expected {expected} = "
            "(batch, chunk, action_dim); return one chunk for each observation, or correct its spec"
        )
    if not np.isfinite(array).all():
        row, step, axis = np.argwhere(~np.isfinite(array))[0]
        raise PolicyError(
            f"policy {spec.name!r} answered {array[row, step, axis]} for "
            f"{robot.action_names[axis]!r} (row {row}, step {step}), expected finite numbers; look "
            "for a division by zero or diverged weights"
        )
    return array


def try_policy(policy: Policy, robot: RobotSpec, *, batch: int = 2) -> np.ndarray:
    """``check_policy``, then one reset and one act on made-up observations; the checked actions."""
    check_policy(policy, robot)
    spec = policy.spec
    rng = np.random.default_rng(0)
    height, width = spec.image_size or robot.image_size
    ids = [f"try/{row}" for row in range(batch)]
    pose = np.mean([robot.pose_low, robot.pose_high], axis=0).astype(np.float32)
    joints = np.zeros(robot.joint_dim, np.float32) if robot.joint_names else None
    observations = [
        Observation(
            images={
                name: rng.integers(0, 256, (height, width, 3), np.uint8) for name in spec.cameras
            },
            state={k: v for k, v in states(robot, pose, joints).items() if k in spec.state_keys},
            instruction="try this policy",
            rollout_id=name,
            step=0,
        )
        for name in ids
    ]
    policy.reset(ids, [o.instruction for o in observations], list(range(batch)))
    return check_actions(policy.act(observations), spec, robot, batch)


def _is_size(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(n, int) and n > 0 for n in value)
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and type(value) is not bool and bool(value >= 1)
