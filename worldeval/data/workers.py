"""Many processes at work on a list of jobs, results in the order of the list.

Enters: a function of a module (processes are spawned, so it must be importable), jobs, a number of
processes. Leaves: results one after the other; at most three jobs per process are ahead of them, so
memory stays bounded. A killed parent takes its workers along; Ctrl-C reaches the parent alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from worldeval.errors import DataError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
AHEAD = 3
"""Jobs a worker that may be done before their turn comes."""


def in_order(
    work: Callable[[_Job], _Result],
    jobs: Iterable[_Job],
    workers: int,
    *,
    begin: Callable[..., None],
    arguments: tuple[Any, ...] = (),
) -> Generator[_Result, None, None]:
    """``work`` of every job, in order, whatever the number of workers.

    begin: called once in each process with ``arguments``, before its first job.
    Raises DataError if a worker dies.
    """
    if workers == 1:
        begin(*arguments)
        yield from map(work, jobs)
        return
    # Set for the children, which read it on start; the parent's numpy has long been loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(begin, arguments),
    )
    waiting: deque[Future[_Result]] = deque()
    try:
        for job in jobs:
            with deaf_children():  # the pool begins its processes when it gets its first jobs
                waiting.append(pool.submit(work, job))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died (often for lack of memory); run the same command again to "
            "continue, with fewer workers"
        ) from error
    except KeyboardInterrupt:
        # Results are taken in their order, so those that run now could not be kept.
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches the whole group; the parent alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    begin(*arguments)


def end_with_parent() -> None:
    """Else a worker whose parent was killed would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that begin in the block never hear Ctrl-C, not even before ``_start_worker``."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
