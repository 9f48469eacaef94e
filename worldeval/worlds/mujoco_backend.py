"""The one place that imports MuJoCo and Meta-World, after telling them how to draw.

What enters: the environment variables MUJOCO_GL and PYOPENGL_PLATFORM, which win where they are
set. What leaves: ``mujoco``, Meta-World's environments by name and its scripted policies; or
MissingDependencyError saying what to install.
"""

from __future__ import annotations

import os
import sys
from ctypes.util import find_library

from worldeval.errors import MissingDependencyError

# MuJoCo reads these when it is imported. A headless Linux machine draws by EGL, where there is one,
# or else in software by OSMesa; elsewhere MuJoCo's own choice is right.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl" if find_library("EGL") else "osmesa")
    os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])

try:
    import mujoco
    from metaworld import policies
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
except ImportError as error:
    raise MissingDependencyError(
        f"the simulator is not installed ({error}); expected metaworld 3.1 and mujoco 3.3 or "
        "later, below 4; run: pip install 'worldeval[sim]'"
    ) from error

__all__ = ["ALL_V3_ENVIRONMENTS", "mujoco", "policies"]
