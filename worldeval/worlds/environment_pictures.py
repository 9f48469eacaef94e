"""The pictures of a gymnasium environment, wherever it has them.

Enters: an environment and its newest observation. Leaves: view -> (H, W, 3) uint8, drawn by cameras
of a MuJoCo model (one of its own names, or one that stands where a robot says), else from the
observation, else from ``render``.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, WorldError
from worldeval.robots import CameraSpec
from worldeval.worlds import headless

RENDER = "render"
"""The view of an environment that shows its pictures by ``render`` alone."""
PIXELS = "pixels"


class EnvironmentPictures:
    """Looks at environments of one kind; holds a graphics context once it has drawn.

    world: for messages. cameras: what a MuJoCo model is drawn by; those that are uncalibrated are
    the model's own of that name. () for pictures that are there.
    """

    def __init__(self, world: str, cameras: Sequence[CameraSpec]) -> None:
        self.world, self.cameras = world, tuple(cameras)
        self._renderer: Any = None
        self._model: Any = None

    def of(
        self, env: Any, observation: Any, size: tuple[int, int], hand_m: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """What the environment shows now. size: (H, W) of what is drawn. hand_m: (3,), for cameras
        that travel with the hand."""
        if self.cameras:
            env = env.unwrapped
            return {one.name: self._drawn(env, one, size, hand_m) for one in self.cameras}
        if inside := pictures_in(observation):
            return inside
        try:
            picture = env.render()
        except Exception as error:  # a stranger's environment may raise anything
            raise WorldError(
                f"world {self.world!r}: render raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
            raise ConfigError(
                f"world {self.world!r} shows no picture (render gave {type(picture).__name__}), "
                "expected (H, W, 3); give render_mode=rgb_array, or cameras=NAMES of a MuJoCo model"
            )
        return {RENDER: picture.astype(np.uint8)}

    def _drawn(
        self, env: Any, camera: CameraSpec, size: tuple[int, int], hand_m: np.ndarray | None
    ) -> np.ndarray:
        """What a camera sees. One renderer serves all environments of a kind: they have one shape,
        and where things are stands in their data."""
        if not is_mujoco(env):
            raise ConfigError(
                f"world {self.world!r} is no MuJoCo environment, so it has no camera "
                f"{camera.name!r}; leave cameras out"
            )
        import mujoco

        names = [env.model.camera(i).name for i in range(env.model.ncam)]
        own = camera.mount == "uncalibrated"
        if own and camera.name not in names:
            raise ConfigError(
                f"world {self.world!r} has no camera {camera.name!r}; it has {', '.join(names)}"
            )
        if self._renderer is None or (self._renderer.height, self._renderer.width) != size:
            self.close()
            try:
                self._renderer = mujoco.Renderer(env.model, *size)
            except (mujoco.FatalError, RuntimeError, ImportError, AttributeError) as error:
                said = headless.CANNOT.format(gl=os.environ.get("MUJOCO_GL"), error=error)
                raise WorldError(said) from error
            self._model = env.model
            # A renderer that outlives the graphics driver complains loudly at exit.
            atexit.register(self.close)
        if hasattr(env, "_render_callback"):  # gymnasium-robotics puts its target in place there
            env._render_callback()
        self._renderer.update_scene(env.data, camera.name if own else self._free(camera, hand_m))
        return np.asarray(self._renderer.render())

    def _free(self, camera: CameraSpec, hand_m: np.ndarray | None) -> Any:
        """MuJoCo's free camera where a calibrated one stands; it cannot be rolled."""
        import mujoco

        free = mujoco.MjvCamera()
        forward = -np.asarray(camera.rotation).reshape(3, 3)[:, 2]
        where = camera.centre_m(np.zeros(3) if hand_m is None else hand_m)
        self._model.vis.global_.fovy = np.degrees(camera.fovy_rad)
        free.lookat[:] = where + forward
        free.distance = 1.0
        free.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
        free.elevation = np.degrees(np.arcsin(forward[2]))
        return free

    def close(self) -> None:
        atexit.unregister(self.close)
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None


def is_mujoco(env: Any) -> bool:
    """Whether an environment simulates by MuJoCo, as gymnasium's own and -robotics' do."""
    return getattr(env, "model", None) is not None and hasattr(getattr(env, "data", None), "qpos")


def sized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 at ``size`` by area averaging; a copy."""
    if image.shape[:2] == tuple(size):
        return image.copy()
    import cv2

    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def pictures_in(observation: Any) -> dict[str, np.ndarray]:
    """View -> (H, W, 3) uint8: those that stand in an observation, as LeRobot's and gymnasium's own
    environments put them there."""
    if _is_picture(observation):
        return {PIXELS: observation}
    if not isinstance(observation, Mapping):
        return {}
    inside = observation.get(PIXELS, observation)
    if _is_picture(inside):
        return {PIXELS: inside}
    if not isinstance(inside, Mapping):
        return {}
    return {str(k): v for k, v in inside.items() if _is_picture(v)}


def _is_picture(value: Any) -> bool:
    array = isinstance(value, np.ndarray)
    return array and value.ndim == 3 and value.shape[2] == 3 and value.dtype == np.uint8
