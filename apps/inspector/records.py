"""What the index tells: evaluations and rollouts, each with an identifier that is no path."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluation found under a run root."""

    id: str
    name: str
    """Its folder, below the run root."""
    folder: Path
    begun: float
    changed: float
    """Seconds since the epoch of the first and the newest rollout."""
    policies: int
    rollouts: int
    expected: int
    """Rollouts when it is finished; 0 where nothing says."""
    judged: int
    decided: int
    """Rollouts with success or failure, by a judge or the world itself."""
    stamp: str
    """Changes with any of its files that a ranking is made from."""
    note: str
    """What is wrong with it, in a sentence; empty if nothing."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One rollout, as the index knows it; what is unknown is None."""

    id: str
    run: str
    store: Path
    episode: int
    """Its number in the store, for ``EpisodeStore.trajectory`` and ``frames``."""
    key: str
    policy: str
    task: str
    start_id: str
    world: str
    instruction: str
    seed: int | None
    length: int
    """Frames."""
    outcome: str
    """success, failure, undecided, error; "unjudged" where no judge has looked."""
    probability: float | None
    judge: str
    reason: str
    frames: str
    """Numbers of the frames that the judge looked at, with spaces between."""
    trusted: bool | None
    trust: float | None
    """1 minus the distrust, in [0, 1]."""
    true_outcome: str | None
    error: str


COLUMNS = [field.name for field in fields(Rollout)]


def identifier(*parts: object) -> str:
    """The name of a thing in URLs: the same for the same files, and no path."""
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def run_of(row: sqlite3.Row) -> Run:
    return Run(**{**dict(row), "folder": Path(row["folder"])})


def rollout_of(row: sqlite3.Row) -> Rollout:
    trusted = row["trusted"]
    values = {**dict(row), "store": Path(row["store"])}
    return Rollout(**{**values, "trusted": None if trusted is None else bool(trusted)})
