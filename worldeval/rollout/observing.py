"""What passes between a world and a policy: observations one way, checked steps the other.

Enters: a ``WorldStep``. Leaves: the ``Observation`` that a policy asked for (its cameras, its image
size), or WorldError if a world broke its promise about shapes, before that reaches the disk.
"""

from __future__ import annotations

import numpy as np

from worldeval.errors import WorldError
from worldeval.policies.checking import states
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec, StartState, WorldStep


def observe(
    spec: PolicySpec,
    robot: RobotSpec,
    start: StartState,
    frame: np.ndarray,
    pose: np.ndarray,
    step: int,
    joints: np.ndarray | None = None,
) -> Observation:
    """One rollout as the policy sees it. frame: (V, H, W, 3), pose: (P,), joints: (J,).

    Only what its spec names, so that no policy can come to depend on more.
    """
    return Observation(
        images={
            view: resize(frame[robot.views.index(view)], spec.image_size) for view in spec.cameras
        },
        state={k: v for k, v in states(robot, pose, joints).items() if k in spec.state_keys},
        instruction=start.instruction,
        rollout_id=start.start_id,
        step=step,
    )


def resize(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """(H, W, 3) uint8 at ``size`` (H, W) by area averaging; always a copy of the policy's own."""
    if size is None or tuple(size) == image.shape[:2]:
        return image.copy()
    import cv2

    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def check_step(step: WorldStep, rows: int, frames: int, robot: RobotSpec, world: str) -> None:
    """Raise WorldError unless ``step`` has the shapes that types.py promises."""
    height, width = robot.image_size
    expected = {
        "frames": (rows, frames, len(robot.views), height, width, 3),
        "poses": (rows, frames, robot.pose_dim),
    }
    if step.success is not None:
        expected["success"] = (rows, frames)
    if robot.joint_names:
        expected["joints"] = (rows, frames, robot.joint_dim)
    elif step.joints is not None:
        raise WorldError(
            f"world {world!r} answered joints, but its robot {robot.name!r} has none; name them in "
            "its joint_names"
        )
    for name, shape in expected.items():
        array = np.asarray(getattr(step, name))
        if array.shape != shape:
            raise WorldError(
                f"world {world!r} answered {name} of shape {array.shape}, expected {shape}; it "
                "does not show what its robot says"
            )
    if step.frames.dtype != np.uint8:
        raise WorldError(f"world {world!r} answered frames of {step.frames.dtype}, expected uint8")
    for name in ("poses", *(["joints"] if robot.joint_names else [])):
        if not np.isfinite(getattr(step, name)).all():
            raise WorldError(f"world {world!r} answered {name} that are not finite")
    if len(step.info) != rows:
        raise WorldError(
            f"world {world!r} answered {len(step.info)} infos for {rows} rows, expected one per row"
        )


def take(step: WorldStep, rows: list[int]) -> WorldStep:
    """Some rows of a step."""
    if len(rows) == len(step.frames):
        return step
    return WorldStep(
        frames=step.frames[rows],
        poses=step.poses[rows],
        success=None if step.success is None else step.success[rows],
        info=[step.info[i] for i in rows],
        joints=None if step.joints is None else step.joints[rows],
    )
