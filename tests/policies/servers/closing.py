"""Closing a policy while its server owes it an answer, for the tests of every wire."""

from __future__ import annotations

import threading

from worldeval.errors import PolicyError
from worldeval.types import Observation, Policy


def close_while_asked(
    policy: Policy, seen: Observation, asked: threading.Event, answered: threading.Event
) -> None:
    """Closing must end a request about ``seen`` whose server, at ``asked``, waits for ``answered``
    before it says anything."""
    raised: list[PolicyError] = []

    def act() -> None:
        try:
            policy.act([seen])
        except PolicyError as error:
            raised.append(error)

    waiting = threading.Thread(target=act)
    waiting.start()
    assert asked.wait(5)
    policy.close()
    waiting.join(5)
    ended = not waiting.is_alive()
    answered.set()
    waiting.join()
    assert ended
    assert "were closed here" in str(raised[0])
