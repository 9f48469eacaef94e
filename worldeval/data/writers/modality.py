"""``modality.json``: which numbers of a dataset are an arm and which a gripper, for GR00T.

GR00T (data_preparation.md of Isaac-GR00T) wants, beside a v2.1 dataset, the places of each part in
``observation.state`` and ``action``, short names for the views, and where the instruction stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worldeval.data.writers.lerobot_rows import ANNOTATION, RowForm


def modality(form: RowForm) -> dict[str, Any]:
    """What ``modality.json`` says of a dataset of this form."""
    features = form.features()
    action = "actions" if "actions" in features else "action"
    return {
        "state": parts(features["observation.state"]["names"]),
        "action": {
            name: {**place, **({} if action == "action" else {"original_key": action})}
            for name, place in parts(features[action]["names"]).items()
        },
        "video": {view: {"original_key": key} for view, key in form.spelling.views.items()},
        "annotation": {ANNOTATION.removeprefix("annotation."): {}},
    }


def parts(names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Runs of numbers that move a gripper, and of those that do not: "arm", "gripper", "arm_2"."""
    runs: list[tuple[str, int, int]] = []
    for place, name in enumerate(names):
        kind = "gripper" if "grip" in name.lower() else "arm"
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, runs[-1][1], place + 1)
        else:
            runs.append((kind, place, place + 1))
    found: dict[str, dict[str, int]] = {}
    for kind, start, end in runs:
        number = 1 + sum(name.partition("_")[0] == kind for name in found)
        found[kind if number == 1 else f"{kind}_{number}"] = {"start": start, "end": end}
    return found
