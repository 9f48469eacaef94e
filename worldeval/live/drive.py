"""One imagined rollout under somebody's hands: keys, poses, a drawn path, or a policy at times.

Enters: a world, a start state, and commands as they come. Leaves: pictures after each command, a
tree of moments to go back to and on from, and an episode like any other. What a policy does here is
to the bit what it does in an evaluation from that start state, as long as nobody interferes.

    drive = Studio.open().drive("drawer-open/evaluation/0000")
    drive.keys("f")                       # forward for one chunk
    drive.let(policy, "close the drawer")  # the policy for one chunk, with another instruction
    drive.go(0)                           # back to the start; the other way stays in the tree
    drive.sketch("left", points)          # follow a path drawn on a camera's picture
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worldeval.errors import ConfigError
from worldeval.live.moments import Moment, Step, episode_of
from worldeval.motion.adapters import Adapter, adapter_for
from worldeval.motion.sketch import drawn, exterior_views, sketched_poses
from worldeval.motion.towards import actions_towards
from worldeval.policies.checking import check_actions, check_policy
from worldeval.policies.guard import Guarded, guarded
from worldeval.policies.keyboard import actions_of_keys, check_keys, usual_gripper
from worldeval.robots.bounds import staying
from worldeval.rollout.gathering import Gathered, frames_at_once
from worldeval.rollout.observing import check_step, observe
from worldeval.rollout.recording import START
from worldeval.rollout.resuming import start_digest
from worldeval.rollout.suite import rollout_seed
from worldeval.types import (
    ActionChunk,
    BranchingWorld,
    Episode,
    Policy,
    StartState,
    World,
    WorldStep,
    frames_at_a_time,
)

MOST_MOMENTS = 2000
"""Of one drive: some 150 KiB each in the embedded world."""


@dataclass
class _Acting:
    """A policy that is at it: its answers that wait, and the moment in which it was left."""

    policy: Guarded
    given: Policy
    instruction: str
    gathered: Gathered
    left: int


class Drive:
    """A rollout in ``world`` from ``start`` that goes where it is told.

    seed: of the world's randomness, as a suite's. adapter: turns actions into poses; that of the
    robot's ``motion`` if None. The drive has the world to itself.
    """

    def __init__(
        self, world: World, start: StartState, *, seed: int = 0, adapter: Adapter | None = None
    ) -> None:
        self.world, self.robot, self.start, self.seed = world, world.robot, start, seed
        self._adapter = adapter or adapter_for(world.robot)
        self._world_seed = rollout_seed(seed, start.start_id, "world")
        self._digest = start_digest(world, start)
        self._acting: _Acting | None = None
        began = time.perf_counter()
        seen = self._begin()
        joints, success = seen.joints, seen.success
        first = Step(
            moment=Moment(
                number=0,
                parent=None,
                frames=1,
                by="start",
                instruction=start.instruction,
                seconds=time.perf_counter() - began,
            ),
            frames=seen.frames[0],
            poses=seen.poses[0],
            actions=np.zeros((0, self.robot.steps_per_frame, self.robot.action_dim), np.float32),
            joints=None if joints is None else joints[0],
            success=None if success is None else success[0],
            log={},
            state=self._snapshot(),
        )
        self._steps = [first]
        self._now = 0

    # What is to be seen

    @property
    def now(self) -> Moment:
        return self._steps[self._now].moment

    @property
    def moments(self) -> tuple[Moment, ...]:
        """All moments of the drive, in the order in which they came: a tree by ``parent``."""
        return tuple(step.moment for step in self._steps)

    @property
    def frame(self) -> np.ndarray:
        """The newest frame, (V, H, W, 3) uint8."""
        return self._steps[self._now].frames[-1]

    @property
    def pose(self) -> np.ndarray:
        """Where the hand is commanded to be, (P,)."""
        return self._steps[self._now].poses[-1]

    @property
    def frames(self) -> np.ndarray:
        """What was seen from the start to now, (T+1, V, H, W, 3) uint8."""
        return np.concatenate([step.frames for step in self._path()])

    @property
    def poses(self) -> np.ndarray:
        """(T+1, P) from the start to now."""
        return np.concatenate([step.poses for step in self._path()])

    @property
    def exterior_views(self) -> tuple[str, ...]:
        """Views on which a path can be drawn."""
        return exterior_views(self.robot)

    def drawn(self, view: str, poses: np.ndarray) -> np.ndarray:
        """Where hands at poses (N, P) appear on an exterior view, (N, 2) in [0, 1]."""
        return drawn(self.robot, view, poses)

    def new_frames(self, number: int) -> np.ndarray:
        """The frames of one moment, (T, V, H, W, 3) uint8."""
        return self._step(number).frames

    # How it is driven

    def keys(self, typed: str, *, speed: float = 0.5) -> Moment:
        """All keys of ``typed`` at once for one chunk (l r f b u d move, o c open and close).

        speed: share of the fastest motion. The gripper stays as it was last commanded.
        """
        check_keys(self.robot)
        if not 0 < speed <= 1:
            raise ConfigError(f"speed is {speed!r}, expected a number in (0, 1]")
        if "q" in typed.lower():
            raise ConfigError(f"keys are {typed!r}, in which 'q' has no meaning here; leave it out")
        actions, _ = actions_of_keys(
            self.robot, typed, pose=self.pose, gripper=self._gripper(), speed=speed
        )
        steps = self._most * self.robot.steps_per_frame
        return self._advance(actions[:steps], by="keys", what=typed)

    def follow(self, poses: np.ndarray) -> list[Moment]:
        """Go along poses (T, P), one a frame, as fast as the robot can; one moment per chunk."""
        poses = np.asarray(poses, np.float64)
        made = []
        for i in range(0, max(1, len(poses)), self._most):
            actions = actions_towards(
                self.robot, self.pose, self._joints(), poses[i : i + self._most]
            )
            made.append(self._advance(actions, by="poses"))
        return made

    def plan(
        self,
        view: str,
        points: np.ndarray,
        *,
        height_m: float | None = None,
        speed: float = 0.5,
        gripper: float | None = None,
    ) -> np.ndarray:
        """The poses (T, P) that ``sketch`` would follow; see ``motion.sketch.sketched_poses``."""
        return sketched_poses(
            self.robot,
            view,
            points,
            self.pose,
            height_m=height_m,
            speed=speed,
            gripper=gripper,
        )

    def sketch(self, view: str, points: np.ndarray, **how: Any) -> list[Moment]:
        """Let the hand follow a path (N, 2) drawn on an exterior view; ``how`` as for ``plan``."""
        return self.follow(self.plan(view, points, **how))

    def let(self, policy: Policy, instruction: str | None = None) -> Moment:
        """Let a policy act once. instruction: what it is told; the start state's if None.

        Called again without anything in between it goes on, else the policy begins anew here.
        Raises PolicyError or MismatchError for a policy that does not fit; the drive is as it was.
        """
        words = self.start.instruction if instruction is None else instruction
        acting = self._hand_over(policy, words)
        try:
            while not acting.gathered.frames:
                self._ask(acting)
            flagged = self._steps[self._now].success is not None
            most = frames_at_once(self.world, self._done, flagged=flagged)
            actions = acting.gathered.take_frames(most)[0]
            name = acting.policy.spec.name
            moment = self._advance(actions, by="policy", what=name, instruction=words)
        except BaseException:
            self._acting = None  # it has gone on and the world has not
            raise
        acting.left, self._acting = moment.number, acting
        return moment

    def go(self, number: int, frames: int | None = None) -> Moment:
        """Go back (or over) to a moment; what follows branches off there.

        frames: of the moment's own frames, how many count; all if None. The way on from a whole
        moment is, to the bit, as it would have been then. Nothing is forgotten.
        """
        step = self._step(number)
        if frames is not None and not 1 <= frames <= len(step.frames):
            raise ConfigError(
                f"moment {number} has {len(step.frames)} frames, {frames} were asked for"
            )
        if frames is not None and frames < len(step.frames):
            self._room()
            step = step.first(frames, len(self._steps))
        self._restore(step)
        if step.moment.number == len(self._steps):
            self._steps.append(step)
        self._now, self._acting = step.moment.number, None
        return step.moment

    # What is kept

    def episode(self, key: str, *, policy: str = "live", instruction: str | None = None) -> Episode:
        """The way from the start to now as an episode, with who moved when.

        policy: what it is called in tables. instruction: the start state's if None.
        """
        return episode_of(
            self._path(),
            key=key,
            start=self.start
            if instruction is None
            else replace(self.start, instruction=instruction),
            robot=self.robot,
            facts={
                "policy": policy,
                "world": self.world.name,
                "seed": self._world_seed,
                **({} if self._digest is None else {START: self._digest}),
            },
        )

    # How it works

    @property
    def _most(self) -> int:
        """Frames of one moment at most."""
        limit = frames_at_a_time(self.world)
        chunk = self.robot.frames_per_chunk
        return chunk if limit is None else min(limit, chunk)

    def _begin(self) -> WorldStep:
        seen = self.world.reset([self.start], [self._world_seed])
        check_step(seen, 1, 1, self.robot, self.world.name)
        return seen

    def _advance(
        self,
        actions: np.ndarray,
        *,
        by: str,
        what: str = "",
        instruction: str = "",
    ) -> Moment:
        """Step the world by actions (K, A) of whole frames, as many as it takes at a time."""
        self._room()
        began = time.perf_counter()
        joints = self._joints()
        given = None if joints is None else joints[None]
        poses, turned = self._adapter.advance(self.pose[None], given, actions[None])
        seen = self.world.step(ActionChunk(actions=actions[None], poses=poses, joints=turned), [0])
        frames = poses.shape[1]
        check_step(seen, 1, frames, self.robot, self.world.name)
        made = Step(
            moment=Moment(
                number=len(self._steps),
                parent=self._now,
                frames=self.now.frames + frames,
                by=by,
                what=what,
                instruction=instruction,
                seconds=time.perf_counter() - began,
            ),
            frames=seen.frames[0],
            poses=seen.poses[0],
            actions=actions.reshape(frames, self.robot.steps_per_frame, -1),
            joints=None if seen.joints is None else seen.joints[0],
            success=None if seen.success is None else seen.success[0],
            log=dict(seen.info[0]),
            state=self._snapshot(),
        )
        self._steps.append(made)
        self._now, self._acting = made.moment.number, None
        return made.moment

    def _hand_over(self, policy: Policy, instruction: str) -> _Acting:
        acting = self._acting
        if (
            acting is not None
            and acting.given is policy
            and acting.instruction == instruction
            and acting.left == self._now
        ):
            return acting
        check_policy(policy, self.robot)
        safe = guarded(policy)
        safe.reset(
            [self.start.start_id],
            [instruction],
            [rollout_seed(self.seed, self.start.start_id, "policy")],
        )
        return _Acting(safe, policy, instruction, Gathered(self.robot, 1), self._now)

    def _ask(self, acting: _Acting) -> None:
        """Ask the policy once more; it sees the newest frame and the step that has come."""
        spec, joints = acting.policy.spec, self._joints()
        start = replace(self.start, instruction=acting.instruction)
        waiting = acting.gathered.steps
        seen = observe(spec, self.robot, start, self.frame, self.pose, self._done + waiting, joints)
        at = None if joints is None else joints[None]
        where = staying(self.robot, self.pose[None], at)
        answer = check_actions(acting.policy.act([seen]), spec, self.robot, 1, where)
        acting.gathered.add(answer[:, : spec.execute])

    @property
    def _done(self) -> int:
        """Control steps carried out since the start."""
        return (self.now.frames - 1) * self.robot.steps_per_frame

    def _joints(self) -> np.ndarray | None:
        joints = self._steps[self._now].joints
        return None if joints is None else joints[-1]

    def _gripper(self) -> float:
        """The gripper's last command, since the pose holds it; open before there was one."""
        step = self._steps[self._now]
        if len(step.actions) and self.robot.gripper_axes:
            return float(step.actions[-1, -1, self.robot.gripper_axes[0]])
        by_pose = self.robot.control_mode in ("absolute_pose", "delta_pose")
        return usual_gripper(self.robot, self.pose if by_pose else None)

    def _path(self) -> list[Step]:
        path = [self._steps[self._now]]
        while (parent := path[-1].moment.parent) is not None:
            path.append(self._steps[parent])
        return path[::-1]

    def _step(self, number: int) -> Step:
        if not 0 <= number < len(self._steps):
            raise ConfigError(
                f"there is no moment {number}, expected 0 (the start) to {len(self._steps) - 1}"
            )
        return self._steps[number]

    def _room(self) -> None:
        if len(self._steps) >= MOST_MOMENTS:
            raise ConfigError(
                f"this drive has {len(self._steps)} moments, the most that are kept; save it and "
                "begin another"
            )

    def _snapshot(self) -> Any:
        return self.world.snapshot(0) if isinstance(self.world, BranchingWorld) else None

    def _restore(self, step: Step) -> None:
        """Put the world where it was after ``step``: by its snapshot, or by the way there again."""
        if isinstance(self.world, BranchingWorld):
            self.world.restore(0, step.state, step.moment.frames)
            return
        way = [step]
        while (parent := way[-1].moment.parent) is not None:
            way.append(self._steps[parent])
        self._begin()
        for one in way[-2::-1]:
            self.world.step(
                ActionChunk(
                    actions=one.actions.reshape(1, -1, self.robot.action_dim),
                    poses=one.poses[None],
                    joints=None if one.joints is None else one.joints[None],
                ),
                [0],
            )
