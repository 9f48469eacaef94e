"""Roll out with workers: hand out units, count what comes back, replace workers that die.

Enters: an open stage, which (policy, start states) are to be rolled out, and options. Leaves: the
rollouts in parts beside the run's store (``parts.py``), and a ``RunSummary`` of each policy.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, WorldError
from worldeval.evaluation.execution.executor import Event, Executor
from worldeval.evaluation.execution.parts import PARTS, part_stores
from worldeval.evaluation.execution.schedule import Schedule, Unit
from worldeval.evaluation.execution.worker import Result
from worldeval.evaluation.policy_options import tell
from worldeval.rollout.recording import Recording, rollout_key
from worldeval.rollout.summary import RunInterrupted, RunSummary
from worldeval.types import Outcome, Policy

if TYPE_CHECKING:
    from worldeval.evaluation.execution.options import ExecutionOptions
    from worldeval.evaluation.stage import Stage
    from worldeval.rollout.progress import Progress
    from worldeval.rollout.suite import Suite

LOOK_S = 1.0
BEGINNINGS = 3
"""Workers that die before they are ready, one after the other, end the run."""


class Execution:
    """One run with workers. prefix: of the names of its parts, where several machines help."""

    def __init__(
        self,
        stage: Stage,
        parts: Sequence[tuple[Policy, Suite]],
        batch: int,
        options: ExecutionOptions,
        progress: Progress,
        prefix: str,
    ) -> None:
        if stage.recipe is None:
            raise ConfigError(
                "a policy was given as an object of this process, which workers cannot have; give "
                "it as 'python:FILE.py:CLASS', or leave --workers out"
            )
        self.stage, self.parts, self.progress, self.prefix = stage, parts, progress, prefix
        self.options = options
        self.recipe = replace(stage.recipe, retries=options.retries, disk_wait_s=options.disk_wait)
        self.summaries = {policy.spec.name: _Sum() for policy, _ in parts}
        self.batch = batch

    def part(self, number: int) -> Path:
        """The store of a worker."""
        return self.stage.folder / PARTS / f"{self.prefix}worker-{number}"

    def run(self, held: Collection[str]) -> tuple[list[RunSummary], dict[str, Exception]]:
        """Make all that is not in ``held``. A summary of each policy that worked, and why others
        did not. Raises RunInterrupted on Ctrl-C; what was made is kept."""
        todo, count = [], 0
        for policy, suite in self.parts:
            name = policy.spec.name
            missing = partial(_missing, name, suite, held)
            todo.append((name, missing))
            few = sum(1 for _ in missing())
            self.summaries[name].resumed = len(suite.starts) - few
            count += few
        # The batches of one process: a world model's rounding differs with the size of a batch.
        self.schedule = Schedule(units(todo, self.batch))
        first = self.parts[0][1]
        self.progress.begin(
            f"{self.options.workers} workers",
            rollouts=sum(len(suite.starts) for _, suite in self.parts),
            held=sum(s.resumed for s in self.summaries.values()),
            frames=first.chunks * self.stage.world.robot.frames_per_chunk,
        )
        began_s = time.perf_counter()
        if count:
            executor = self._executor()
            at_once = True
            try:
                self._work(executor, min(self.options.workers, count))
                at_once = False
            except KeyboardInterrupt as stop:
                made = sum(s.rollouts for s in self.summaries.values())
                raise RunInterrupted(
                    f"interrupted: {made} rollouts of this run are kept; run the same command "
                    f"again, or `worldeval resume {self.stage.folder}`, to continue",
                    _Sum().summary("all", self.stage.world.name, 0.0),
                ) from stop
            finally:
                executor.end(at_once=at_once)
                self.progress.end()
        self._keep_given_up()
        wall_s = time.perf_counter() - began_s
        return [
            self.summaries[name].summary(name, self.stage.world.name, wall_s)
            for name in self.summaries
            if name not in self.schedule.failed
        ], self.schedule.failed

    def _executor(self) -> Executor:
        if self.options.executor == "ray":
            from worldeval.evaluation.execution.ray_actors import RayExecutor

            return RayExecutor(self.recipe, self.part)
        from worldeval.evaluation.execution.local import LocalExecutor

        return LocalExecutor(self.recipe, self.part)

    def _work(self, executor: Executor, workers: int) -> None:
        self.executor = executor
        self.units: dict[int, Unit] = {}  # worker -> what it is about
        self.idle: list[int] = []
        self.unready = 0  # workers in a row that died before they were ready
        for number in range(workers):
            executor.begin(number)
        while True:
            while self.idle and (unit := self.schedule.next()) is not None:
                number = self.idle.pop(0)
                self.units[number] = unit
                executor.give(number, unit)
            if not self.units and self.idle and self.schedule.settle():
                return
            for event in executor.wait(LOOK_S):
                self._take(event)

    def _take(self, event: Event) -> None:
        if event.kind == "frames":
            self.progress.advance(event.frames)
        elif event.kind == "ready":
            self.unready = 0
            self.idle.append(event.number)
        elif event.kind == "result":
            assert event.result is not None
            self._result(self.units.pop(event.number), event.result)
            self.idle.append(event.number)
        else:
            self._died(event)

    def _result(self, unit: Unit, result: Result) -> None:
        if result.error is None:
            self.schedule.done(unit)
            self.progress.finish(len(unit.starts))
            self.summaries[unit.policy].add(result)
        elif result.gone:
            self.schedule.gone(unit, result.error)
        elif result.doubtful:
            self.schedule.doubtful(unit, result.error)
        else:
            raise result.error
        if unit.policy in self.schedule.failed:
            tell(str(self.schedule.failed[unit.policy]))

    def _died(self, event: Event) -> None:
        unit = self.units.pop(event.number, None)
        if event.error is not None:
            raise event.error
        if unit is None:
            self.unready += not event.machine
            if self.unready >= BEGINNINGS:
                raise WorldError(
                    f"{BEGINNINGS} workers died before they were ready ({event.why}); take fewer "
                    "--workers, or none to see what the world or the policies say"
                )
            self.progress.say(f"a worker died ({event.why}) without work; another begins")
        else:
            kept = self._kept(unit)
            missing = [start for start in unit.starts if start not in kept]
            self.schedule.lost(unit, missing, event.why, machine=event.machine)
            self.summaries[unit.policy].add(Result(outcomes=Counter(kept.values())))
            self.progress.finish(len(kept))
            self.progress.say(
                f"a worker died ({event.why}); {len(missing)} rollouts of {unit.policy} are begun "
                "again by another"
            )
        self.executor.begin(event.number)

    def _kept(self, unit: Unit) -> dict[str, str]:
        """Start state -> outcome, of what is kept of a unit whose worker died."""
        kept = {}
        for store in map(EpisodeStore.open, part_stores(self.stage.folder)):
            for start in unit.starts:
                if (key := rollout_key(unit.policy, start)) in store:
                    kept[start] = str(store.facts(store.index_of(key))["outcome"])
        return kept

    def _keep_given_up(self) -> None:
        """Errors of the rollouts that killed their workers: they end too."""
        if not self.schedule.given_up:
            return
        world = self.stage.world
        place = self.stage.folder / PARTS / f"{self.prefix}given-up"
        with self.stage.store(place) as store:
            for policy, start_id, why in self.schedule.given_up:
                suite = next(suite for p, suite in self.parts if p.spec.name == policy)
                start = next(s for s in suite.starts if s.start_id == start_id)
                recording = Recording.of(world, policy, start, suite.seed, most_frames=1)
                store.append(
                    recording.finish(error=f"its worker died again and again, the last time: {why}")
                )
                self.summaries[policy].add(Result(outcomes={Outcome.ERROR.value: 1}))


class _Sum:
    """The results of one policy, added up."""

    def __init__(self) -> None:
        self.resumed = 0
        self.outcomes = {outcome.value: 0 for outcome in Outcome}
        self.frames = 0
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @property
    def rollouts(self) -> int:
        return sum(self.outcomes.values())

    def add(self, result: Result) -> None:
        for name, count in result.outcomes.items():
            self.outcomes[name] += count
        self.frames += result.frames
        for part, seconds in result.seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        self.notes += [note for note in result.notes if note not in self.notes]

    def summary(self, policy: str, world: str, wall_s: float) -> RunSummary:
        return RunSummary(
            policy=policy,
            world=world,
            outcomes=self.outcomes,
            resumed=self.resumed,
            frames=self.frames,
            wall_s=wall_s,
            seconds=self.seconds,
            notes=tuple(self.notes),
        )


def units(todo: Sequence[tuple[str, Callable[[], Iterable[str]]]], each: int) -> Iterator[Unit]:
    """The start states of each policy in units of ``each``, made when they are asked for."""
    for name, starts in todo:
        left = iter(starts())
        while some := tuple(islice(left, each)):
            yield Unit(policy=name, starts=some)


def _missing(policy: str, suite: Suite, held: Collection[str]) -> Iterator[str]:
    return (s.start_id for s in suite.starts if rollout_key(policy, s.start_id) not in held)
