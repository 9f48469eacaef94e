"""One simulated rollout: a Meta-World v3 task in MuJoCo, with our starts, looks and cameras.

What enters: a task, the seed of a scene, single control steps. What leaves: pictures, the
commanded pose, Meta-World's own success flag, and the observation that its experts read.

What differs from stock Meta-World, and why:

* Opposed tasks share one start: drawer, window and faucet begin half open, so that "open" and
  "close" are both meaningful, and neither succeeds by standing still. The puck scene shows the
  goals of reach, push and pick-place all the time.
* Ranges of object positions are about 0.6 of Meta-World's, and the hand starts nearer, so that a
  task fits in 120 control steps. The hand starts a few centimetres off its usual place.
* Materials are flat and saturated, without texture, shadow or reflection: at 64 pixels a small
  model spends its capacity on hand and object, and a frame renders ten times faster.
* The weld that drags the hand after the mocap body is twice as stiff (solref 0.01 s, not 0.02 s):
  the hand follows the commanded pose within about 3 cm at full speed instead of 7 cm, which is
  what a model conditioned on commanded poses sees. Stiffer still, and the puck slips.
* The mocap hand is moved by the same arithmetic as ``RobotSpec.integrate``.

Success is Meta-World's ``evaluate_state``, asked after every control step.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from worldeval.errors import MissingDependencyError, WorldError
from worldeval.worlds.sawyer import CAMERAS, ROBOT, Task

# MuJoCo reads these when it is imported; a headless machine has no other way to draw.
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])

try:
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
except ImportError as error:
    raise MissingDependencyError(
        f"the simulator is not installed ({error}); expected metaworld>=3 and mujoco<4; "
        "run: pip install 'worldeval[sim]'"
    ) from error

SUBSTEPS = 5
"""Physics steps of 2.5 ms in one control step, Meta-World's frame_skip."""
WELD_SOLREF_S = 0.01
SETTLE_STEPS = 60
HAND_STEPS = 25
HAND_OFFSET_M = np.array([0.04, 0.03, 0.03])

