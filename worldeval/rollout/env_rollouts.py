"""The rollouts behind a gymnasium environment, each of which begins again while others go on.

Enters: start states and seeds for some rows, then chunks of actions for all. Leaves: the newest
frame and pose of each row, and how its rollout stands (``Answer``). A world that offers
``reset_rows(rows, starts, seeds) -> WorldStep`` begins single rows itself; any other world is reset
as a whole and the other rows repeat their chunks, which is slower and comes to the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

from worldeval.errors import ConfigError, MismatchError, StartStateError
from worldeval.motion.adapters import Adapter, adapter_for, command
from worldeval.rollout.env_form import EnvForm
from worldeval.rollout.observing import check_step
from worldeval.rollout.recording import Recording
from worldeval.rollout.suite import Suite
from worldeval.types import (
    ActionChunk,
    Episode,
    Outcome,
    RowsWorld,
    StartState,
    Verdict,
    World,
    WorldStep,
    frames_at_a_time,
)

JudgeCall = Callable[[Sequence[Episode]], Sequence[Verdict]]
"""``Judge.judge``: verdicts for ended rollouts, in their order."""
ProgressCall = Callable[[Episode], float]
"""How far along a rollout is at its newest frame; ``ProgressJudge.newest``."""


def chunk_steps(world: World) -> int:
    """Control steps that the world takes at a time."""
    frames = frames_at_a_time(world)
    return world.robot.chunk_steps if frames is None else frames * world.robot.steps_per_frame


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one rollout stands after a step."""

    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@dataclass(kw_only=True)
class _Row:
    """One rollout: where it stands, and what is needed to bring it there again."""

    start: StartState
    seed: int
    recording: Recording | None
    steps: int = 0
    """Control steps since the start, also those that wait for a frame to be filled."""
    waiting: list[np.ndarray] = field(default_factory=list)
    progress: float = 0.0
    past: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = field(default_factory=list)
    frame: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    pose: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    joints: np.ndarray | None = None

    def see(self, seen: WorldStep, i: int) -> None:
        """Row ``i`` of a step is the newest of this rollout."""
        self.frame, self.pose = seen.frames[i, -1], seen.poses[i, -1]
        self.joints = None if seen.joints is None else seen.joints[i, -1]


