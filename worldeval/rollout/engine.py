"""The rollout loop, the only one: a policy acts in a world from the start states of a suite.

Enters: a ``World`` (simulator, imagination or recording), a ``Policy``, a ``Suite`` and a store.
Leaves: one episode a rollout in the store, and a ``RunSummary``. The way of one chunk::

    observations -> policy.act -> check_actions -> adapter.advance -> world.step -> recording

A policy is asked whenever what it commanded last does not fill another frame; it may execute any
number of control steps. Worlds are stepped by whole frames (``worldeval.rollout.gathering``).

Rollouts advance in batches. What a rollout sees depends on its suite's seed and its start state
only (``rollout_seed``): not on the batch, its place there, or on how others of the batch end. So a
batch of four equals four batches of one, as far as world and policy keep that promise too.

A rollout ends one chunk of the robot after the one in which the world flags success (so that
whoever judges its frames sees it solved, not only being solved), else after ``suite.chunks`` of
them: whatever number of steps its policy executes, so that all are given the same. When a policy
or a world fails in a batch, the rollouts that had not ended are begun again one at a time, which
repeats them exactly; the guilty one alone is kept as an error, with its frames so far. When memory
runs out they are begun again in halves, and batches stay as small. A policy server that stays away
ends the run, and none of its rollouts is an error.

Rollouts of a batch are written in the order of the suite, whichever ends first: the store is the
same whatever the batch. That is done by another thread (``worldeval.rollout.writing``) while the
next batch goes on.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import (
    ConfigError,
    PolicyAwayError,
    PolicyError,
    PolicyGoneError,
    StartStateError,
    StoreError,
    WorldError,
    WorldEvalError,
    ran_out_of_memory,
)
from worldeval.motion.adapters import Adapter, adapter_for, command
from worldeval.policies.checking import check_actions
from worldeval.policies.guard import guarded
from worldeval.robots.bounds import starts_outside, staying
from worldeval.rollout.fit import check_fit
from worldeval.rollout.gathering import Gathered, frames_at_once
from worldeval.rollout.observing import check_step, observe, take
from worldeval.rollout.pausing import free_memory
from worldeval.rollout.progress import Progress
from worldeval.rollout.recording import Recording, rollout_key
from worldeval.rollout.resuming import check_held
from worldeval.rollout.suite import Suite, rollout_seed
from worldeval.rollout.summary import ChunkEvent, RunInterrupted, RunSummary
from worldeval.rollout.writing import Writing
from worldeval.types import (
    Episode,
    Outcome,
    Policy,
    StartState,
    World,
    WorldStep,
)

log = logging.getLogger(__name__)

_TOLD: set[str] = set()
"""What was said of start states already: a second policy begins at the same ones."""
PATIENCE = 4
"""A policy whose first rollouts end in this many errors, and nothing else, stops the run."""
PARTS = ("policy", "model", "decode", "write")


def run(
    world: World,
    policy: Policy,
    suite: Suite,
    store: EpisodeStore,
    *,
    batch: int,
    seed: int | None = None,
    progress: bool | Progress = True,
    on_chunk: Callable[[ChunkEvent], None] | None = None,
    adapter: Adapter | None = None,
    skip: Collection[str] = (),
    proven: bool = False,
    retries: int = 0,
    disk_wait_s: float = 0.0,
    facts: Callable[[Episode], Mapping[str, Any]] | None = None,
    writing: Writing | None = None,
) -> RunSummary:
    """Roll out every start state of the suite that the store does not hold yet.

    batch: rollouts at once. seed: of all randomness; the suite's own if None. adapter: turns chunks
    into poses; that of the robot's ``motion`` if None. progress: whether to show how far it is, or
    the ``Progress`` of more than this run, to be told of it. skip: keys of rollouts that lie in
    another store. proven: the policy is known to work, so errors are kept from the first on.
    retries: how often a rollout that ended in an error is begun again before that is kept.
    disk_wait_s: how long to wait for space on a full disk, before StoreError.
    facts: more of them for an episode, asked before any other rollout begins.
    writing: what writes into ``store``, of whoever runs several times and calls its ``finish``
        then; None: all is written when this returns.
    Raises MismatchError or PolicyError if policy, world, suite and robot do not fit together,
    StartStateError for a start state that the world does not have, ConfigError if a rollout of the
    store began at another start state of that name, RunInterrupted on Ctrl-C.
    Whatever it raises, finished rollouts are in the store and are skipped by the next run.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch!r}, expected 1 or more rollouts at once")
    check_fit(world, policy, suite)
    check_held(store, policy.spec.name, suite, world, seed=seed)
    return _Run(
        world,
        policy,
        suite,
        store,
        suite.seed if seed is None else seed,
        on_chunk,
        adapter or adapter_for(world.robot),
        skip,
        proven,
        retries,
        disk_wait_s,
        facts,
        writing,
    ).all(batch, progress)


