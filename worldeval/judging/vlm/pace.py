"""When the next request may be sent: so many per minute, and none while the server asks to wait.

Enters: the limit, and what servers say in ``Retry-After``. Leaves: the right moment.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class Pace:
    """Gives every request its moment, so that a minute holds no more of them than allowed."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Return when it is this request's turn, or when ``stop`` is set."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap_s
        if turn > now:
            stop.wait(turn - now)

    def hold(self, seconds: float) -> None:
        """Let nobody ask for so long: the server said so."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def retry_after_s(text: str) -> float:
    """Seconds in a header ``Retry-After`` (RFC 9110, 10.2.3): a number or a date; else 0."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text.strip())
        except ValueError:
            return 0.0
        if moment.tzinfo is None:  # "-0000" is read without a zone, and means UTC
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return seconds if seconds > 0 else 0.0  # of the past, or NaN
