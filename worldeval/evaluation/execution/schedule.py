"""Which rollouts are made next, and what becomes of those whose worker died.

Enters: units of work in their order, and what came of each. Leaves: the next unit. Nothing here
knows of processes. A unit is handed out again until it is done, so work is done at least once; that
each rollout is kept once is the business of ``parts.py``. Memory does not grow with the number of
units: they come from an iterator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from worldeval.rollout.engine import PATIENCE

LOSSES = 5
"""A rollout during which so many workers died is kept as an error: it may be what kills them."""
MACHINES = 25
"""The same for whole machines, which are taken away for reasons of their own."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Rollouts of one policy, made together. losses: workers that died during it so far, each alone
    or (``machines``) with the machine on which it was."""

    policy: str
    starts: tuple[str, ...]
    losses: int = 0
    machines: int = 0
    proven: bool = False
    """Whether the policy is known to work, so that errors are its rollouts' and are kept."""


@dataclass
class Schedule:
    """The queue. ``given_up``: (policy, start state, why) of rollouts that killed their workers.
    ``failed``: policy -> why, of policies that never worked or are gone."""

    todo: Iterable[Unit]
    given_up: list[tuple[str, str, str]] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._fresh = iter(self.todo)
        self._again: deque[Unit] = deque()
        self._under_way = 0  # units
        self._doubted: dict[str, list[tuple[Unit, Exception]]] = {}
        self._proven: set[str] = set()

    def next(self) -> Unit | None:
        """The next unit; None if there is none, or none before others come back."""
        while True:
            unit = self._again.popleft() if self._again else next(self._fresh, None)
            if unit is None:
                return None
            if unit.policy in self.failed:
                continue
            self._under_way += 1
            return replace(unit, proven=unit.policy in self._proven)

    def done(self, unit: Unit) -> None:
        """All its rollouts are kept: the policy works, so errors that were doubted are its own."""
        self._under_way -= 1
        self._proven.add(unit.policy)
        self._again.extend(one for one, _ in self._doubted.pop(unit.policy, ()))

    def doubtful(self, unit: Unit, error: Exception) -> None:
        """All its rollouts ended in errors and none was kept; is it the policy, or these?"""
        self._under_way -= 1
        if unit.policy in self._proven:
            self._again.append(unit)
            return
        doubted = self._doubted.setdefault(unit.policy, [])
        doubted.append((unit, error))
        if sum(len(one.starts) for one, _ in doubted) >= PATIENCE:
            self.failed[unit.policy] = doubted[0][1]

    def lost(self, unit: Unit, missing: Sequence[str], why: str, *, machine: bool = False) -> None:
        """Its worker died, alone or with its machine. missing: start states whose rollouts are not
        kept. They are begun again one at a time, to find the one that kills."""
        self._under_way -= 1
        losses, machines = unit.losses + (not machine), unit.machines + machine
        last = len(unit.starts) == 1 and (losses >= LOSSES or machines >= MACHINES)
        for start in missing:
            if last:
                self.given_up.append((unit.policy, start, why))
            else:
                self._again.append(
                    Unit(policy=unit.policy, starts=(start,), losses=losses, machines=machines)
                )

    def gone(self, unit: Unit, error: Exception) -> None:
        """The policy is gone for good."""
        self._under_way -= 1
        self.failed.setdefault(unit.policy, error)

    def settle(self) -> bool:
        """When nothing is left: what is still doubted has failed. Whether all is over."""
        if self._under_way or self._again:
            return False
        for policy, doubted in self._doubted.items():
            self.failed.setdefault(policy, doubted[0][1])
        self._doubted = {}
        return True
