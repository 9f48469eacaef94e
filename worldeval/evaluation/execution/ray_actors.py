"""Workers as actors of a Ray cluster. They share the run's folder; Ray finds them a machine.

Machines come and go. One that is out of reach may still be at work: each actor has a part of its
own, so that the one in its place need not wait for its store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from worldeval.errors import ConfigError, MissingDependencyError, WorldEvalError
from worldeval.evaluation.execution.executor import Event
from worldeval.evaluation.execution.schedule import Unit
from worldeval.evaluation.execution.worker import Recipe, Result, Worker
from worldeval.evaluation.policy_options import tell

ROOM_S = 60.0
"""How long no actor may have found a machine before that is said."""


class RayExecutor:
    """part: the store of each worker. Takes the cluster that RAY_ADDRESS names, or one that runs on
    this machine already, else begins one."""

    def __init__(self, recipe: Recipe, part: Callable[[int], Path]) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingDependencyError(
                "executor is 'ray', but ray is not installed; pip install 'worldeval[ray]', or use "
                "--executor local"
            ) from error
        self._ray: Any = ray
        self._recipe, self._part = recipe, part
        self._began = not ray.is_initialized()
        if self._began:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
        if not Path(recipe.folder).is_absolute():
            raise ConfigError(f"the folder {recipe.folder} is relative, expected an absolute one")
        cpu = recipe.options.imagination.device == "cpu"
        gpus = 1 if not cpu and ray.cluster_resources().get("GPU") else 0
        cpus = recipe.options.threads
        self._needs = f"{cpus} CPU" + (f" and {gpus} GPU" if gpus else "")
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_concurrency=1)(
            RayWorker
        )
        self._deaths = ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError
        self._workers: dict[int, Any] = {}
        self._waiting: dict[Any, tuple[int, bool]] = {}
        """Reference -> worker, and whether it is the first, which tells that it is ready."""
        self._heard = time.monotonic()

    def begin(self, number: int) -> None:
        part = self._part(number)
        part = part.with_name(f"{part.name}-{uuid4().hex[:8]}")
        worker = self._actor.remote(self._recipe, part, number)
        self._workers[number] = worker
        self._waiting[worker.ready.remote()] = number, True

    def give(self, number: int, unit: Unit) -> None:
        self._waiting[self._workers[number].roll.remote(unit)] = number, False

    def wait(self, seconds: float) -> Sequence[Event]:
        if not self._waiting:
            return ()
        came, _ = self._ray.wait(list(self._waiting), timeout=seconds)
        if came or not all(first for _, first in self._waiting.values()):
            self._heard = time.monotonic()
        elif time.monotonic() > self._heard + ROOM_S:
            self._heard = float("inf")
            tell(
                f"no worker has begun for {ROOM_S:.0f} s; if `ray status` shows no room for an "
                f"actor with {self._needs}, let another machine join the cluster: the run goes on "
                "by itself then"
            )
        return [self._event(reference, *self._waiting.pop(reference)) for reference in came]

    def end(self, *, at_once: bool) -> None:
        closing = [] if at_once else [worker.close.remote() for worker in self._workers.values()]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=20)
        for worker in self._workers.values():
            self._ray.kill(worker)
        if self._began:
            self._ray.shutdown()

    def _event(self, reference: Any, number: int, first: bool) -> Event:
        try:
            result = self._ray.get(reference)
        except self._deaths as error:
            # It may only be out of reach: then it ends when it is not.
            self._ray.kill(self._workers.pop(number))
            why, machine = self._why(error)
            own = _own(getattr(error, "cause", None) or error)
            return Event(number=number, kind="died", why=why, error=own, machine=machine)
        except Exception as error:  # raised in the worker
            raised = _own(error) or RuntimeError(str(error))
            return Event(number=number, kind="died", why=str(error), error=raised)
        if first:
            return Event(number=number, kind="ready")
        return Event(number=number, kind="result", result=result)

    def _why(self, error: Exception) -> tuple[str, bool]:
        """Why an actor is gone, in few words, and whether its machine is."""
        told = str(error)
        if isinstance(error, self._ray.exceptions.ActorUnavailableError):
            return "its machine is out of reach", True
        if getattr(error, "preempted", False) or "its node has died" in told:
            return "its machine is gone", True
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            return "killed by Ray, for lack of memory on its machine", False
        if "worker process has died" in told:
            return "its process died, often for lack of memory", False
        return " ".join(told.split()), False


def _own(error: BaseException) -> WorldEvalError | None:
    """The error of ours behind one of Ray's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, WorldEvalError):
            return WorldEvalError(str(getattr(seen, "cause", seen)))
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None


class RayWorker:
    """A ``Worker`` in an actor."""

    def __init__(self, recipe: Recipe, part: Path, number: int) -> None:
        # Ray has chosen the GPU already.
        self._worker = Worker(recipe, part, number)

    def ready(self) -> bool:
        return True

    def roll(self, unit: Unit) -> Result:
        return self._worker.roll(unit)

    def close(self) -> None:
        self._worker.close()
