"""Motions that ask a world model what it believes of contacts, carried out in the simulator.

What enters: a task, a kind of motion, a start state. What leaves: an episode with what truly came
of it: how far the object went, frame by frame, where the hand was, and Meta-World's success flag.

expert, random: as recordings have them. human: an expert's aim through a person's hand: late,
    smooth, with rests. beside: an expert that passes 7 to 11 cm beside the object: nothing is
    touched unless physics says so. above: the same, 15 cm too high.
policy: what a policy did in the simulator, again.
memory: out and back. long: a wanderer, for as long as is asked.
grip-KIND: the motion of an expert, step by step, with the gripper as it was ("own"), held "open",
    held "closed", or closed "late".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from worldeval.motion.faults import Fault
from worldeval.types import Episode, StartState
from worldeval.worlds.counterfactuals import Faulty, Repeated
from worldeval.worlds.experts import Driver, Expert, Noisy, memory_motion, wanderer
from worldeval.worlds.sawyer import ROBOT, simulated_episode, start_state

if TYPE_CHECKING:
    from worldeval.worlds.metaworld import MetaWorld
    from worldeval.worlds.simulation import Simulation

POLICY = "policy"
CONTACT_KINDS = ("expert", "random", "human", "beside", "above")
GRIPS = {
    "own": Fault(),
    "open": Fault(gripper="open"),
    "closed": Fault(gripper="closed"),
    "late": Fault(gripper_delay_steps=18),
}
SPLIT, FIRST_INDEX = "validation", 5000
"""Start states that nothing was trained or chosen on."""


class Human:
    """A driver through a person's hand: 4 control steps late, smoothed, now and then at rest."""

    def __init__(self, driver: Driver, rng: np.random.Generator) -> None:
        self._driver, self._rng = driver, rng
        self._late = [np.array([0.0, 0.0, 0.0, -1.0])] * 4
        self._motion = np.zeros(3)
        self._rest = 0

    def act(self, simulation: Simulation) -> np.ndarray:
        self._late.append(np.asarray(self._driver.act(simulation), np.float64))
        wanted = self._late.pop(0)
        if self._rest == 0 and self._rng.random() < 0.03:
            self._rest = int(self._rng.integers(4, 12))
        aim = np.zeros(3) if self._rest else wanted[:3]
        self._rest = max(0, self._rest - 1)
        self._motion += 0.35 * (aim - self._motion)
        return np.append(self._motion, wanted[3]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class MotionJob:
    """One motion from one start state; equal jobs give equal bytes."""

    task: str
    kind: str
    index: int
    chunks: int

    @property
    def key(self) -> str:
        return f"{self.task}/{self.kind}/{self.index:04d}"


def start_of(job: MotionJob) -> StartState:
    """Where the motion starts; its start_id is that of the job."""
    start = start_state(SPLIT, job.task, FIRST_INDEX + job.index)
    return replace(start, start_id=job.key)


def carry_out(job: MotionJob, world: MetaWorld, actions: np.ndarray | None = None) -> Episode:
    """Run one motion; ``actions`` (K, A) if it was chosen before (by a policy).

    ``extra``: object_travel_m and hand_m of every frame, and the joints of the moment ``read_at``
    at which the object was furthest from its start (the last if it stayed).
    """
    from worldeval.worlds.movable import Movable

    start = start_of(job)
    simulation = world.simulation(job.task)
    simulation.reset(start.seed)
    count, stride = job.chunks * ROBOT.frames_per_chunk, ROBOT.steps_per_frame
    driver: Driver
    if actions is not None:
        driver = Repeated(actions)
    else:
        driver = _driver(job, simulation, start.seed, count * stride)
    movable = Movable(simulation)
    frames, poses = [world.draw(simulation)], [simulation.pose.copy()]
    success, travel = [simulation.success], [0.0]
    hand, joints = [simulation.hand_m], [simulation.data.qpos.copy()]
    done = np.zeros((count, stride, ROBOT.action_dim), np.float32)
    for t in range(count):
        reached = False
        for s in range(stride):
            done[t, s] = driver.act(simulation)
            reached |= simulation.step(done[t, s])
        frames.append(world.draw(simulation))
        poses.append(simulation.pose.copy())
        success.append(reached)
        travel.append(movable.travel_m())
        hand.append(simulation.hand_m)
        joints.append(simulation.data.qpos.copy())
    read_at = int(np.argmax(travel)) if max(travel) >= 0.005 else count
    return simulated_episode(
        job.key,
        job.kind,
        start,
        frames=frames,
        poses=poses,
        actions=done,
        success_at=success,
        extra={
            "object_travel_m": np.round(travel, 5).tolist(),
            "hand_m": np.round(hand, 5).tolist(),
            "read_at": read_at,
            "joints_read": [float(x) for x in joints[read_at]],
        },
    )


def _driver(job: MotionJob, simulation: Simulation, seed: int, steps: int) -> Driver:
    # Of one start and task all kinds draw alike, so the grips of an expert repeat one motion.
    name = f"{job.task}/{job.index}" if job.kind.startswith("grip-") else job.key
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    if job.kind == "expert":
        return Noisy(Expert(job.task), rng, scale=rng.uniform(0.0, 0.15), rate=0.3)
    if job.kind in ("random", "long"):
        return wanderer(simulation.pose, rng)
    if job.kind == "memory":
        return memory_motion(simulation.pose, rng, job.chunks)
    if job.kind == "human":
        return Human(Expert(job.task), rng)
    if job.kind == "beside":
        angle = rng.uniform(0, 2 * np.pi)
        aside = rng.uniform(0.07, 0.11) * np.array([np.cos(angle), np.sin(angle), 0.0])
        return Expert(job.task, aim_offset_m=aside)
    if job.kind == "above":
        return Expert(job.task, aim_offset_m=np.array([0.0, 0.0, 0.15]))
    motion = []
    expert = Noisy(Expert(job.task), rng, scale=0.1, rate=0.3)
    for _ in range(steps):
        motion.append(expert.act(simulation))
        simulation.step(motion[-1])
    simulation.reset(seed)
    return Faulty(Repeated(np.array(motion)), GRIPS[job.kind.removeprefix("grip-")], rng)
