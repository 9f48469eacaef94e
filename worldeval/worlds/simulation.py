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

from typing import Any, cast

import numpy as np

from worldeval.errors import WorldError
from worldeval.worlds.appearance import aim_wrist_camera, dress
from worldeval.worlds.mujoco_backend import ALL_V3_ENVIRONMENTS, mujoco
from worldeval.worlds.sawyer import ROBOT, Task
from worldeval.worlds.scenes import HAND_START_M, Layout, layout

SUBSTEPS = 5
"""Physics steps of 2.5 ms in one control step, Meta-World's frame_skip."""
WELD_SOLREF_S = 0.01
"""Time constant of the weld that drags the hand after the commanded pose."""
SETTLE_STEPS = 60
"""Control steps in which the arm comes to rest at its scene's usual start, once."""
HAND_STEPS = 25
"""Control steps in which it moves from there to the start of a seed."""
ARM_JOINTS = 9
"""Seven of the arm and two of the gripper come first in qpos; objects follow."""
JOINTS = {"drawer": "goal_slidey", "window": "window_slide", "faucet": "knob_Joint_1"}
"""Joints that a layout sets."""

SUCCESS_DISTANCE_M = {
    "drawer-open": 0.03,
    "drawer-close": 0.065,
    "window-open": 0.05,
    "window-close": 0.05,
    "faucet-open": 0.07,
    "faucet-close": 0.07,
    "button-press": 0.024,
    "reach": 0.05,
    "push": 0.05,
    "pick-place": 0.07,
}
"""Meta-World calls a state a success where the goal is no further than this."""

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

    Public state: ``pose`` (4,) float64 commanded pose; ``success`` after the last control step and
    ``goal_distance_m``, the measure behind that flag (of handle, button, puck or fingertips to
    where they should be); ``layout`` of the last reset; ``env``, ``model`` and ``data`` of the
    simulator underneath.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.env = cast(Any, ALL_V3_ENVIRONMENTS[task.meta_world]())
        self.env._partially_observable = False  # experts read the goal
        self.env._set_task_called = True
        self.env._freeze_rand_vec = True
        self.env._reset_hand = self._restore_hand
        self.model, self.data = self.env.model, self.env.data
        self.model.eq_solref[:, 0] = WELD_SOLREF_S
        dress(self.model)
        aim_wrist_camera(self.model)
        self._low, self._high = np.array(ROBOT.pose_low), np.array(ROBOT.pose_high)
        self._settled: np.ndarray | None = None
        self.layout: Layout
        self.pose = np.zeros(ROBOT.pose_dim)
        self.success = False
        self.goal_distance_m = float("inf")

    @property
    def success_distance_m(self) -> float:
        """The largest ``goal_distance_m`` that is a success."""
        return SUCCESS_DISTANCE_M[self.task.name]

    def _hold(self, hand_m: np.ndarray, steps: int) -> None:
        for _ in range(steps):
            self.data.mocap_pos[0] = hand_m
            self.data.mocap_quat[0] = (1, 0, 1, 0)
            self.data.ctrl[:] = (-1, 1)
            mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)

    def _restore_hand(self, steps: int = 0) -> None:
        """Meta-World's reset_model calls this. The arm is settled once, then only moved."""
        mujoco.mj_resetData(self.model, self.data)
        if self._settled is None:
            self._hold(np.array(HAND_START_M[self.task.scene]), SETTLE_STEPS)
            self._settled = self.data.qpos[:ARM_JOINTS].copy()
            mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:ARM_JOINTS] = self._settled
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
        # Twice: Meta-World settles the hand before it moves the objects, so at the first time the
        # objects of the last rollout are still around, and a reset must not depend on them.
        self.env.reset_model()
        self.env.reset_model()
        if self.task.scene == "puck":  # push takes its height from where the puck lay before
            self.data.joint("objjoint").qpos[:] = (*plan.object_m, 1, 0, 0, 0)
        elif self.task.scene in JOINTS:
            self.data.joint(JOINTS[self.task.scene]).qpos[:] = plan.joint
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
        self.goal_distance_m = float(info["obj_to_target"])
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
            raise WorldError(f"the simulation of {self.task.name!r} diverged; reset it")
        self.success = self._evaluate(clipped)
        return self.success

    def close(self) -> None:
        self.env.close()
