"""How MuJoCo draws on a machine without a screen; imported before MuJoCo is.

Enters and leaves: the environment variables MUJOCO_GL and PYOPENGL_PLATFORM, which MuJoCo reads
when it is imported, and which win where they are set.
"""

from __future__ import annotations

import os
import sys
from ctypes.util import find_library

# A headless Linux machine draws by EGL, where there is one, or else in software by OSMesa;
# elsewhere MuJoCo's own choice is right.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl" if find_library("EGL") else "osmesa")
    os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])

CANNOT = (
    "MuJoCo cannot draw here (MUJOCO_GL is {gl!r}: {error}); set MUJOCO_GL=egl or MUJOCO_GL=osmesa "
    "before Python starts, and install libegl1 or libosmesa6"
)
"""What is said where it cannot."""
