"""A robot made up from what a gymnasium environment says of itself, where nobody wrote one.

Enters: an environment that was reset, and its first observation and picture. Leaves: a
``RobotSpec`` whose pose is the last action (control_mode "joint_target"), whose rate is the
environment's ``render_fps``, and whose chunk is some half a second long. Write a TOML file and give
``robot=FILE`` for what fits better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Env, spaces

from worldeval.errors import ConfigError
from worldeval.robots import CameraSpec, RobotSpec

CHUNK_S = 0.5


def check_vector(env: Env[Any, Any], name: str) -> None:
    """Raise ConfigError unless the actions of an environment are a vector with bounds."""
    space = env.action_space
    box = isinstance(space, spaces.Box) and len(space.shape) == 1
    if not isinstance(space, spaces.Box) or not box or not space.is_bounded():
        raise ConfigError(
            f"world {name!r} has actions {space}, expected a vector of numbers with bounds (a "
            "Box); wrap the environment so that its actions are one"
        )


def robot_of_environment(
    env: Env[Any, Any], name: str, views: Mapping[str, np.ndarray]
) -> RobotSpec:
    """The robot. views: view -> its first picture (H, W, 3); of views of several sizes ConfigError
    tells what to do."""
    space: Any = env.action_space  # known to be a vector with bounds
    low, high = (tuple(float(x) for x in bound) for bound in (space.low, space.high))
    names = tuple(f"action_{i}" for i in range(len(low)))
    sizes = {image.shape[:2] for image in views.values()}
    if len(sizes) > 1:
        raise ConfigError(
            f"world {name!r} has views of the sizes {sorted(sizes)}, expected one size; give "
            "size=PIXELS or robot=FILE"
        )
    ((height, width),) = sizes
    rate_hz = float(env.metadata.get("render_fps") or 10.0)
    return RobotSpec(
        name=name,
        action_space="joint_target",
        action_names=names,
        action_low=low,
        action_high=high,
        pose_names=names,
        pose_low=low,
        pose_high=high,
        action_scale_m=1.0,
        control_hz=rate_hz,
        steps_per_frame=1,
        frames_per_chunk=max(1, round(CHUNK_S * rate_hz)),
        image_size=(int(height), int(width)),
        cameras=tuple(CameraSpec(name=view, mount="uncalibrated") for view in views),
        control_mode="joint_target",
        gripper_index=(),
    )
