"""Workers as actors of a Ray cluster. They share the run's folder; Ray finds them a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from worldeval.errors import ConfigError, MissingDependencyError, WorldEvalError
from worldeval.evaluation.execution.executor import Event
from worldeval.evaluation.execution.schedule import Unit
from worldeval.evaluation.execution.worker import Recipe, Result, Worker


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
        self._actor = ray.remote(
            num_cpus=recipe.options.threads, num_gpus=gpus, max_restarts=0, max_concurrency=1
        )(RayWorker)
        self._workers: dict[int, Any] = {}
        self._waiting: dict[Any, tuple[int, bool]] = {}
        """Reference -> worker, and whether it is the first, which tells that it is ready."""

    def begin(self, number: int) -> None:
        worker = self._actor.remote(self._recipe, self._part(number), number)
        self._workers[number] = worker
        self._waiting[worker.ready.remote()] = number, True

    def give(self, number: int, unit: Unit) -> None:
        self._waiting[self._workers[number].roll.remote(unit)] = number, False

    def wait(self, seconds: float) -> Sequence[Event]:
        if not self._waiting:
            return ()
        came, _ = self._ray.wait(list(self._waiting), timeout=seconds)
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
        except self._ray.exceptions.RayActorError as error:
            self._workers.pop(number, None)
            cause = getattr(error, "cause", None)
            return Event(number=number, kind="died", why=str(error), error=_own(cause or error))
        except Exception as error:  # raised in the worker
            own = _own(error) or RuntimeError(str(error))
            return Event(number=number, kind="died", why=str(error), error=own)
        if first:
            return Event(number=number, kind="ready")
        return Event(number=number, kind="result", result=result)


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