class EnvRollouts:
    """``count`` rollouts of one world. See the module's docstring."""

    def __init__(
        self,
        world: World,
        suite: Suite,
        count: int,
        judge: JudgeCall | None,
        adapter: Adapter | None = None,
        *,
        form: EnvForm | None = None,
        progress: ProgressCall | None = None,
    ) -> None:
        """progress: gives the reward, by how much a step furthers it; if None, success does."""
        if suite.robot != world.robot.name:
            raise MismatchError(
                f"suite {suite.name!r} is for robot {suite.robot!r}, world {world.name!r} has "
                f"{world.robot.name!r}; choose a suite for this robot"
            )
        self.world, self.suite, self.judge = world, suite, judge
        self.robot = world.robot
        self.adapter = adapter or adapter_for(world.robot)
        self.form, self.progress = form or EnvForm(), progress
        self.form.check(self.robot)
        self.chunk = chunk_steps(world)
        alone, whole = self.form.step == "action", self.form.pictures == "chunk"
        self.steps = 1 if alone else self.chunk
        """Control steps of one call of ``step``."""
        self.gathered = self.chunk if whole or not alone else self.robot.steps_per_frame
        """Control steps that the world carries out at once."""
        self.most_steps = suite.chunks * self.chunk
        self.count = count
        self.rows: list[_Row] = []
        self._by_id = {start.start_id: start for start in suite.starts}
        self._reset_rows = world.reset_rows if isinstance(world, RowsWorld) else None

    def start(self, place: int, start_id: str | None) -> StartState:
        if start_id is None:
            return self.suite.starts[place % len(self.suite.starts)]
        if start_id not in self._by_id:
            raise StartStateError(
                f"start state {start_id!r} is not in suite {self.suite.name!r} "
                f"({len(self._by_id)} start states, such as {self.suite.starts[0].start_id!r})"
            )
        return self._by_id[start_id]

    def begin(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Begin rollouts in ``rows``; their infos."""
        fresh = [
            _Row(start=start, seed=seed, recording=self._record(start, seed))
            for start, seed in zip(starts, seeds, strict=True)
        ]
        if len(rows) == self.count:
            self.rows = fresh
            seen = self.world.reset(starts, seeds)
        else:
            for row, one in zip(rows, fresh, strict=True):
                self.rows[row] = one
            seen = self._begin_some(rows, starts, seeds)
        check_step(seen, len(rows), 1, self.robot, self.world.name)
        for i, one in enumerate(fresh):
            one.see(seen, i)
            if one.recording is not None:
                one.recording.begin(one.frame, one.pose, None, one.joints)
                if self.progress is not None:
                    one.progress = self.progress(one.recording.finish())
        return [self._info(one, Outcome.UNDECIDED) for one in fresh]

    def _begin_some(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> WorldStep:
        if self._reset_rows is not None:
            return self._reset_rows(rows, starts, seeds)
        # A world can only be reset as a whole: reset it and repeat what the others did. They
        # come to the same frames again, because randomness belongs to the rollout.
        seen = self.world.reset([r.start for r in self.rows], [r.seed for r in self.rows])
        for t in range(max(len(r.past) for r in self.rows)):
            going = [i for i, r in enumerate(self.rows) if len(r.past) > t]
            actions, poses, joints = zip(*(self.rows[i].past[t] for i in going), strict=True)
            chunk = ActionChunk(
                actions=np.stack(actions),
                poses=np.stack(poses),
                joints=None if joints[0] is None else np.stack(joints),
            )
            self.world.step(chunk, going)
        chosen = list(rows)
        return WorldStep(
            frames=seen.frames[chosen],
            poses=seen.poses[chosen],
            success=None,
            info=[seen.info[i] for i in chosen],
            joints=None if seen.joints is None else seen.joints[chosen],
        )

    def step(self, actions: np.ndarray) -> list[Answer]:
        if not self.rows:
            raise ResetNeeded("call reset before step")
        for row, commands in zip(self.rows, self._checked(actions), strict=True):
            row.waiting.append(commands)
            row.steps += self.steps
        ready = [i for i, row in enumerate(self.rows) if self._waits(row) == self.gathered]
        seen = self._carry_out(ready) if ready else None
        place = {i: at for at, i in enumerate(ready)}
        flagged, gained = [False] * self.count, [0.0] * self.count
        for i in ready:
            row, at = self.rows[i], place[i]
            if seen is not None and seen.success is not None and self.judge is None:
                flagged[i] = bool(seen.success[at].any())
            if self.progress is not None and row.recording is not None:
                before, row.progress = row.progress, self.progress(row.recording.finish())
                gained[i] = row.progress - before
        over = [row.steps >= self.most_steps for row in self.rows]
        knows = seen is not None and seen.success is not None
        outcomes = self._outcomes(flagged, over, knows)
        return [
            Answer(
                reward=gained[i] if self.progress else float(outcome is Outcome.SUCCESS),
                terminated=flagged[i],
                truncated=over[i] and not flagged[i],
                info=self._info(self.rows[i], outcome)
                | ({"frames": seen.frames[place[i]]} if seen is not None and i in place else {}),
            )
            for i, outcome in enumerate(outcomes)
        ]

    def _waits(self, row: _Row) -> int:
        """Control steps of a rollout that were commanded and not carried out yet."""
        return len(row.waiting) * self.steps

    def _carry_out(self, ready: Sequence[int]) -> WorldStep:
        """Step the world by what waits in the rollouts ``ready``."""
        rows = [self.rows[i] for i in ready]
        chunk = self._chunk(rows)
        seen = self.world.step(chunk, list(ready))
        check_step(seen, len(rows), chunk.poses.shape[1], self.robot, self.world.name)
        for at, row in enumerate(rows):
            row.see(seen, at)
            row.waiting = []
            if self._reset_rows is None:
                joints = None if chunk.joints is None else chunk.joints[at]
                row.past.append((chunk.actions[at], chunk.poses[at], joints))
            if row.recording is not None:
                row.recording.add(
                    frames=seen.frames[at],
                    poses=seen.poses[at],
                    actions=chunk.actions[at],
                    success=None,
                    log={},
                    joints=None if seen.joints is None else seen.joints[at],
                )
        return seen

    def _outcomes(
        self, flagged: Sequence[bool], over: Sequence[bool], knows: bool
    ) -> list[Outcome]:
        """How each rollout stands. knows: whether the world says what is a success."""
        outcomes = [Outcome.SUCCESS if f else Outcome.UNDECIDED for f in flagged]
        if self.judge is not None:
            judged = [i for i in range(self.count) if over[i]]
            episodes = [r.recording.finish() for i in judged if (r := self.rows[i]).recording]
            if episodes:
                for i, verdict in zip(judged, self.judge(episodes), strict=True):
                    outcomes[i] = verdict.outcome
        elif knows:
            outcomes = [
                Outcome.FAILURE if o is Outcome.UNDECIDED and over[i] else o
                for i, o in enumerate(outcomes)
            ]
        return outcomes

    def observe(self, i: int) -> Any:
        """What rollout ``i`` shows, in the environment's form."""
        row = self.rows[i]
        return self.form.observe(self.robot, self.suite, row.start, row.frame, row.pose)

    def picture(self, i: int) -> np.ndarray:
        if not self.rows:
            raise ResetNeeded("call reset before render")
        return np.concatenate(list(self.rows[i].frame), axis=1)

    def current_start(self, i: int) -> StartState:
        """Where row ``i`` began, or will begin by default."""
        return self.rows[i].start if self.rows else self.start(i, None)

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """Actions of all rollouts (B, steps, A), finite and clipped to the robot's bounds."""
        array = np.asarray(actions, np.float32)
        flat = (self.count, self.steps * self.robot.action_dim)
        full = (self.count, self.steps, self.robot.action_dim)
        if array.shape not in (flat, full):
            raise ConfigError(f"actions have shape {array.shape}, expected {flat} or {full}")
        if not np.isfinite(array).all():
            raise ConfigError("actions hold NaN or infinity, expected finite numbers")
        return np.clip(
            array.reshape(full),
            np.asarray(self.robot.action_low, np.float32),
            np.asarray(self.robot.action_high, np.float32),
        )

    def _chunk(self, rows: Sequence[_Row]) -> ActionChunk:
        """What waits in ``rows``, with the poses that it commands."""
        poses = np.stack([row.pose for row in rows])
        joints = [row.joints for row in rows if row.joints is not None]
        known = np.stack(joints)[:, None] if len(joints) == len(rows) else None
        waiting = np.stack([np.concatenate(row.waiting) for row in rows])
        return command(self.adapter, poses[:, None], known, waiting)

    def _record(self, start: StartState, seed: int) -> Recording | None:
        if self.judge is None and self.progress is None:
            return None
        frames = self.most_steps // self.robot.steps_per_frame + 1
        return Recording(
            start=start,
            world=self.world.name,
            policy="gymnasium",
            robot=self.robot,
            seed=seed,
            most_frames=frames,
        )

    def _info(self, row: _Row, outcome: Outcome) -> dict[str, Any]:
        """``is_success`` must be a bool for LeRobot; ``outcome`` also knows "undecided"."""
        return {
            "is_success": outcome is Outcome.SUCCESS,
            "outcome": outcome.value,
            "chunk": row.steps // self.chunk,
            "start_id": row.start.start_id,
            "task": row.start.task,
        }
