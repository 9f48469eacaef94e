"""What passes between a world and a policy: observations one way, checked steps the other.

Enters: a ``WorldStep``. Leaves: the ``Observation`` that a policy asked for (its cameras, its image
size), or WorldError if a world broke its promise about shapes, before that reaches the disk.
"""

from __future__ import annotations

import numpy as np

from worldeval.errors import WorldError
from worldeval.policies.checking import POSE
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec, StartState, WorldStep


def observe(
    spec: PolicySpec,
    robot: RobotSpec,
    start: StartState,
    frame: np.ndarray,
    pose: np.ndarray,
    step: int,
) -> Observation:
    """One rollout as the policy sees it. frame: (V, H, W, 3), pose: (P,).

    Only what its spec names, so that no policy can come to depend on more.
    """
    return Observation(
        images={
            view: resize(frame[robot.views.index(view)], spec.image_size) for view in spec.cameras
        },
        state={key: pose.astype(np.float32) for key in spec.state_keys if key == POSE},
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
    for name, shape in expected.items():
        array = np.asarray(getattr(step, name))
        if array.shape != shape:
            raise WorldError(
                f"world {world!r} answered {name} of shape {array.shape}, expected {shape}; it "
                "does not show what its robot says"
            )
    if step.frames.dtype != np.uint8:
        raise WorldError(f"world {world!r} answered frames of {step.frames.dtype}, expected uint8")
    if not np.isfinite(step.poses).all():
        raise WorldError(f"world {world!r} answered poses that are not finite")
    if len(step.info) != rows:
        raise WorldError(
            f"world {world!r} answered {len(step.info)} infos for {rows} rows, expected one a row"
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
    )
