"""Meta-World as a world: the truth that the imagined world is compared with.

What enters: start states and chunks of actions for a batch of rollouts. What leaves: the frames of
three cameras, the commanded poses, and Meta-World's own success flag at every frame.

A start state's seed decides everything (``worlds/simulation.py`` says what was changed against
stock Meta-World), and physics has no randomness of its own, so the seeds given to ``reset`` are not
used and a batch of four equals four batches of one, to the byte.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from worldeval.errors import MismatchError, WorldError
from worldeval.types import ActionChunk, StartState, WorldStep
from worldeval.worlds import sawyer

if TYPE_CHECKING:  # the name can be read without the simulator, a world not made
    from worldeval.worlds.appearance import Painter
    from worldeval.worlds.simulation import Simulation


class MetaWorld:
    """A batch of simulated rollouts in one process; implements ``types.World``.

    Environments are built on first use, one for each rollout of a task that runs at the same time,
    and reused by later resets. One renderer serves all tasks of a scene.
    """

    name = "metaworld"
    robot = sawyer.ROBOT

    def __init__(self) -> None:
        """Raises MissingDependencyError where the simulator is not installed."""
        import worldeval.worlds.simulation  # noqa: F401

        self._pool: dict[str, list[Simulation]] = {}
        self._painters: dict[str, Painter] = {}
        self._rollouts: list[Simulation] = []

    def start_states(self, split: str, task: str, count: int) -> list[StartState]:
        return sawyer.start_states(split, task, count)

    def simulation(self, task: str, slot: int = 0) -> Simulation:
        """The slot-th environment of a task, built if it is the first call for it."""
        spec = sawyer.task_of(task)
        pool = self._pool.setdefault(task, [])
        while len(pool) <= slot:
            from worldeval.worlds.simulation import Simulation

            pool.append(Simulation(spec))
        return pool[slot]

    def painter(self, simulation: Simulation) -> Painter:
        scene = simulation.task.scene
        if scene not in self._painters:
            from worldeval.worlds.appearance import Painter

            self._painters[scene] = Painter(simulation.model)
            # A renderer that outlives the graphics driver complains loudly at exit. Registered
            # after the driver has registered its own end, so that ours runs before it.
            atexit.register(self.close)
        return self._painters[scene]

    def draw(self, simulation: Simulation) -> np.ndarray:
        """(V, H, W, 3) uint8."""
        return self.painter(simulation).draw(simulation.data, simulation.layout.goals_m)

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        if len(starts) != len(seeds):
            raise MismatchError(
                f"reset got {len(starts)} start states and {len(seeds)} seeds; expected as many "
                "seeds as start states"
            )
        taken: dict[str, int] = {}
        self._rollouts = []
        for start in starts:
            slot = taken.get(start.task, 0)
            taken[start.task] = slot + 1
            simulation = self.simulation(start.task, slot)
            simulation.reset(start.seed)
            self._rollouts.append(simulation)
        rows = self._rollouts
        views, (height, width) = len(self.robot.views), self.robot.image_size
        frames = np.zeros((len(rows), 1, views, height, width, 3), np.uint8)
        for row, simulation in enumerate(rows):
            frames[row, 0] = self.draw(simulation)
        poses = np.array([s.pose for s in rows], np.float32).reshape(len(rows), 1, -1)
        success = np.array([s.success for s in rows], bool).reshape(len(rows), 1)
        return WorldStep(
            frames=frames, poses=poses, success=success, info=[{"seed": s.seed} for s in starts]
        )

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        actions = np.asarray(chunk.actions)
        stride = self.robot.steps_per_frame
        expected = (len(rows), actions.shape[1] if actions.ndim == 3 else 0, self.robot.action_dim)
        if actions.shape != expected or actions.shape[1] % stride or not actions.shape[1]:
            raise MismatchError(
                f"actions have shape {actions.shape}, expected ({len(rows)}, K, "
                f"{self.robot.action_dim}) with K a multiple of {stride}"
            )
        if not np.isfinite(actions).all():
            raise WorldError("actions hold values that are not finite; check the policy's output")
        unknown = [row for row in rows if not 0 <= row < len(self._rollouts)]
        if unknown:
            raise WorldError(
                f"rows {unknown} do not exist; the last reset began {len(self._rollouts)} rollouts"
            )
        count = actions.shape[1] // stride
        views, (height, width) = len(self.robot.views), self.robot.image_size
        frames = np.zeros((len(rows), count, views, height, width, 3), np.uint8)
        poses = np.zeros((len(rows), count, self.robot.pose_dim), np.float32)
        success = np.zeros((len(rows), count), bool)
        info = []
        for place, row in enumerate(rows):
            simulation, begun = self._rollouts[row], time.perf_counter()
            distances = []
            for t in range(count):
                nearest = float("inf")
                for action in actions[place, t * stride : (t + 1) * stride]:
                    success[place, t] |= simulation.step(action)
                    nearest = min(nearest, simulation.goal_distance_m)
                distances.append(round(nearest, 5))
                frames[place, t] = self.draw(simulation)
                poses[place, t] = simulation.pose
            seconds = time.perf_counter() - begun
            info.append(
                {
                    "seconds": seconds,
                    "goal_distance_m": distances,
                    "success_distance_m": simulation.success_distance_m,
                }
            )
        return WorldStep(frames=frames, poses=poses, success=success, info=info)

    def close(self) -> None:
        atexit.unregister(self.close)
        for painter in self._painters.values():
            painter.close()
        for pool in self._pool.values():
            for simulation in pool:
                simulation.close()
        self._painters, self._pool, self._rollouts = {}, {}, []
