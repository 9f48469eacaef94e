"""What a world model believes of motions and contacts, as a markdown text for its model card.

In: ``MotionProbe``s, a ``PhysicsProbe`` or the reason why there is none. Out: tables, with physics
beside each number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from worldeval.imagination.contacts import ContactRow, GripRow
from worldeval.imagination.probe import MotionProbe, to_markdown

if TYPE_CHECKING:  # it needs the simulator, a text does not
    from worldeval.imagination.physics_probe import PhysicsProbe


def probe_report(
    recorded: Sequence[MotionProbe], physics: PhysicsProbe | None, why_not: str = ""
) -> str:
    """All tables. recorded: motions of a store; why_not: why nothing was measured in physics."""
    parts = []
    if recorded:
        parts += ["## Motions of the recordings", _GAIN, to_markdown(recorded)]
    if physics is None:
        parts.append(f"Contacts, grippers and hidden places were not measured: {why_not}.\n")
        return "\n".join(parts)
    parts += [
        "## Is every kind of motion followed alike?",
        f"{_GAIN} In brackets, the simulator's own hand.\n",
        to_markdown(physics.motions),
        "## Contacts",
        "Invented: of what truly stayed, so much is imagined to have moved. Omitted: of what truly "
        "moved, so much is imagined to have stayed. Lost: imagined to be nowhere. In physics all "
        "are 0. Detector: how often it errs about true frames, sharp and blurred.\n",
        _contacts("motion", physics.by_kind),
        _contacts("task", physics.by_task),
        "## The same motion with another gripper",
        "Success, imagined (true). Difference: the imagined effect of the gripper minus the true "
        "one, in points.\n",
        _grips(physics.grips),
        "## Hidden places, and long rollouts",
        "PSNR in dB against the simulator's frames.\n",
        _long(physics),
    ]
    return "\n".join(parts)


_GAIN = (
    "Gain: 1 goes as far as was commanded. Error, by chunk: 0 is exact, 1 as bad as standing still."
)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _contacts(by: str, rows: Sequence[ContactRow]) -> str:
    heads = (by, "invented", "omitted", "lost", "detector, sharp", "blurred", "PSNR, dB")
    return _table(
        heads,
        (
            (
                row.name,
                *map(str, (row.invented, row.omitted, row.lost)),
                *map(str, (row.detector_sharp, row.detector_blurred)),
                "–" if row.psnr_db is None else f"{row.psnr_db:.1f}",
            )
            for row in rows
        ),
    )


def _grips(rows: Sequence[GripRow]) -> str:
    heads = ("task", "gripper", "rollouts", "with the expert's", "with this", "difference")
    return _table(
        heads,
        (
            (
                row.task,
                row.grip,
                str(row.rollouts),
                f"{100 * row.own_imagined:.0f} % ({100 * row.own_true:.0f} %)",
                f"{100 * row.imagined:.0f} % ({100 * row.true:.0f} %)",
                f"{100 * row.difference:+.0f}",
            )
            for row in rows
        ),
    )


def _long(physics: PhysicsProbe) -> str:
    rows: list[tuple[str, str, str]] = []
    if physics.returned_db is not None and physics.ceiling_db is not None:
        ceiling = f"{physics.ceiling_db:.1f} (true frames through the autoencoder)"
        rows.append(("wrist view, out and back", f"{physics.returned_db:.1f}", ceiling))
    rows += [
        (f"chunk {chunk}", f"{imagined:.1f}", f"{repeated:.1f} (repeated first frame)")
        for chunk, imagined, repeated in physics.long_db
    ]
    return _table(("", "imagined", "beside"), rows)
