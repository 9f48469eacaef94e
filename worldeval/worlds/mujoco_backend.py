"""The one place that imports MuJoCo and Meta-World, after telling them how to draw.

What enters: how to draw (``headless.py``). What leaves: ``mujoco``, Meta-World's environments by
name and its scripted policies; or MissingDependencyError saying what to install.
"""

from __future__ import annotations

from worldeval.errors import MissingDependencyError
from worldeval.worlds import headless  # noqa: F401

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
