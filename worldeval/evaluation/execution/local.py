"""Workers as processes of this machine. Each has a pipe of its own: one that is killed while it
holds a shared queue would stop all others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from worldeval.data.workers import deaf_children, end_with_parent
from worldeval.errors import WorldEvalError
from worldeval.evaluation.execution.executor import Event
from worldeval.evaluation.execution.schedule import Unit
from worldeval.evaluation.execution.worker import Recipe, Worker

END_S = 20.0
"""How long a worker may take to close its store and its policies."""


class LocalExecutor:
    """part: the store of each worker."""

    def __init__(self, recipe: Recipe, part: Callable[[int], Path]) -> None:
        self._recipe, self._part = recipe, part
        self._spawn = multiprocessing.get_context("spawn")
        self._processes: dict[int, BaseProcess] = {}
        self._pipes: dict[int, Connection] = {}

    def begin(self, number: int) -> None:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(
            target=_work, args=(theirs, self._recipe, self._part(number), number), daemon=True
        )
        with deaf_children():
            _without_threads(process.start)
        theirs.close()
        self._processes[number], self._pipes[number] = process, ours

    def give(self, number: int, unit: Unit) -> None:
        try:
            self._pipes[number].send(unit)
        except OSError:
            return  # it died; ``wait`` says so

    def wait(self, seconds: float) -> Sequence[Event]:
        events = []
        by_pipe = {pipe: number for number, pipe in self._pipes.items()}
        for pipe in wait(list(by_pipe), seconds):
            assert isinstance(pipe, Connection)
            number = by_pipe[pipe]
            try:
                event = pipe.recv()
            except (EOFError, OSError):
                event = self._died(number)
            events.append(event)
            if event.kind == "died":
                self._forget(number)
        return events

    def end(self, *, at_once: bool) -> None:
        for pipe in self._pipes.values():
            try:
                pipe.send(None)
            except OSError:
                continue
        for process in self._processes.values():
            if at_once:
                process.kill()  # a store outlasts it, and a policy may not hear anything less
            process.join(END_S)
            if process.is_alive():
                process.kill()
                process.join()
        for number in list(self._processes):
            self._forget(number)

    def _died(self, number: int) -> Event:
        process = self._processes[number]
        process.join(END_S)
        code = process.exitcode
        why = f"exit code {code}"
        if code is not None and code < 0:
            why = f"killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                why += ", often for lack of memory"
        return Event(number=number, kind="died", why=why)

    def _forget(self, number: int) -> None:
        self._pipes.pop(number).close()
        process = self._processes.pop(number)
        process.join(END_S)


def _without_threads(start: Callable[[], None]) -> None:
    """The environment in which a child begins: one core, for its numpy reads that on start."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        start()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _work(pipe: Connection, recipe: Recipe, part: Path, number: int) -> None:
    """The life of a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the head alone decides
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        worker = Worker(recipe, part, number)
        pipe.send(Event(number=number, kind="ready"))
        while (unit := pipe.recv()) is not None:
            result = worker.roll(
                unit, lambda frames: pipe.send(Event(number=number, kind="frames", frames=frames))
            )
            pipe.send(Event(number=number, kind="result", result=result))
        worker.close()
    except (EOFError, BrokenPipeError):
        return  # the head is gone
    except WorldEvalError as error:
        pipe.send(Event(number=number, kind="died", why=str(error), error=error))
    except Exception:
        told = traceback.format_exc()
        pipe.send(Event(number=number, kind="died", why=told, error=RuntimeError(told)))
