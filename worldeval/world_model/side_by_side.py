"""A batch worked off in parts, each by a thread of its own, with one thread of torch in each.

Enters: what is to be done for some rows of a batch, and the number of rows. Leaves: the answers for
all, in order. Threads inside of each layer have to wait for each other some hundred times a chunk;
parts of a batch do so once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_LOCK = threading.Lock()
_POOLS: dict[int, ThreadPoolExecutor] = {}


def side_by_side(
    work: Callable[[slice], Tensor], rows: int, device: torch.device | str = "cpu"
) -> Tensor:
    """``work`` of all rows (its answers begin with that axis), in inference mode.

    On a CPU in as many parts as torch has threads; anywhere else, and of fewer rows than threads,
    in one.
    """
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu" or not 1 < threads <= rows:
        with torch.inference_mode():
            return work(slice(0, rows))
    bounds = [rows * part // threads for part in range(threads + 1)]
    parts = [slice(first, end) for first, end in zip(bounds[:-1], bounds[1:], strict=True)]
    with torch.inference_mode():
        return torch.cat(list(_pool(threads).map(lambda part: _inferred(work, part), parts)))


def _inferred(work: Callable[[slice], Tensor], part: slice) -> Tensor:
    with torch.inference_mode():  # each thread has a mode of its own
        return work(part)


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch has one thread; the caller keeps its own number."""
    with _LOCK:
        if threads not in _POOLS:
            ready = threading.Barrier(threads + 1)
            pool = ThreadPoolExecutor(threads, "side by side", lambda: _begin(ready))
            for _ in range(threads):
                pool.submit(int)
            ready.wait()
            torch.set_num_threads(threads)  # what threads that begin later are given
            _POOLS[threads] = pool
        return _POOLS[threads]


def _begin(ready: threading.Barrier) -> None:
    torch.get_num_threads()  # a thread takes the number of the process when it is first asked
    torch.set_num_threads(1)
    ready.wait()
