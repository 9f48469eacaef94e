"""The thing in a scene that can move: how far it has moved, and how the scene would look if it had.

What enters: a simulation. What leaves: the travel of its object, and pictures of the very same
moment with the object elsewhere. With these a picture whose origin is unknown (an imagined one) can
be asked where it shows the object: which of the pictures is it most like?

Travel is in metres from the start: along a slide, along the arc of a handle, through space.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from worldeval.worlds.metaworld import MetaWorld
from worldeval.worlds.mujoco_backend import mujoco
from worldeval.worlds.simulation import JOINTS, Simulation

OBJECT_JOINTS = {**JOINTS, "button": "btnbox_joint", "puck": "objjoint"}
LEVER_M = {"faucet": 0.12}
"""From the axis of a hinge to its handle."""
PLACES = 15
"""Of an object on a slide or a hinge: so many places over the whole of its way."""
_SIDES = [(np.cos(a), np.sin(a), 0.0) for a in np.arange(8) * np.pi / 4]
_AWAY_M = np.array([np.multiply(side, far) for far in (0.04, 0.08) for side in _SIDES])
_GONE_M = np.array([0.0, 0.0, -2.0])
_LIFTED_M = np.array([(0.0, 0.0, 0.05), (0.0, 0.0, 0.10)])


@dataclass(frozen=True, kw_only=True)
class Places:
    """One moment with the object in different places.

    frames: (N, V, H, W, 3) uint8, the first with the object where it was at the start, the second
        with it where it truly was.
    travel_m: (N,) how far the object is from there; inf where it is nowhere to be seen.
    """

    frames: np.ndarray
    travel_m: np.ndarray


class Movable:
    """The movable object of a simulation that was just reset: its start is remembered."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation, self._scene = simulation, simulation.task.scene
        joint = simulation.model.joint(OBJECT_JOINTS[self._scene])
        self._free = joint.type[0] == mujoco.mjtJoint.mjJNT_FREE
        first = int(joint.qposadr[0])
        self._at = slice(first, first + (3 if self._free else 1))
        self._range = np.array(joint.range, np.float64)
        self.start = self._value(simulation.data.qpos)

    def _value(self, qpos: np.ndarray) -> np.ndarray:
        return np.array(qpos[self._at], np.float64)

    def travel_m(self) -> float:
        """How far the object is from where it started."""
        return self._travel(self._value(self.simulation.data.qpos))

    def _travel(self, value: np.ndarray) -> float:
        if self._free and value[2] <= self.start[2] + _GONE_M[2]:
            return float("inf")
        return float(np.linalg.norm(value - self.start)) * LEVER_M.get(self._scene, 1.0)

    def places(self, world: MetaWorld, qpos: np.ndarray) -> Places:
        """The moment of ``qpos`` (all joints) with the object where it started, where it was then,
        and in places around; the simulation itself is not touched."""
        now = self._value(qpos)
        values = [self.start, now, *self._elsewhere(now)]
        data, painter = copy.copy(self.simulation.data), world.painter(self.simulation)
        frames = []
        for value in values:
            data.qpos[:] = qpos
            data.qpos[self._at] = value
            mujoco.mj_forward(self.simulation.model, data)
            frames.append(painter.draw(data, self.simulation.layout.goals_m))
        travel = np.array([self._travel(value) for value in values])
        return Places(frames=np.stack(frames), travel_m=travel)

    def _elsewhere(self, now: np.ndarray) -> list[np.ndarray]:
        if not self._free:
            return [
                np.array([value]) for value in np.linspace(self._range[0], self._range[1], PLACES)
            ]
        around = [self.start + step for step in (*_AWAY_M, *_LIFTED_M)]
        way = [self.start + share * (now - self.start) for share in (0.33, 0.67)]
        return [*around, *way, self.start + _GONE_M]