class _Run:
    """State of one call of ``run``."""

    def __init__(
        self,
        world: World,
        policy: Policy,
        suite: Suite,
        store: EpisodeStore,
        seed: int,
        on_chunk: Callable[[ChunkEvent], None] | None,
        adapter: Adapter,
        skip: Collection[str],
        proven: bool,
        retries: int,
        disk_wait_s: float,
        facts: Callable[[Episode], Mapping[str, Any]] | None,
        writing: Writing | None,
    ) -> None:
        self.world, self.suite, self.store = world, suite, store
        self.policy = guarded(policy)  # all that it raises is a PolicyError, and it changes nothing
        self.adapter = adapter
        self.robot = world.robot
        self.name = policy.spec.name
        self.seed = seed
        self.on_chunk = on_chunk
        self.outcomes = {outcome.value: 0 for outcome in Outcome}
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.frames = 0
        self.began_s = time.perf_counter()
        self.total_steps = suite.chunks * self.robot.chunk_steps
        self.retries, self.facts = retries, facts
        self.alone = writing is None
        self.writing = writing or Writing(store, disk_wait_s)
        held = {*store.keys, *skip}
        self.todo = [s for s in suite.starts if rollout_key(self.name, s.start_id) not in held]
        self.resumed = len(suite.starts) - len(self.todo)
        # Until the policy has once ended a rollout without an error, errors are held back: if
        # there is nothing but errors, the policy or the set-up is at fault and the user is told,
        # rather than a store filled with errors that a mended policy would then skip.
        self.proven = proven or any(key.startswith(rollout_key(self.name, "")) for key in held)
        self.began_at: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        self.held_back: list[tuple[Episode, WorldEvalError]] = []
        self.in_order: list[str] = []  # start states of the batch whose rollouts are not written
        self.ended: dict[str, tuple[Episode, WorldEvalError | None]] = {}

    def all(self, batch: int, progress: bool | Progress) -> RunSummary:
        starts = len(self.suite.starts)
        alone = isinstance(progress, bool)
        self.progress = Progress(starts, shown=progress) if isinstance(progress, bool) else progress
        self.progress.begin(
            self.name,
            rollouts=starts,
            held=self.resumed,
            frames=self.total_steps // self.robot.steps_per_frame,
        )
        try:
            self.batch = batch
            while self.todo:
                part, self.todo = self.todo[: self.batch], self.todo[self.batch :]
                self.in_order = [start.start_id for start in part]
                self._batch(part)
                self.progress.finish(len(part))
            if self.alone:
                self._written()
        except KeyboardInterrupt as stop:
            self._write_ended()
            report = self.report()
            raise RunInterrupted(
                f"interrupted: {report.rollouts + self.resumed} of {starts} "
                f"rollouts of {self.name!r} are kept; run the same command again to continue",
                report,
            ) from stop
        except WorldEvalError:
            self._write_ended()
            raise
        except BaseException:
            self.writing.stop()  # the caller closes the store
            raise
        finally:
            self.progress.end()
            if alone:
                self.progress.close()
        self._tell_starts()
        if self.held_back:
            self._give_up()
        return self.report()

    def _written(self) -> None:
        """Wait until all that was handed over is in the store."""
        began = time.perf_counter()
        self.writing.finish()
        self.seconds["write"] += time.perf_counter() - began

    def _tell_starts(self) -> None:
        """Log which start states lie outside of the robot's bounds, once for all policies."""
        if not self.began_at:
            return
        poses, joints = zip(*self.began_at.values(), strict=True)
        known = None if joints[0] is None else np.stack(joints)
        for told in starts_outside(self.robot, np.stack(poses), known):
            if told not in _TOLD:
                _TOLD.add(told)
                log.warning("%s", told)

    def report(self) -> RunSummary:
        wall_s = time.perf_counter() - self.began_s
        return RunSummary(
            policy=self.name,
            world=self.world.name,
            outcomes=dict(self.outcomes),
            resumed=self.resumed,
            frames=self.frames,
            seconds={**self.seconds, "engine": max(0.0, wall_s - sum(self.seconds.values()))},
            wall_s=wall_s,
            notes=self.policy.run_notes(),
        )

    def _batch(self, starts: Sequence[StartState], tried: int = 0) -> None:
        """Roll out these start states. tried: how often those of a single one ended in an error."""
        error, unfinished = self._roll(starts)
        if error is None:
            return
        self._written()  # and out of memory
        if isinstance(error, StartStateError):  # the suite does not belong to this world
            raise error
        if isinstance(error, PolicyAwayError):  # no fault of these rollouts
            raise PolicyGoneError(
                f"{error}; the run was stopped and the rollouts under way are not kept: start the "
                "server and run the same command again to continue"
            ) from error
        if len(starts) == 1 and tried >= self.retries:
            told = "".join(traceback.format_exception(error))
            self._end(unfinished[0].finish(error=str(error), traceback=told), error)
            return
        again = [recording.start for recording in unfinished]
        unfinished.clear()  # frees their frames
        each = 1
        if len(starts) > 1 and ran_out_of_memory(error):
            each = (len(starts) + 1) // 2
            if self.batch > each:
                self.batch = each
                self.progress.say(f"memory ran out with a batch of {len(starts)}: {each} from now")
        error = None  # its traceback holds what the failed step has left
        free_memory()
        for i in range(0, len(again), each):
            self._batch(again[i : i + each], tried + 1 if len(starts) == 1 else 0)

    def _roll(
        self, starts: Sequence[StartState]
    ) -> tuple[PolicyError | WorldError | None, list[Recording]]:
        """Roll out a batch; episodes are kept as they end.

        Returns what failed, if anything, and the recordings that had not ended by then.
        """
        robot, gathered = self.robot, Gathered(self.robot, len(starts))
        seeds = [rollout_seed(self.seed, s.start_id, "world") for s in starts]
        active = [
            Recording.of(
                self.world,
                self.name,
                start,
                self.seed,
                most_frames=self.total_steps // robot.steps_per_frame + 1,
            )
            for start in starts
        ]
        rows = list(range(len(starts)))
        try:
            began = time.perf_counter()
            with self._blame_world():
                seen = self.world.reset(starts, seeds)
                self.seconds["model"] += time.perf_counter() - began
                check_step(seen, len(starts), 1, robot, self.world.name)
            for i, start in enumerate(starts):
                joints = None if seen.joints is None else seen.joints[i, 0]
                self.began_at[start.start_id] = (seen.poses[i, 0], joints)
            self.policy.reset(
                [s.start_id for s in starts],
                [s.instruction for s in starts],
                [rollout_seed(self.seed, s.start_id, "policy") for s in starts],
            )
            for i, recording in enumerate(active):
                recording.begin(
                    seen.frames[i, 0],
                    seen.poses[i, 0],
                    None if seen.success is None else bool(seen.success[i, 0]),
                    None if seen.joints is None else seen.joints[i, 0],
                )
            steps = 0  # carried out
            while rows and steps < self.total_steps:
                policy_s = self._gather(gathered, seen, active, steps)
                most = frames_at_once(self.world, steps, flagged=seen.success is not None)
                actions = gathered.take_frames(most)
                chunk = command(self.adapter, seen.poses, seen.joints, actions)
                began = time.perf_counter()
                with self._blame_world():
                    seen = self.world.step(chunk, rows)
                    check_step(seen, len(rows), chunk.poses.shape[1], robot, self.world.name)
                world_s = time.perf_counter() - began
                self._record(seen, active, actions, steps, policy_s, world_s)
                if self.on_chunk is not None:
                    self.on_chunk(
                        ChunkEvent(
                            policy=self.name,
                            starts=tuple(r.start for r in active),
                            steps=steps + actions.shape[1],
                            frames=seen.frames,
                            poses=seen.poses,
                            success=seen.success,
                            info=seen.info,
                        )
                    )
                going = [i for i, recording in enumerate(active) if not recording.shown]
                for recording in active:
                    if recording.shown:
                        self._end(recording.finish())
                rows, active = [rows[i] for i in going], [active[i] for i in going]
                if len(going) < len(seen.frames):
                    gathered.keep_rows(going)
                    seen = take(seen, going)
                steps += actions.shape[1]
        except (PolicyError, WorldError) as error:
            return error, active
        while active:
            self._end(active.pop(0).finish())  # its frames are freed before the next
        return None, []

    def _gather(
        self, gathered: Gathered, seen: WorldStep, active: Sequence[Recording], steps: int
    ) -> float:
        """Ask the policy until a frame is filled; the seconds that it took.

        Between frames it sees the newest one again: nothing newer exists in either world.
        """
        seconds = 0.0
        while not gathered.frames:
            commanded = steps + gathered.steps
            actions, took = self._act(seen, active, commanded)
            gathered.add(actions[:, : min(self.policy.spec.execute, self.total_steps - commanded)])
            seconds += took
        return seconds

    def _act(
        self, seen: WorldStep, active: Sequence[Recording], steps: int
    ) -> tuple[np.ndarray, float]:
        began = time.perf_counter()
        spec = self.policy.spec
        observations = [
            observe(
                spec,
                self.robot,
                recording.start,
                seen.frames[i, -1],
                seen.poses[i, -1],
                steps,
                None if seen.joints is None else seen.joints[i, -1],
            )
            for i, recording in enumerate(active)
        ]
        answer = self.policy.act(observations)
        joints = None if seen.joints is None else seen.joints[:, -1]
        where = staying(self.robot, seen.poses[:, -1], joints)
        actions = check_actions(answer, spec, self.robot, len(active), where)
        return actions, time.perf_counter() - began

    def _record(
        self,
        seen: WorldStep,
        active: Sequence[Recording],
        actions: np.ndarray,
        steps: int,
        policy_s: float,
        world_s: float,
    ) -> None:
        """Keep a chunk. Seconds are shares: summed over a batch's rows they are the clock's."""
        for i, recording in enumerate(active):
            began = time.perf_counter()
            info = dict(seen.info[i])
            # What a world names itself ("model_s", "decode_s": a row's share) is taken from its
            # time; the rest of it, all of a simulator's, counts as model.
            named = {k: float(info.pop(f"{k}_s")) for k in PARTS if f"{k}_s" in info}
            seconds = {
                "policy": policy_s / len(active),
                "decode": 0.0,
                **named,
            }
            seconds["model"] = max(
                named.get("model", 0.0), world_s / len(active) - named.get("decode", 0.0)
            )
            # "write" of a chunk is its copy into the rollout's buffer; encoding to disk happens
            # once, at the end of the rollout, and is counted in RunSummary.seconds.
            log = {"step": steps, **info, "seconds": seconds}
            recording.add(
                frames=seen.frames[i],
                poses=seen.poses[i],
                actions=actions[i],
                success=None if seen.success is None else seen.success[i],
                log=log,
                joints=None if seen.joints is None else seen.joints[i],
            )
            seconds["write"] = time.perf_counter() - began
            recording.chunks[-1]["seconds"] = seconds
            for part, value in seconds.items():
                self.seconds[part] = self.seconds.get(part, 0.0) + value
        self.frames += seen.frames.shape[0] * seen.frames.shape[1]
        self.progress.advance(seen.frames.shape[0] * seen.frames.shape[1])

    def _end(self, episode: Episode, error: WorldEvalError | None = None) -> None:
        """A rollout is over: write it as soon as all before it in its batch are written."""
        self.proven = self.proven or error is None
        if self.facts is not None:
            episode = replace(episode, extra={**episode.extra, **self.facts(episode)})
        self.ended[episode.extra["start_id"]] = episode, error
        while self.in_order and self.in_order[0] in self.ended:
            self._keep(*self.ended.pop(self.in_order.pop(0)))

    def _write_ended(self) -> None:
        """Write what ended before the run was stopped, as far as the disk takes it at once: what it
        refuses, the next run makes again."""
        refused = self.writing.stop()
        try:
            for start_id in [one for one in self.in_order if one in self.ended]:
                with suppress(StoreError):  # it is tried again at the end
                    self._keep(*self.ended.pop(start_id))
        finally:
            refused += self.writing.stop()
        for episode in refused:
            self.outcomes[episode.extra["outcome"]] -= 1

    def _keep(self, episode: Episode, error: WorldEvalError | None) -> None:
        """Have an episode written; hold errors back until the policy is known to work at all."""
        if error is not None and not self.proven:
            self.held_back.append((episode, error))
            if len(self.held_back) >= PATIENCE:
                self._give_up()
            return
        waiting = [held for held, _ in self.held_back]
        self.held_back = []
        for one in [*waiting, episode]:
            began = time.perf_counter()
            self.outcomes[one.extra["outcome"]] += 1
            self.writing.put(one)
            self.seconds["write"] += time.perf_counter() - began

    def _give_up(self) -> NoReturn:
        error = self.held_back[0][1]
        raise type(error)(
            f"{error} (all {len(self.held_back)} rollouts that were tried ended in an error, so "
            "the run was stopped and none of them kept)"
        ) from error

    @contextmanager
    def _blame_world(self) -> Iterator[None]:
        try:
            yield
        except WorldEvalError:
            raise
        except Exception as error:
            raise WorldError(
                f"world {self.world.name!r} raised {type(error).__name__}: {error}"
            ) from error
