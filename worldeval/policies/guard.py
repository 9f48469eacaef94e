"""What surrounds every call of a policy, so that it harms nobody but its own rollouts.

Enters: a policy of anybody's. Leaves: a ``Guarded`` policy: what it raises is a PolicyError that
names it, what it changes of the process is its own (``own_state.py``), what lies beside its file
can be imported in its calls (``neighbours.py``), and a call that lasts too long is ended
(``watching.py``). A policy that breaks the process itself (abort, a fault in C code, all memory)
needs a process of its own: ``isolation.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, PolicyAwayError, PolicyError, PolicyGoneError
from worldeval.policies.neighbours import Neighbours
from worldeval.policies.own_state import OwnState
from worldeval.policies.watching import TimeIsUp, Watch, can_watch, no_exit, noting_threads
from worldeval.types import Observation, Policy

MAKING = 10
"""Making a policy may take so many times as long as a call: weights are read, code compiled."""
MOST_WORDS = 1000
"""Characters that are kept of what a policy says when it raises."""


def check_limit(limit_s: float | None) -> None:
    """Raise ConfigError unless ``limit_s`` is None or more than 0; inf is no limit."""
    if limit_s is not None and not limit_s > 0:
        raise ConfigError(
            f"the time limit of a policy is {limit_s!r} s, expected more than 0 (or no limit)"
        )


class Guard:
    """The surroundings of one policy's calls.

    policy: how messages call it. folder: of the modules beside it, if any. limit_s: seconds that a
    call may last; None does not watch. A policy whose ``watches_itself`` is true (a server's, a
    person at the keys) is never watched.
    """

    def __init__(
        self, policy: str, *, folder: Path | None = None, limit_s: float | None = None
    ) -> None:
        check_limit(limit_s)
        self.policy = policy
        self.limit_s = limit_s
        self.neighbours = Neighbours(folder)
        self._state = OwnState()

    @contextmanager
    def around(self, what: str, *, times: float = 1) -> Iterator[None]:
        """Surround one call. Raises PolicyError if it lasts longer than ``times`` the limit.

        What the call raises otherwise comes through as it is: see ``blamed``.
        """
        process = os.getpid()
        try:
            with ExitStack() as stack:
                stack.enter_context(self._state.in_force(self.policy))
                stack.enter_context(self.neighbours.in_reach())
                stack.enter_context(noting_threads(self.policy))
                stack.enter_context(no_exit())
                if self.limit_s is not None and self.limit_s < math.inf and can_watch():
                    stack.enter_context(Watch(self.policy, what, self.limit_s * times))
                try:
                    yield
                finally:
                    if os.getpid() != process:  # it forked, and this is the copy that came back:
                        os._exit(1)  # two evaluations must not write to one folder
        except TimeIsUp:
            assert self.limit_s is not None
            raise PolicyError(too_late(self.policy, what, self.limit_s * times)) from None

    @contextmanager
    def blamed(self, what: str) -> Iterator[None]:
        """Surround one call; whatever it raises is a PolicyError, except the user's Ctrl-C and
        PolicyGoneError, with which a policy ends the run."""
        try:
            with self.around(what):
                yield
        except (KeyboardInterrupt, PolicyGoneError):
            raise
        except PolicyError as error:
            if self.policy in str(error):
                raise
            kind = PolicyAwayError if isinstance(error, PolicyAwayError) else PolicyError
            raise kind(f"policy {self.policy}: {error}") from error
        except BaseException as error:
            raise PolicyError(f"policy {self.policy} raised {words(error)}") from error


class Guarded:
    """A policy within its Guard; a Policy itself. Its spec is read once, when it is surrounded."""

    def __init__(self, policy: Policy, guard: Guard | None = None) -> None:
        self._policy = policy
        self.spec = policy.spec
        self.guard = guard or Guard(repr(self.spec.name))
        self.guard.policy = repr(self.spec.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        with self.guard.blamed("reset"):
            self._policy.reset(rollout_ids, instructions, seeds)

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        with self.guard.blamed("act"):
            answer = self._policy.act(observations)
            if np.iscomplexobj(answer) or np.ma.is_masked(answer):
                raise PolicyError("answered with complex or masked numbers, expected plain ones")
            try:  # here, since what was answered may run code of the policy when it is read
                return np.asarray(answer, dtype=np.float32)
            except (TypeError, ValueError, RuntimeError):
                return answer  # check_actions says what is wrong with it

    def run_notes(self) -> tuple[str, ...]:
        """What the policy has to tell of a run; nothing for most, which have no such method."""
        found = getattr(type(self._policy), "run_notes", None)
        if found is None:
            return ()
        with self.guard.blamed("run_notes"):
            return tuple(map(str, found(self._policy)))

    def close(self) -> None:
        with self.guard.blamed("close"):
            self._policy.close()


def guarded(policy: Policy, limit_s: float | None = None) -> Guarded:
    """``policy`` within a guard, its own if it has one. limit_s: seconds for a call, if given."""
    found = policy if isinstance(policy, Guarded) else Guarded(policy)
    check_limit(limit_s)
    if getattr(policy, "watches_itself", False):
        found.guard.limit_s = None
    elif limit_s is not None:
        found.guard.limit_s = limit_s
    return found


def too_late(policy: str, what: str, limit_s: float) -> str:
    """The sentence for a call that lasted too long."""
    return (
        f"policy {policy} did not answer within {limit_s:g} s ({what}); look whether it hangs, or "
        "give more with --policy-timeout"
    )


def words(error: BaseException) -> str:
    """``error`` as "ValueError: its text", of bounded length, whatever its class does."""
    try:
        text = str(error)
    except Exception as failure:
        text = f"(its text cannot be read: {type(failure).__name__})"
    if len(text) > MOST_WORDS:
        text = f"{text[:MOST_WORDS]}... ({len(text)} characters)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
