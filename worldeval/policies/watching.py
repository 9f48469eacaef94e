"""A limit to how long a policy may take, and the threads that it leaves behind.

Enters: a call, and seconds. Leaves: the call's result, or ``TimeIsUp`` raised inside the call. A
thread rings the main thread by a signal (SIGALRM), which interrupts Python code and waiting
(sockets, locks, sleep) wherever it is, and rings again each second if the policy catches that. What
waits outside Python for ever cannot be interrupted: then the program ends with a sentence, since
nothing else of it could go on; finished rollouts are on the disk. Where there is no such signal
(Windows), and off the main thread, nobody watches.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

AGAIN_S = 1.0
"""Between two rings."""
GRACE_S = 10.0
"""From the first ring until the policy is given up, and with it the program."""
LEAVE_S = 3.0
"""How long the end of the program waits for threads that a policy has left."""


_exit = os._exit  # the real one, see ``no_exit``
process_is_its_own = False
"""Whether this process is a policy's alone (``isolated_child.py``), so that it may end it."""


class TimeIsUp(BaseException):
    """Raised inside a policy's call; no Exception, so that a policy that tries again lets it by."""


class Watch:
    """Watches one call on the main thread; see the module's docstring."""

    def __init__(self, policy: str, what: str, limit_s: float) -> None:
        self._words = f"policy {policy} has not answered for"
        self._what, self._limit_s = what, limit_s
        self._lock = threading.Lock()
        self._going = False
        self._begun_s = 0.0
        self._over = threading.Event()

    def __enter__(self) -> None:
        self._begun_s = time.monotonic()
        self._handler = signal.signal(signal.SIGALRM, self._ring)
        self._going = True
        threading.Thread(target=self._wait, name="policy-watch", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._going = False  # first of all: from here on a ring means nothing
        with self._lock:  # no ring is sent any more
            self._over.set()
        if signal.getsignal(signal.SIGALRM) == self._ring and self._handler is not None:
            signal.signal(signal.SIGALRM, self._handler)  # runs a ring that is still under way

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self._going and time.monotonic() - self._begun_s >= self._limit_s:
            raise TimeIsUp

    def _wait(self) -> None:
        main = threading.main_thread().ident
        wait_s = min(self._limit_s, threading.TIMEOUT_MAX)
        while main is not None and not self._over.wait(wait_s):
            with self._lock:
                if not self._going:
                    return
                signal.pthread_kill(main, signal.SIGALRM)
            waited_s = time.monotonic() - self._begun_s
            if waited_s > self._limit_s + GRACE_S:
                end_program(
                    f"{self._words} {waited_s:.0f} s ({self._what}) and cannot be interrupted, so "
                    "the program ends here; finished rollouts are kept. Run the same command with "
                    "--isolate: such a policy then costs its own rollouts alone",
                    code=2,
                )
            wait_s = AGAIN_S


def can_watch() -> bool:
    return hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()


def end_program(sentence: str, *, code: int) -> NoReturn:
    """Say why and end at once, whatever still runs; only what is flushed is written."""
    print(f"worldeval: {sentence}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            continue
    _exit(code)


@contextmanager
def no_exit() -> Iterator[None]:
    """Inside, ``os._exit`` of this process raises SystemExit: it would end the run without a word,
    with whatever exit code a policy chose, 0 too. Copies that were forked still end."""
    if process_is_its_own:
        yield
        return
    process = os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            _exit(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = _exit


_left: weakref.WeakKeyDictionary[threading.Thread, str] = weakref.WeakKeyDictionary()


@contextmanager
def noting_threads(policy: Any) -> Iterator[None]:
    """Remember which threads were started inside, and that ``policy`` (named by str) did so."""
    before = set(threading.enumerate())
    try:
        yield
    finally:
        for thread in threading.enumerate():
            if thread not in before and not thread.daemon:
                _left[thread] = str(policy)


def left_running() -> list[str]:
    """Threads and processes of policies that still run and keep the program from ending."""
    names = [
        f"thread {thread.name!r} of policy {who}"
        for thread, who in _left.items()
        if thread.is_alive()
    ]
    return names + [f"process {process.name!r} of a policy" for process in _children()]


def _children() -> list[Any]:
    """Started with ``multiprocessing``, whose end of the program waits for them."""
    found = sys.modules.get("multiprocessing")
    return [p for p in found.active_children() if not p.daemon] if found is not None else []


def end_despite_policies(code: int) -> None:
    """Let the program end with ``code`` although policies have left threads that do not.

    They have LEAVE_S to come to their end by themselves, then it is said which did not.
    """

    def leave() -> None:
        time.sleep(LEAVE_S)
        names = left_running()
        if names:
            for process in _children():
                process.kill()
            atexit._run_exitfuncs()
            end_program(
                f"the program ends although {', '.join(names)} still runs; all is written (end it "
                "in the policy's close(), or make it a daemon)",
                code=code,
            )

    if left_running():
        threading.Thread(target=leave, daemon=True).start()
