"""Who moves the hand in a recording: experts, noisy experts, experts that go wrong, wanderers.

What enters: a ``Simulation`` at some state. What leaves: one control step (4,) float32 in [-1, 1].

Experts are Meta-World's own scripted policies, clipped to the action bounds. Where they are slow
they are sped up by a gain on the motion (they are proportional controllers); ``reach`` aims the
fingertips instead of the wrist, because success is measured there. An expert that has reached
success for a few steps holds still: pulling on against a stop would carry the commanded pose away
from the hand that the cameras show.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from worldeval.errors import ConfigError
from worldeval.worlds.mujoco_backend import policies
from worldeval.worlds.sawyer import ROBOT, TASKS
from worldeval.worlds.simulation import Simulation

_POLICIES: dict[str, Any] = {
    "drawer-open": policies.SawyerDrawerOpenV3Policy,
    "drawer-close": policies.SawyerDrawerCloseV3Policy,
    "window-open": policies.SawyerWindowOpenV3Policy,
    "window-close": policies.SawyerWindowCloseV3Policy,
    "faucet-open": policies.SawyerFaucetOpenV3Policy,
    "faucet-close": policies.SawyerFaucetCloseV3Policy,
    "button-press": policies.SawyerButtonPressTopdownV3Policy,
    "reach": policies.SawyerReachV3Policy,
    "push": policies.SawyerPushV3Policy,
    "pick-place": policies.SawyerPickPlaceV3Policy,
}
_GAIN = {"drawer-open": 3.0, "reach": 2.0, "push": 1.5, "pick-place": 1.5}
HOLD_AFTER_STEPS = 4
"""Control steps of success after which an expert stands still."""


class Driver(Protocol):
    """Chooses control steps of one simulation."""

    def act(self, simulation: Simulation) -> np.ndarray: ...


class Expert:
    """Meta-World's scripted expert of ``task``, which may differ from the simulation's own task
    (of the same scene): that is how an expert does the wrong thing on purpose."""

    def __init__(self, task: str, aim_offset_m: np.ndarray | None = None) -> None:
        if task not in _POLICIES:
            raise ConfigError(
                f"there is no expert for {task!r}; there is one for each of {', '.join(TASKS)}"
            )
        self.task = task
        self._policy = _POLICIES[task]()
        self._gain = _GAIN.get(task, 1.0)
        self._solved_steps = 0
        self._aim_offset_m = np.zeros(3) if aim_offset_m is None else aim_offset_m

    def act(self, simulation: Simulation) -> np.ndarray:
        observation = simulation.observation_for(self.task)
        observation[:3] -= self._aim_offset_m  # it believes to be elsewhere, and so misses
        if self.task == "reach":
            fingertip = np.asarray(simulation.env.tcp_center) - simulation.hand_m
            observation[-3:] -= fingertip
        with warnings.catch_warnings():  # it warns whenever its own gain exceeds the bounds
            warnings.simplefilter("ignore")
            action = np.asarray(self._policy.get_action(observation), np.float64)
        action[:3] *= self._gain
        solved = simulation.success and self.task == simulation.task.name
        self._solved_steps = self._solved_steps + 1 if solved else 0
        if self._solved_steps > HOLD_AFTER_STEPS:
            action[:3] = 0.0
        return np.clip(action, ROBOT.action_low, ROBOT.action_high).astype(np.float32)


class Noisy:
    """A driver whose executed steps are disturbed by Ornstein-Uhlenbeck noise (in action units).

    n' = (1 - rate) n + scale sqrt(1 - (1 - rate)^2) e with e ~ N(0, 1), drawn at its standing
    distribution, whose deviation is ``scale``.
    """

    def __init__(self, driver: Driver, rng: np.random.Generator, scale: float, rate: float) -> None:
        self._driver, self._rng, self._scale, self._rate = driver, rng, scale, rate
        self._noise = rng.normal(0.0, scale, 3)

    def act(self, simulation: Simulation) -> np.ndarray:
        action = self._driver.act(simulation).copy()
        keep = 1.0 - self._rate
        kick = self._scale * np.sqrt(1.0 - keep**2)
        self._noise = keep * self._noise + self._rng.normal(0.0, kick, 3)
        action[:3] += self._noise
        return np.clip(action, -1.0, 1.0).astype(np.float32)


class Waypoints:
    """Moves the commanded pose along straight lines, at ``speed`` of the largest step, to one
    waypoint after the other: (x, y, z in metres, gripper command). Holds at the last one."""

    def __init__(self, waypoints: Sequence[np.ndarray], speed: float, dwell_steps: int = 0) -> None:
        self._waypoints = [np.asarray(point, np.float64) for point in waypoints]
        self._speed, self._dwell, self._waited = speed, dwell_steps, 0

    def act(self, simulation: Simulation) -> np.ndarray:
        target = np.clip(self._waypoints[0], ROBOT.pose_low, ROBOT.pose_high)
        error = (target[:3] - simulation.pose[:3]) / ROBOT.action_scale_m
        distance = float(np.linalg.norm(error))
        step = error * min(1.0, self._speed / max(distance, 1e-9))
        if distance < 0.5:
            self._waited += 1
            if self._waited > self._dwell and len(self._waypoints) > 1:
                self._waypoints.pop(0)
                self._waited = 0
        return np.append(step, target[3]).astype(np.float32)


WORKSPACE_M = (np.array([-0.22, 0.45, 0.07]), np.array([0.22, 0.82, 0.34]))
"""Where wandering hands go: what both fixed cameras see."""


def wanderer(pose: np.ndarray, rng: np.random.Generator) -> Waypoints:
    """Smooth random motion; every other one leaves its start and comes back to it."""
    points = []
    gripper = -1.0
    for _ in range(12):
        if rng.random() < 0.3:
            gripper = -gripper
        points.append(np.append(rng.uniform(*WORKSPACE_M), gripper))
    if rng.random() < 0.5:
        points[int(rng.integers(1, 3))] = pose.copy()
    return Waypoints(points, speed=rng.uniform(0.4, 1.0), dwell_steps=int(rng.integers(0, 8)))


def memory_motion(pose: np.ndarray, rng: np.random.Generator, chunks: int = 10) -> Waypoints:
    """Out and back, for benchmarks of memory: the hand goes far up and sideways for about half of
    the episode and is back at its start pose at the end, where the first view must reappear."""
    side = rng.choice([-1.0, 1.0])
    away = pose.copy()
    away[0] += side * rng.uniform(0.22, 0.30)
    away[1] += rng.uniform(-0.08, 0.05)
    away[2] += rng.uniform(0.08, 0.15)
    away = np.clip(away, ROBOT.pose_low, ROBOT.pose_high)
    travel = float(np.linalg.norm(away[:3] - pose[:3])) / ROBOT.action_scale_m
    half = chunks * ROBOT.chunk_steps // 2
    # Out in 60 % of the first half, stay, and back before the last chunk ends.
    speed = min(1.0, travel / (0.6 * half))
    dwell = max(0, int(half - travel / speed))
    return Waypoints([away, pose.copy()], speed=speed, dwell_steps=dwell)


def revisit_motion(pose: np.ndarray, rng: np.random.Generator) -> Waypoints:
    """To a place A, far away to B, and back to A, for benchmarks of memory: what reappears was seen
    once, after the start and long before the end, so neither the first frame nor the last few
    frames show it."""
    centre = (WORKSPACE_M[0] + WORKSPACE_M[1]) / 2
    near, far = pose.copy(), pose.copy()
    side = rng.choice([-1.0, 1.0])
    near[0] = centre[0] + side * rng.uniform(0.10, 0.18)
    near[1] = centre[1] + rng.uniform(-0.10, 0.10)
    near[2] = rng.uniform(0.10, 0.16)
    far[0] = centre[0] - side * rng.uniform(0.14, 0.20)
    far[1] = centre[1] + rng.uniform(-0.12, 0.12)
    far[2] = rng.uniform(0.22, 0.30)
    return Waypoints([near, far, near.copy()], speed=1.0, dwell_steps=6)


class Failing:
    """An expert that goes wrong: how, and from which control step on, is drawn from ``rng``.

    stop: freezes. wander: moves off. opposed: does another task of the scene. offset: aims beside
    the object all along. gripper: opens the hand for good (of use where something is held).
    """

    def __init__(self, task: str, rng: np.random.Generator) -> None:
        ways = ["stop", "wander", "offset"]
        if TASKS[task].opposed:
            ways += ["opposed", "opposed"]
        if task == "pick-place":
            ways.append("gripper")
        self.way = str(rng.choice(ways))
        self._rng = rng
        self._start = int(rng.integers(6, 28))
        self._steps = 0
        self._driver: Driver = Expert(task)
        self._offset = np.zeros(3)
        if self.way == "opposed":
            self._start = int(rng.choice([0, self._start]))
            self._other: Driver = Expert(str(rng.choice(TASKS[task].opposed)))
        if self.way == "offset":
            angle = rng.uniform(0, 2 * np.pi)
            self._offset[:2] = rng.uniform(0.07, 0.12) * np.array([np.cos(angle), np.sin(angle)])
            self._driver = Expert(task, aim_offset_m=self._offset)

    def act(self, simulation: Simulation) -> np.ndarray:
        wrong = self._steps >= self._start
        if self._steps == self._start:
            if self.way == "wander":
                self._driver = wanderer(simulation.pose, self._rng)
            elif self.way == "opposed":
                self._driver = self._other
        self._steps += 1
        action = self._driver.act(simulation).copy()
        if wrong and self.way == "stop":
            action[:3] = 0.0
        if wrong and self.way == "gripper":
            action[3] = -1.0
        return action


KINDS = ("expert", "noisy", "failing", "random")


def driver_of(kind: str, simulation: Simulation, rng: np.random.Generator) -> Driver:
    """Who drives an episode of this kind, from where the simulation stands now."""
    task = simulation.task.name
    if kind == "expert":
        return Noisy(Expert(task), rng, scale=rng.uniform(0.0, 0.15), rate=0.3)
    if kind == "noisy":
        return Noisy(Expert(task), rng, scale=rng.uniform(0.2, 0.7), rate=rng.uniform(0.08, 0.3))
    if kind == "failing":
        return Noisy(Failing(task, rng), rng, scale=rng.uniform(0.0, 0.15), rate=0.3)
    if kind == "random":
        return wanderer(simulation.pose, rng)
    if kind == "memory":
        return memory_motion(simulation.pose, rng)
    if kind == "revisit":
        return revisit_motion(simulation.pose, rng)
    known = (*KINDS, "memory", "revisit")
    raise ConfigError(f"kind is {kind!r}, expected one of {', '.join(known)}")