HAND_START_M = {
    "drawer": (0.0, 0.55, 0.22),
    "window": (0.0, 0.50, 0.22),
    "faucet": (0.0, 0.50, 0.22),
    "button": (0.0, 0.55, 0.24),
    "puck": (0.0, 0.55, 0.18),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Everything that a seed decides. goals_m are those of the puck scene."""

    hand_m: np.ndarray
    object_m: np.ndarray
    joint: float
    goals_m: dict[str, np.ndarray]


def layout(scene: str, seed: int) -> Layout:
    """Draw a scene; the task has no say in it."""
    rng = np.random.default_rng(seed)
    hand = np.array(HAND_START_M[scene]) + rng.uniform(-1, 1, 3) * HAND_OFFSET_M

    def between(low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
        return rng.uniform(low, high)

    joint, goals = 0.0, {}
    if scene == "drawer":
        place = between((-0.06, 0.9, 0.0), (0.06, 0.9, 0.0))
        joint = -rng.uniform(0.085, 0.115)
    elif scene == "window":
        place = between((-0.06, 0.74, 0.16), (0.06, 0.82, 0.16))
        joint = rng.uniform(0.10, 0.13)
    elif scene == "faucet":
        place = between((-0.05, 0.80, 0.0), (0.05, 0.84, 0.0))
        joint = rng.uniform(-0.25, 0.25)
    elif scene == "button":
        place = between((-0.07, 0.80, 0.115), (0.07, 0.86, 0.115))
    elif scene == "puck":
        place = between((-0.06, 0.61, 0.02), (0.06, 0.66, 0.02))
        goals = {
            "reach": between((-0.13, 0.82, 0.12), (-0.09, 0.86, 0.20)),
            "push": between((-0.03, 0.82, 0.02), (0.03, 0.87, 0.02)),
            "pick-place": between((0.09, 0.82, 0.12), (0.13, 0.86, 0.20)),
        }
    else:
        raise WorldError(f"scene {scene!r} does not exist")
    return Layout(hand_m=hand, object_m=place, joint=float(joint), goals_m=goals)


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
JOINTS = {"drawer": "goal_slidey", "window": "window_slide", "faucet": "knob_Joint_1"}


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
        if body == "" and model.geom_matid[geom] >= 0:  # the window's frame hangs on a nameless body
            colour = COLOURS_BY_BODY["window"]
        is_rod = body == "windowb_a" and model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH
        if is_rod or (body == "drawer_link" and model.geom(geom).name == "objGeom"):
            colour = HANDLE_COLOUR
        model.geom_matid[geom] = -1
        model.geom_rgba[geom] = (*colour, 0.25 if glass else 1.0)


# Opposed tasks of Meta-World name different points of one object as "the object".
OBJECT_POINT_M = {
    "drawer-open": (0.0, 0.0, 0.0),
    "drawer-close": (0.0, 0.0, 0.05),
    "window-open": (-0.04, 0.0, 0.0),
    "window-close": (0.01, 0.0, 0.0),
    "faucet-open": (-0.015, 0.0, 0.0),
    "faucet-close": (0.015, 0.0, 0.0),
}


class Simulation:
    """One Meta-World environment that is reset to seeds and stepped control step by control step.

    Public state: ``pose`` (4,) float64 commanded pose, ``success`` after the last control step.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.env = ALL_V3_ENVIRONMENTS[task.meta_world]()
        self.env._partially_observable = False  # experts read the goal
        self.env._set_task_called = True
        self.env._freeze_rand_vec = True
        self.env._reset_hand = self._restore_hand
        self.model, self.data = self.env.model, self.env.data
        self.model.eq_solref[:, 0] = WELD_SOLREF_S
        dress(self.model)
        self._aim_wrist_camera()
        self._low, self._high = np.array(ROBOT.pose_low), np.array(ROBOT.pose_high)
        self._settled: np.ndarray | None = None
        self.layout: Layout
        self.pose = np.zeros(ROBOT.pose_dim)
        self.success = False

    def _aim_wrist_camera(self) -> None:
        wrist = next(camera for camera in CAMERAS if camera.mount == "hand")
        index = self.model.camera("gripperPOV").id
        self.model.cam_pos0[index] = wrist.position_m
        self.model.cam_mat0[index] = wrist.rotation
        self.model.cam_fovy[index] = np.degrees(wrist.fovy_rad)

    def _hold(self, hand_m: np.ndarray, steps: int) -> None:
        for _ in range(steps):
            self.data.mocap_pos[0] = hand_m
            self.data.mocap_quat[0] = (1, 0, 1, 0)
            self.data.ctrl[:] = (-1, 1)
            mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)

    def _restore_hand(self, steps: int = 0) -> None:
        """Meta-World's reset_model calls this. The arm is settled once, then only moved."""
        mujoco.mj_resetData(self.model, self.data)
        usual = np.array(HAND_START_M[self.task.scene])
        if self._settled is None:
            self._hold(usual, SETTLE_STEPS)
            self._settled = self.data.qpos[:9].copy()
            mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:9] = self._settled
        self._hold(self.layout.hand_m, HAND_STEPS)
        mujoco.mj_forward(self.model, self.data)
        self.env.init_tcp = self.env.tcp_center

    def reset(self, seed: int) -> None:
        """Put everything where the seed says; equal seeds give equal bytes from then on."""
        self.layout = plan = layout(self.task.scene, seed)
        if self.task.scene == "puck":
            self.env._last_rand_vec = np.hstack([plan.object_m, plan.goals_m[self.task.name]])
        else:
            self.env._last_rand_vec = plan.object_m.copy()
        self.env.reset_model()
        joint = JOINTS.get(self.task.scene)
        if joint is not None:
            self.data.joint(joint).qpos[:] = plan.joint
        self.data.qvel[:] = 0
        self.data.qacc_warmstart[:] = 0
        mujoco.mj_forward(self.model, self.data)
        self._hold(plan.hand_m, 2)
        mujoco.mj_forward(self.model, self.data)
        self.env._prev_obs = self.env._get_curr_obs_combined_no_goal()
        self.pose = np.array([*plan.hand_m, -1.0])
        self.success = self._evaluate(np.zeros(4))

    def _evaluate(self, action: np.ndarray) -> bool:
        _, info = self.env.evaluate_state(self.observation(), action)
        return bool(info["success"])

    def observation(self) -> np.ndarray:
        """(39,) what Meta-World's scripted experts read: hand, gripper, object, goal."""
        return np.asarray(self.env._get_obs(), np.float64)

    def observation_for(self, task: str) -> np.ndarray:
        """The observation that the expert of another task of this scene would read here."""
        observation = self.observation()
        if task == self.task.name:
            return observation
        if self.layout.goals_m:
            observation[-3:] = self.layout.goals_m[task]
            return observation
        shift = np.array(OBJECT_POINT_M[task]) - np.array(OBJECT_POINT_M[self.task.name])
        if self.task.scene == "faucet":  # these points turn with the handle
            shift = self.data.body("faucet_link2").xmat.reshape(3, 3) @ shift
        observation[4:7] += shift
        return observation

    @property
    def hand_m(self) -> np.ndarray:
        return np.asarray(self.env.get_endeff_pos()).copy()

    def step(self, action: np.ndarray) -> bool:
        """One control step; returns whether Meta-World calls the state a success."""
        clipped = np.clip(np.asarray(action, np.float64), ROBOT.action_low, ROBOT.action_high)
        self.pose[:3] += clipped[:3] * ROBOT.action_scale_m
        self.pose[3] = clipped[3]
        self.pose = np.clip(self.pose, self._low, self._high)
        self.data.mocap_pos[0] = self.pose[:3]
        self.data.mocap_quat[0] = (1, 0, 1, 0)
        self.data.ctrl[:] = (clipped[3], -clipped[3])
        mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)
        mujoco.mj_forward(self.model, self.data)  # mj_step leaves positions one substep behind
        if not np.isfinite(self.data.qpos).all():
            raise WorldError(f"the simulation of {self.task.name!r} diverged; start another rollout")
        self.success = self._evaluate(clipped)
        return self.success

    def close(self) -> None:
        self.env.close()


