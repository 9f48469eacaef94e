"""Recordings of what experts seldom show: near misses, faults, and motions with another gripper.

What enters: a simulation at its start and a generator. What leaves: a driver for the episode
(``worlds/experts.py``). A world model that has only seen hands which close where experts close
them learns that a window moves *because* the gripper closed; a judge that has only seen clear
failures takes a puck two centimetres beside its goal for a success. Three kinds answer that:

border: an expert, perhaps a slow one, that stops, at a distance to the goal drawn around the limit
    of success or anywhere on the way, and then holds, leaves or lets go.
faulty: an expert, or one that aims some centimetres beside, behind a fault (``motion/faults.py``).
counterfactual: the very motion of a successful expert, step by step, with the gripper held open,
    held closed, closed late, weakly, or opened again half way.
"""

from __future__ import annotations

import numpy as np

from worldeval.motion.faults import Fault, FaultyStream
from worldeval.worlds.experts import Driver, Expert, Noisy
from worldeval.worlds.sawyer import ROBOT
from worldeval.worlds.simulation import Simulation

KINDS = ("border", "faulty", "counterfactual")
BORDER = (0.55, 1.9)
"""Where border episodes stop, in units of the distance that still counts as success."""


class StopShort:
    """Follows a driver until the goal is ``distance_m`` away, then does what ``then`` says: "hold",
    "leave" (up and away, gripper as it is) or "let go" (opens, then leaves)."""

    def __init__(self, driver: Driver, distance_m: float, then: str, away: np.ndarray) -> None:
        self._driver, self._distance_m, self.then = driver, distance_m, then
        self._away = away
        self._stopped: int | None = None
        self._gripper = -1.0

    def act(self, simulation: Simulation) -> np.ndarray:
        if self._stopped is None and simulation.goal_distance_m > self._distance_m:
            action = self._driver.act(simulation)
            self._gripper = float(action[3])
            return action
        self._stopped = 0 if self._stopped is None else self._stopped + 1
        action = np.array([0.0, 0.0, 0.0, self._gripper], np.float32)
        if self.then == "let go" and self._stopped >= 4:
            action[3] = -1.0
        if self.then != "hold" and self._stopped >= 10:
            action[:3] = self._away
        return action


class Faulty:
    """A driver behind a fault."""

    def __init__(self, driver: Driver, fault: Fault, rng: np.random.Generator) -> None:
        self.fault = fault
        self._driver, self._stream = driver, FaultyStream(fault, ROBOT, rng)

    def act(self, simulation: Simulation) -> np.ndarray:
        return self._stream.carry_out(self._driver.act(simulation)[None])[0]


class Repeated:
    """Motion that was chosen earlier, step by step, whatever happens now; then it holds still."""

    def __init__(self, actions: np.ndarray) -> None:
        self._actions, self._step = actions, 0

    def act(self, simulation: Simulation) -> np.ndarray:
        action = self._actions[min(self._step, len(self._actions) - 1)].copy()
        if self._step >= len(self._actions):
            action[:3] = 0.0
        self._step += 1
        return action


def border(simulation: Simulation, rng: np.random.Generator) -> Driver:
    limit, now = simulation.success_distance_m, simulation.goal_distance_m
    low, high = BORDER
    if rng.random() < 0.4:  # what coasts on (a window) has to be left alone long before
        low, high = min(1.0, now / limit), now / limit
    then = str(rng.choice(["hold", "leave", "let go"], p=[0.5, 0.25, 0.25]))
    away = np.array([*rng.uniform(-0.5, 0.5, 2), rng.uniform(0.3, 1.0)])
    expert = Noisy(Expert(simulation.task.name), rng, scale=rng.uniform(0.0, 0.3), rate=0.3)
    slow = Faulty(expert, Fault(gain=rng.uniform(0.25, 1.0)), rng)
    return StopShort(slow, float(rng.uniform(low, high)) * limit, then, away)


def random_fault(rng: np.random.Generator, steps: int) -> Fault:
    """One of the faults that policies have, of a size that sometimes still succeeds."""
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    options = (
        Fault(gain=float(rng.choice([rng.uniform(0.25, 0.8), rng.uniform(1.2, 2.0)]))),
        Fault(bias=tuple(float(x) for x in way * rng.uniform(0.08, 0.45))),
        Fault(noise=rng.uniform(0.3, 1.2)),
        Fault(delay_steps=int(rng.integers(2, 13))),
        Fault(mirrored_axis=int(rng.integers(3))),
        Fault(stop_after_steps=int(rng.integers(20, steps))),
        Fault(gripper=str(rng.choice(["open", "closed", "inverted"]))),
        Fault(grip=rng.uniform(0.3, 0.95)),
        Fault(gripper_delay_steps=int(rng.integers(4, 30))),
        Fault(slip_after_steps=int(rng.integers(6, 50))),
    )
    weights = np.array([1, 1.5, 0.75, 1, 0.5, 1, 1.5, 1.5, 1, 1])
    return options[int(rng.choice(len(options), p=weights / weights.sum()))]


def faulty(simulation: Simulation, rng: np.random.Generator, steps: int) -> Driver:
    """An expert with a fault; four in ten (also) aim 1 to 6 cm beside what they are after."""
    offset = np.zeros(3)
    beside = rng.random() < 0.4
    if beside:
        angle = rng.uniform(0, 2 * np.pi)
        offset[:2] = rng.uniform(0.01, 0.06) * np.array([np.cos(angle), np.sin(angle)])
        offset[2] = rng.uniform(-0.02, 0.02)
    expert = Expert(simulation.task.name, aim_offset_m=offset)
    noisy = Noisy(expert, rng, scale=rng.uniform(0.0, 0.2), rate=0.3)
    if beside and rng.random() < 0.5:
        return noisy
    return Faulty(noisy, random_fault(rng, steps), rng)


def counterfactual(
    simulation: Simulation, seed: int, rng: np.random.Generator, steps: int
) -> Driver:
    """The motion of an expert from this start, with another gripper. The simulation is run once to
    learn that motion and reset to the same start."""
    expert = Noisy(Expert(simulation.task.name), rng, scale=rng.uniform(0.0, 0.2), rate=0.3)
    motion = []
    for _ in range(steps):
        motion.append(expert.act(simulation))
        simulation.step(motion[-1])
    simulation.reset(seed)
    faults = (
        Fault(gripper="open"),
        Fault(gripper="open"),
        Fault(gripper="closed"),
        Fault(gripper="inverted"),
        Fault(gripper_delay_steps=int(rng.integers(4, 40))),
        Fault(slip_after_steps=int(rng.integers(6, 60))),
        Fault(grip=rng.uniform(0.2, 0.9)),
    )
    return Faulty(Repeated(np.array(motion)), faults[int(rng.integers(len(faults)))], rng)


def driver_of(
    kind: str, simulation: Simulation, seed: int, rng: np.random.Generator, steps: int
) -> Driver:
    """Who drives an episode of one of ``KINDS``: ``steps`` control steps from the start of
    ``seed``, at which the simulation stands."""
    if kind == "border":
        return border(simulation, rng)
    if kind == "faulty":
        return faulty(simulation, rng, steps)
    return counterfactual(simulation, seed, rng, steps)
