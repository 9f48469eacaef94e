"""The live worlds of visitors: one for each browser, made when it begins, gone when it is left.

A visitor is known by the cookie of ``guard.py``; nothing that comes from the browser names a world,
so nobody can look at another's or change it. The model's weights are shared and it steps one world
at a time; a visitor who waits for another sees that in the time from key to picture.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np

from worldeval import Drive, Policy, Studio, WorldEvalError

from .context import LiveWorld

MOST_WORLDS = 24
"""At once; the one that was left longest ago goes when another comes."""
IDLE_S = 1800.0
"""A world that nobody has moved for so long goes too."""


@dataclass
class Live:
    """One visitor's world."""

    drive: Drive
    policies: dict[str, Policy] = field(default_factory=dict)
    plan: np.ndarray | None = None
    """Poses (T, P) of a drawn path that are still to be followed."""
    moved: float = field(default_factory=time.monotonic)
    lock: Any = field(default_factory=Lock)


class Worlds:
    """All live worlds of a server."""

    def __init__(self, live: LiveWorld) -> None:
        self._live = live
        self._opening, self._stepping, self._keeping = Lock(), Lock(), Lock()
        self._studio: Studio | None = None
        self._worlds: OrderedDict[str, Live] = OrderedDict()

    @property
    def studio(self) -> Studio:
        """Opened by the first who needs it; the others wait."""
        with self._opening:
            if self._studio is None:
                self._studio = Studio.open(self._live.world_model, starts=self._live.starts)
            return self._studio

    @property
    def policies(self) -> dict[str, str]:
        """Name for the browser -> URI: its end, the whole where another ends or is called so."""
        shipped = self.studio.shipped_policies
        ends = {uri: uri.rstrip("/").rpartition("/")[2] or uri for uri in self._live.policies}
        taken = [*ends.values(), *shipped]
        given = {uri if taken.count(end) > 1 else end: uri for uri, end in ends.items()}
        return {**given, **shipped}

    def begin(self, visitor: str, start: str | None, seed: int) -> Live:
        """A new world in place of the visitor's last one."""
        with self._stepping:
            live = Live(self.studio.drive(start, seed=seed))
        with self._keeping:
            self._worlds[visitor] = live
            self._worlds.move_to_end(visitor)
            now = time.monotonic()
            for name, other in list(self._worlds.items()):
                if len(self._worlds) > MOST_WORLDS or now - other.moved > IDLE_S:
                    del self._worlds[name]
        return live

    def __contains__(self, visitor: str) -> bool:
        return visitor in self._worlds

    @contextmanager
    def of(self, visitor: str, *, steps: bool = True) -> Iterator[Live]:
        """The visitor's world, for them alone; steps: while no other is stepped."""
        with self._keeping:
            live = self._worlds.get(visitor)
            if live is None:
                raise WorldEvalError("your world is no longer open; begin again at a start state")
            self._worlds.move_to_end(visitor)
            live.moved = time.monotonic()
        with live.lock:
            if not steps:
                yield live
                return
            with self._stepping:
                yield live

    def policy(self, live: Live, name: str) -> Policy:
        """A policy of this world's own, by its name in ``policies``."""
        if name not in live.policies:
            known = self.policies
            if name not in known:
                raise WorldEvalError(f"there is no policy of that name; known are {list(known)}")
            live.policies[name] = self.studio.policy(known[name])
        return live.policies[name]
