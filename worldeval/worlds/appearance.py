"""How the embedded world looks: flat saturated colours, goal markers, three cameras.

What enters: MuJoCo models and their states. What leaves: pictures, (V, H, W, 3) uint8.

Against stock Meta-World, materials lose texture, shadow and reflection: at 64 pixels a small
model then spends its capacity on hand and object, and a frame renders ten times faster (about
3.7 ms per view on one CPU core). Goals are drawn by us, all of them, for all tasks of the puck
scene.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from worldeval.errors import WorldError
from worldeval.robots import CameraSpec
from worldeval.worlds import headless
from worldeval.worlds.mujoco_backend import mujoco
from worldeval.worlds.sawyer import CAMERAS, DISTANCE_M, ROBOT

WRIST_CAMERA = "gripperPOV"

GOAL_MARKERS = {
    "reach": (mujoco.mjtGeom.mjGEOM_SPHERE, (0.035, 0.0, 0.0), (0.9, 0.05, 0.05, 1.0)),
    "push": (mujoco.mjtGeom.mjGEOM_CYLINDER, (0.05, 0.002, 0.0), (0.05, 0.7, 0.1, 1.0)),
    "pick-place": (mujoco.mjtGeom.mjGEOM_SPHERE, (0.035, 0.0, 0.0), (0.1, 0.2, 0.95, 1.0)),
}
COLOURS_BY_BODY = {
    "world": (0.30, 0.30, 0.32),
    "tablelink": (0.62, 0.61, 0.58),
    "RetainingWall": (0.45, 0.47, 0.50),
    "hand": (0.15, 0.15, 0.15),
    "rightpad": (0.95, 0.15, 0.75),
    "leftpad": (0.10, 0.80, 0.90),
    "drawercase_link": (0.48, 0.27, 0.14),
    "drawer_link": (0.35, 0.70, 0.35),
    "window": (0.55, 0.25, 0.15),
    "windowb_a": (0.20, 0.45, 0.85),
    "windowb_b": (0.55, 0.45, 0.35),
    "faucet_link": (0.35, 0.37, 0.42),
    "faucet_link2": (0.90, 0.10, 0.10),
    "buttonbox": (0.90, 0.75, 0.10),
    "button": (0.90, 0.10, 0.10),
    "obj": (0.98, 0.72, 0.05),
}
ARM_COLOUR = (0.27, 0.22, 0.30)
HANDLE_COLOUR = (0.95, 0.55, 0.05)


def dress(model: mujoco.MjModel) -> None:
    """Flat colours, no texture, no reflection, quick rendering. Physics is untouched."""
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    model.vis.headlight.ambient[:] = 0.40
    model.mat_texid[:] = -1
    model.mat_reflectance[:] = 0.0
    model.mat_specular[:] = 0.1
    model.light_castshadow[:] = 0
    for geom in range(model.ngeom):
        body = model.body(model.geom_bodyid[geom]).name
        glass = model.geom_matid[geom] >= 0 and model.mat_rgba[model.geom_matid[geom], 3] < 0.9
        if model.geom_rgba[geom, 3] < 0.5:  # helper shapes that nobody is meant to see
            continue
        colour = COLOURS_BY_BODY.get(body, ARM_COLOUR)
        if body == "" and model.geom_matid[geom] >= 0:  # the window's frame has a nameless body
            colour = COLOURS_BY_BODY["window"]
        is_rod = body == "windowb_a" and model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH
        if is_rod or (body == "drawer_link" and model.geom(geom).name == "objGeom"):
            colour = HANDLE_COLOUR
        model.geom_matid[geom] = -1
        model.geom_rgba[geom] = (*colour, 0.25 if glass else 1.0)


def aim_wrist_camera(model: mujoco.MjModel) -> None:
    """Give Meta-World's gripper camera the place and direction of ``ROBOT``'s wrist camera."""
    wrist = next(camera for camera in CAMERAS if camera.mount == "hand")
    index = model.camera(WRIST_CAMERA).id
    model.cam_pos0[index] = wrist.position_m
    model.cam_mat0[index] = wrist.rotation
    model.cam_fovy[index] = np.degrees(wrist.fovy_rad)


class Painter:
    """Draws the states of one scene; holds a graphics context until closed."""

    def __init__(self, model: mujoco.MjModel) -> None:
        height, width = ROBOT.image_size
        self._model = model
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except (mujoco.FatalError, RuntimeError, ImportError, AttributeError) as error:
            said = headless.CANNOT.format(gl=os.environ.get("MUJOCO_GL"), error=error)
            raise WorldError(said) from error
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0
        scene = self._renderer.scene
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_HAZE,
            mujoco.mjtRndFlag.mjRND_FOG,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
        ):
            scene.flags[flag] = 0

    def _camera(self, spec: CameraSpec) -> mujoco.MjvCamera:
        camera = mujoco.MjvCamera()
        if spec.mount == "hand":
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = self._model.camera(WRIST_CAMERA).id
            return camera
        rotation = np.asarray(spec.rotation).reshape(3, 3)
        forward = -rotation[:, 2]
        self._model.vis.global_.fovy = np.degrees(spec.fovy_rad)
        camera.lookat[:] = np.asarray(spec.position_m) + DISTANCE_M * forward
        camera.distance = DISTANCE_M
        camera.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
        camera.elevation = np.degrees(np.arcsin(forward[2]))
        return camera

    def draw(self, data: mujoco.MjData, goals_m: Mapping[str, np.ndarray]) -> np.ndarray:
        """All views of one moment; ``data`` may be of any task of the scene."""
        views = []
        for spec in CAMERAS:
            self._renderer.update_scene(data, self._camera(spec), scene_option=self._options)
            self._add_goals(goals_m)
            views.append(self._renderer.render())
        return np.stack(views)

    def _add_goals(self, goals_m: Mapping[str, np.ndarray]) -> None:
        scene = self._renderer.scene
        for name, position in goals_m.items():
            kind, size, colour = GOAL_MARKERS[name]
            # A disc on the table, not one that floats at the height of the puck's centre.
            place = position if name != "push" else position * (1, 1, 0) + (0, 0, 0.002)
            mujoco.mjv_initGeom(
                scene.geoms[scene.ngeom],
                kind,
                np.array(size),
                place,
                np.eye(3).ravel(),
                np.array(colour, np.float32),
            )
            scene.ngeom += 1

    def close(self) -> None:
        self._renderer.close()
