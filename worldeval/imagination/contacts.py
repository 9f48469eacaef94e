"""Does what is imagined move when it is touched, and only then? Rates against physics.

In: a frame of unknown origin and pictures of the same moment with the object in known places
(``worlds/movable.py``). Out: how far the frame shows the object to have gone; over many motions:

    invented contact = imagined to have moved, of what physics left where it was
    omitted contact  = imagined to have stayed, of what physics moved

    lost             = imagined to be nowhere, which only what lies loose can be; counts in neither

The detector compares the frame with each picture, in the pixels in which the pictures differ, and
takes the one that is most alike; each view counts alike, however near its camera is. Pictures are
seen through the world model's autoencoder, as what is imagined is, so that neither blur nor a faint
pane is taken for a motion. What the detector is worth is measured on true frames, sharp ones and
blurred ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from worldeval.ranking.intervals import wilson_interval

STAYED_M, SEEN_M, MOVED_M = 0.005, 0.02, 0.03
"""In truth: no further is "untouched", as far as the last is "moved"; what lies between counts in
neither rate. In frames: further than the middle one is seen as moved."""
DIFFERENT = 24
"""Of 255: pictures differ in a pixel of which some channel differs by this much."""


def read_travel(frame: np.ndarray, pictures: np.ndarray, travel_m: np.ndarray) -> float:
    """How far (m) the object of ``frame`` (V, H, W, C) uint8 has gone: the travel (N,) of the most
    alike of ``pictures`` (N, V, H, W, C). NaN where the pictures do not differ: nothing to see."""
    shown = pictures.astype(np.int16)
    differs = (shown.max(0) - shown.min(0)).max(-1) >= DIFFERENT
    errors = [
        np.square(seen[mask] - views[:, mask], dtype=np.float64).mean(axis=(1, 2))
        for seen, views, mask in zip(
            frame.astype(np.int16), shown.swapaxes(0, 1), differs, strict=True
        )
        if mask.any()
    ]
    if not errors:
        return float("nan")
    return float(travel_m[int(np.argmin(np.sum(errors, axis=0)))])


@dataclass(frozen=True, kw_only=True)
class Contact:
    """One motion: how far the object truly went, and how far frames show it (NaN: it cannot be
    seen from there; inf: it is nowhere).

    imagined_m: of the imagined frame; sharp_m, blurred_m: of the true frame, for the detector's
    sake. psnr_db: of the imagined frames against the true ones, over the whole motion.
    """

    task: str
    kind: str
    true_m: float
    imagined_m: float
    sharp_m: float
    blurred_m: float
    psnr_db: float

    @property
    def moved(self) -> bool | None:
        """Whether it truly moved; None between the two."""
        if self.true_m <= STAYED_M:
            return False
        return True if self.true_m >= MOVED_M else None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """``count`` of ``of``, with a 95 % interval (Wilson); rate None where there is nothing."""

    count: int
    of: int

    @property
    def rate(self) -> float | None:
        return self.count / self.of if self.of else None

    def to_dict(self) -> dict[str, Any]:
        low, high = wilson_interval(self.count, self.of) if self.of else (None, None)
        return {**asdict(self), "rate": self.rate, "low": low, "high": high}

    def __str__(self) -> str:
        if self.rate is None:
            return "–"
        low, high = wilson_interval(self.count, self.of)
        return f"{100 * self.rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {self.of}"


@dataclass(frozen=True, kw_only=True)
class ContactRow:
    """Motions of one kind (or task): contacts, against physics, whose own rates are 0.

    detector_sharp, detector_blurred: errors of the detector on true frames of these motions.
    """

    name: str
    invented: Rate
    omitted: Rate
    lost: Rate
    detector_sharp: Rate
    detector_blurred: Rate
    psnr_db: float | None

    def to_dict(self) -> dict[str, Any]:
        parts = ("invented", "omitted", "lost", "detector_sharp", "detector_blurred")
        return {
            "name": self.name,
            **{part: getattr(self, part).to_dict() for part in parts},
            "psnr_db": self.psnr_db,
        }


def contact_row(name: str, contacts: Sequence[Contact]) -> ContactRow:
    """Rates over motions; those in which the object cannot be seen count nowhere."""

    def wrong(moved: bool) -> Rate:
        seen = [c for c in contacts if c.moved is moved and np.isfinite(c.imagined_m)]
        return Rate(count=sum((c.imagined_m > SEEN_M) != moved for c in seen), of=len(seen))

    def misread(which: str) -> Rate:
        read = [(getattr(c, which), c.moved) for c in contacts if c.moved is not None]
        known = [(far, moved) for far, moved in read if not np.isnan(far)]
        wrong = [far == np.inf or (far > SEEN_M) != moved for far, moved in known]
        return Rate(count=sum(wrong), of=len(known))

    levels = [c.psnr_db for c in contacts]
    return ContactRow(
        name=name,
        invented=wrong(False),
        omitted=wrong(True),
        lost=Rate(count=sum(c.imagined_m == np.inf for c in contacts), of=len(contacts)),
        detector_sharp=misread("sharp_m"),
        detector_blurred=misread("blurred_m"),
        psnr_db=float(np.mean(levels)) if levels else None,
    )


def contact_rows(contacts: Sequence[Contact], by: str) -> list[ContactRow]:
    """One row a ``by`` ("kind" or "task"), in order of appearance, and one of all."""
    names = dict.fromkeys(getattr(c, by) for c in contacts)
    rows = [contact_row(n, [c for c in contacts if getattr(c, by) == n]) for n in names]
    return [*rows, contact_row("all", contacts)]


@dataclass(frozen=True, kw_only=True)
class GripRow:
    """One task: success with another gripper than the expert's, minus with its own.

    imagined, true: in shares of 1, by a judge and by physics; difference: imagined effect minus
    the true one, which a world that knows contacts has near 0. rollouts: of each gripper.
    """

    task: str
    grip: str
    rollouts: int
    own_imagined: float
    own_true: float
    imagined: float
    true: float

    @property
    def difference(self) -> float:
        return (self.imagined - self.own_imagined) - (self.true - self.own_true)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"difference": self.difference}


def grip_rows(outcomes: Sequence[tuple[str, str, bool, bool]]) -> list[GripRow]:
    """outcomes: (task, grip, success in imagination, success in truth) of motions, "own" among the
    grips of each task."""
    table: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for task, grip, imagined, true in outcomes:
        table.setdefault((task, grip), []).append((imagined, true))
    rates = {key: np.mean(values, axis=0).tolist() for key, values in table.items()}
    return [
        GripRow(
            task=task,
            grip=grip,
            rollouts=len(table[task, grip]),
            own_imagined=rates[task, "own"][0],
            own_true=rates[task, "own"][1],
            imagined=imagined,
            true=true,
        )
        for (task, grip), (imagined, true) in rates.items()
        if grip != "own" and (task, "own") in rates
    ]