class Painter:
    """Draws simulations of one scene: all views of a moment as (V, H, W, 3) uint8."""

    def __init__(self, model: mujoco.MjModel) -> None:
        height, width = ROBOT.image_size
        self._model = model
        self._renderer = mujoco.Renderer(model, height, width)
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0
        scene = self._renderer.scene
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION,
                     mujoco.mjtRndFlag.mjRND_HAZE, mujoco.mjtRndFlag.mjRND_FOG,
                     mujoco.mjtRndFlag.mjRND_SKYBOX):
            scene.flags[flag] = 0

    def _camera(self, name: str) -> mujoco.MjvCamera:
        from worldeval.worlds import sawyer

        camera = mujoco.MjvCamera()
        spec = next(spec for spec in CAMERAS if spec.name == name)
        if spec.mount == "hand":
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = self._model.camera("gripperPOV").id
            return camera
        rotation = np.asarray(spec.rotation).reshape(3, 3)
        forward = -rotation[:, 2]
        self._model.vis.global_.fovy = np.degrees(spec.fovy_rad)
        camera.lookat[:] = np.asarray(spec.position_m) + sawyer.DISTANCE_M * forward
        camera.distance = sawyer.DISTANCE_M
        camera.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
        camera.elevation = np.degrees(np.arcsin(forward[2]))
        return camera

    def draw(self, simulation: Simulation) -> np.ndarray:
        views = []
        for spec in CAMERAS:
            self._renderer.update_scene(
                simulation.data, self._camera(spec.name), scene_option=self._options
            )
            self._add_goals(simulation)
            views.append(self._renderer.render())
        return np.stack(views)

    def _add_goals(self, simulation: Simulation) -> None:
        scene = self._renderer.scene
        for name, position in simulation.layout.goals_m.items():
            kind, size, colour = GOAL_MARKERS[name]
            # A disc on the table, not one that floats at the height of the puck's centre.
            place = position if name != "push" else position * (1, 1, 0) + (0, 0, 0.002)
            mujoco.mjv_initGeom(
                scene.geoms[scene.ngeom], kind, np.array(size), place, np.eye(3).ravel(),
                np.array(colour, np.float32),
            )
            scene.ngeom += 1

    def close(self) -> None:
        self._renderer.close()
