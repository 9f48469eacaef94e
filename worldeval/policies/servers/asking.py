"""What holds for every server, with a hello or without: a batch is asked at once, nobody is there.

Enters: the jobs of a batch, one for each connection; attempts to connect that failed. Leaves: the
jobs' results; the error that says nobody answers, and the one with which the run ends.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from worldeval.errors import PolicyAwayError, PolicyError, PolicyGoneError

GONE = 8
"""So many requests in a row to a server that stays away end the run."""

T = TypeVar("T")


def results(jobs: Sequence[Future[T]], close: Callable[[], None]) -> list[T]:
    """What the jobs return, once all have ended; the first error among them is raised.

    close: ends all connections; called on Ctrl-C, else workers would hold the process until their
    time is up.
    """
    try:
        errors = [job.exception() for job in jobs]
    except KeyboardInterrupt:
        close()
        raise
    for error in errors:
        if error is not None:
            raise error
    return [job.result() for job in jobs]


def no_tls(url: str, error: BaseException) -> PolicyError | None:
    """What to raise where TLS cannot be spoken and waiting would not mend it; else None."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return PolicyError(
            f"the certificate of {url} is not trusted ({error.verify_message}); put the one that "
            "signed it into a file and export SSL_CERT_FILE=FILE, or correct the host's name"
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        plain = url.replace("https://", "http://").replace("wss://", "ws://")
        return PolicyError(
            f"{url} does not speak TLS ({error.reason or error}); is the server at {plain}?"
        )
    return None


class Refusals:
    """Requests in a row that found nobody, counted over all connections to a server."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Somebody answered."""
        with self._lock:
            self.count = 0

    def add(self, url: str, why: str, patience_s: float) -> PolicyAwayError | PolicyGoneError:
        """Count a request that found nobody; what to raise."""
        with self._lock:
            self.count += 1
            count = self.count
        said = (
            f"no policy server answers at {url} ({why}; tried for {patience_s:g} s); start it, or "
            "correct host and port"
        )
        if count < GONE:
            return PolicyAwayError(said)
        return PolicyGoneError(
            f"{said} ({count} requests in a row found nobody, so the run was stopped; start the "
            "server and run the same command again to continue)"
        )
