"""Does the imagined arm do what was commanded? Gain, following and drift, read from the frames.

In: for each frame the commanded change of the pose and the change that inverse dynamics reads from
the frames, of imagined rollouts and of recordings, (N, P) each in units of the change's spread.
Out: ``MotionProbe``s. A reading is damped by the network's own uncertainty, so it is compared with
the reading of true frames::

    slope = sum(read * commanded) / sum(commanded^2)
    gain  = slope in imagination / slope on true frames

1 is a faithful arm, 0.5 one that goes half the way, 0 one that obeys nothing. Contacts, the
gripper's effect on objects and hidden places need the simulator: ``physics_probe.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from worldeval.errors import DataError

LEAST_SLOPE = 0.1
"""Of the reading on true frames; an axis that is read worse has no gain."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Changes of the pose over N frames: commanded and read (N, P), and the chunk of each (N,)."""

    commanded: np.ndarray
    read: np.ndarray
    chunk: np.ndarray

    def __post_init__(self) -> None:
        shape = np.shape(self.commanded)
        if len(shape) != 2 or np.shape(self.read) != shape or len(self.chunk) != shape[0]:
            raise DataError(
                f"commanded {shape}, read {np.shape(self.read)}, chunk {np.shape(self.chunk)}: "
                f"expected (N, P), (N, P) and (N,)"
            )

    @classmethod
    def joined(cls, parts: Sequence[Motion]) -> Motion:
        return cls(
            commanded=np.concatenate([part.commanded for part in parts]),
            read=np.concatenate([part.read for part in parts]),
            chunk=np.concatenate([part.chunk for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class MotionProbe:
    """One kind of motion (own, another episode's, random).

    gain: by axis; None where the axis did not move, or cannot be read on true frames.
    drift: by chunk, relative error of the read motion: 0 is exact, 1 as bad as standing still.
        None where nothing was commanded.
    physics: gain of the simulator's own hand, where that is known.
    """

    kind: str
    frames: int
    gain: Mapping[str, float | None]
    drift: tuple[float | None, ...]
    physics: Mapping[str, float | None] | None = None

    def to_dict(self) -> dict[str, Any]:
        known = {} if self.physics is None else {"physics": dict(self.physics)}
        values = {k: v for k, v in asdict(self).items() if k != "physics"}
        return values | {"gain": dict(self.gain), "drift": list(self.drift)} | known


def slopes(motion: Motion) -> np.ndarray:
    """(P,) of read on commanded motion through the origin; NaN for an axis that never moved."""
    power = np.square(motion.commanded, dtype=np.float64).sum(axis=0)
    found = np.full(power.shape, np.nan)
    moved = power > 1e-9
    together = (motion.read.astype(np.float64) * motion.commanded).sum(axis=0)
    found[moved] = together[moved] / power[moved]
    return found


def named_slopes(motion: Motion, names: Sequence[str]) -> dict[str, float | None]:
    """``slopes`` by the ``names`` of the axes; None for an axis that never moved."""
    return _named(slopes(motion), names)


def _named(values: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    return {
        name: float(value) if np.isfinite(value) else None
        for name, value in zip(names, values, strict=True)
    }


def probe_motion(
    kind: str,
    imagined: Motion,
    true: Motion,
    names: Sequence[str],
    *,
    physics: Mapping[str, float | None] | None = None,
) -> MotionProbe:
    """``true``: recordings, read by the same network; ``names`` of the P axes; ``physics``: gain
    of the simulator's hand."""
    usual = slopes(true)
    readable = np.nan_to_num(usual) >= LEAST_SLOPE
    gains = np.where(readable, slopes(imagined) / np.where(readable, usual, 1.0), np.nan)
    gain = _named(gains, names)
    read = imagined.read[:, readable] / usual[readable]
    commanded = imagined.commanded[:, readable]
    drift: list[float | None] = []
    for chunk in range(int(imagined.chunk.max(initial=-1)) + 1):
        own = imagined.chunk == chunk
        power = float(np.square(commanded[own], dtype=np.float64).sum())
        error = float(np.square(read[own] - commanded[own], dtype=np.float64).sum())
        drift.append(float(np.sqrt(error / power)) if power > 1e-9 else None)
    return MotionProbe(
        kind=kind, frames=len(imagined.read), gain=gain, drift=tuple(drift), physics=physics
    )


def to_markdown(probes: Sequence[MotionProbe]) -> str:
    """One table: gain by axis (behind it that of the simulator's own hand, where it is known), and
    the error in the first, middle and last chunk that moved."""
    if not probes:
        return "Nothing was probed.\n"
    axes = list(probes[0].gain)
    heads = [
        "motion",
        "frames",
        *(f"gain {axis}" for axis in axes),
        "error first",
        "middle",
        "last",
    ]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for probe in probes:
        moved: list[float | None] = [value for value in probe.drift if value is not None]
        known = moved or [None]
        ends = (known[0], known[len(known) // 2], known[-1])
        shown = [
            _shown(probe.gain[axis]) + _beside(probe.physics, axis, probe.gain[axis])
            for axis in axes
        ]
        shown += [_shown(end) for end in ends]
        lines.append(f"| {probe.kind} | {probe.frames} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _beside(physics: Mapping[str, float | None] | None, axis: str, gain: float | None) -> str:
    true = None if physics is None else physics.get(axis)
    return "" if true is None or gain is None else f" ({true:.2f})"
