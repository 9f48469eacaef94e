"""What a run tells while it goes on and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from worldeval.types import Outcome, StartState


@dataclass(frozen=True, kw_only=True)
class ChunkEvent:
    """What ``on_chunk`` is told after every chunk of a batch; rows are those that were stepped."""

    policy: str
    starts: tuple[StartState, ...]
    steps: int
    """Control steps since the start."""
    frames: np.ndarray
    """(B, T, V, H, W, C) uint8, the new frames."""
    poses: np.ndarray
    """(B, T, P) float32, the commanded poses at these frames."""
    success: np.ndarray | None
    """(B, T) bool, the world's own flag, or None."""
    info: Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did. ``outcomes`` counts this run's rollouts; ``resumed`` were there before."""

    policy: str
    world: str
    outcomes: dict[str, int]
    """All four, by ``Outcome`` value."""
    resumed: int
    frames: int
    """New frames, the start frames not counted; each has all views."""
    wall_s: float
    seconds: dict[str, float]
    """By part, together ``wall_s``: policy, model (the world, less what it names itself), decode,
    write (waiting for it: it is done beside the rest), and the engine, which is what is left."""
    notes: tuple[str, ...] = ()
    """What the policy says that its user has to know, such as how many numbers were clipped."""

    @property
    def rollouts(self) -> int:
        return sum(self.outcomes.values())

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.wall_s if self.wall_s > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rollouts": self.rollouts, "frames_per_s": self.frames_per_s}

    def __str__(self) -> str:
        before = f" (+ {self.resumed} from before)" if self.resumed else ""
        known = [outcome for outcome in Outcome if outcome.decided]
        # A world without flags knows of none, and nobody has judged them yet: that is no outcome.
        told = known if any(self.outcomes[o.value] for o in known) else []
        counts = [f"{self.outcomes[o.value]} {o.value}" for o in told]
        if errors := self.outcomes[Outcome.ERROR.value]:
            counts.append(f"{errors} ended in an error")
        line = (
            f"{self.policy} in {self.world}: {self.rollouts} rollouts{before}"
            f"{': ' if counts else ''}{', '.join(counts)}; {self.frames_per_s:.1f} frames/s"
        )
        return "\n".join([line, *self.notes])


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run; its text says what is kept and how to go on. ``report`` is so far."""

    def __init__(self, message: str, report: RunSummary) -> None:
        super().__init__(message)
        self.report = report
