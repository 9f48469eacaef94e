"""Timers and resource limits of the process, which a policy may set and which would outlast it.

Enters: nothing. Leaves: what is in force, and ways back to it. A timer that rings later ends the
program (``signal.alarm`` as a time limit of the policy's own); a limit on the size or number of
files keeps rollouts from being written.
"""

from __future__ import annotations

import contextlib
import signal

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_TIMERS = tuple(
    getattr(signal, name)
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")
    if hasattr(signal, name)
)
_LIMITS = tuple(
    getattr(resource, name)
    for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_CPU")
    if hasattr(resource, name)
)


def timers() -> tuple[bool, ...]:
    """Which timers run; for how long they still do changes by itself."""
    return tuple(signal.getitimer(timer)[0] > 0 for timer in _TIMERS)


def stop_timers(wanted: tuple[bool, ...]) -> None:
    """Stop those that are not ``wanted``."""
    for timer, running in zip(_TIMERS, wanted, strict=True):
        if not running:
            signal.setitimer(timer, 0)


def limits() -> tuple[tuple[int, int], ...]:
    """(soft, hard) of each limit."""
    return tuple(resource.getrlimit(limit) for limit in _LIMITS)


def set_limits(wanted: tuple[tuple[int, int], ...]) -> None:
    """Set them. Raises ValueError for a soft limit above a hard one, which only root may raise."""
    for limit, (soft, hard) in zip(_LIMITS, wanted, strict=True):
        with contextlib.suppress(ValueError):
            resource.setrlimit(limit, (soft, hard))
        now = resource.getrlimit(limit)
        if now[0] != soft:
            resource.setrlimit(limit, (soft, now[1]))
