"""What the player shows beside the pictures of a rollout: curves and events, on its clock.

Enters: an episode of a store (``media.Shown``). Leaves: plain JSON. Curves are named and grouped,
with the frame at which each value stands; events have a frame, a kind and a sentence. What nobody
recorded is absent, never zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .media import Shown

SIGNALS = ("motion", "place", "views", "pose_distance", "blur", "jump")
"""Of ``trust-chunks.parquet``: each about 0 where all is as on true frames, larger where there is
less to believe."""
STRANGE = 1.5
"""A mean signal beyond it is told as a fall of trust."""
MOST_POINTS = 2000


def timeline(what: Shown) -> dict[str, Any]:
    """``{"curves": [...], "events": [...]}`` of one rollout."""
    path = what.store.trajectory(what.episode)
    layout = what.store.layout
    per_frame = layout.steps_per_frame
    curves = []
    for group, wanted in (("pose", False), ("gripper", True)):
        for number, name in enumerate(layout.pose_names):
            if ("gripper" in name) == wanted:
                curves.append(curve(group, name, range(len(path.poses)), path.poses[:, number]))
    actions = path.actions.reshape(-1, path.actions.shape[-1])
    at = [step / per_frame for step in range(len(actions))]
    for number, name in enumerate(layout.action_names):
        curves.append(curve("action", f"{name} (action)", at, actions[:, number]))
    if path.joints is not None:
        for number, name in enumerate(layout.joint_names):
            curves.append(curve("joints", name, range(len(path.joints)), path.joints[:, number]))
    chunks = _chunks(what)
    starts = [float(chunk["step"]) / per_frame for chunk in chunks]
    events = [event(0, "chunk", "start")] if not chunks else []
    for number, (chunk, frame) in enumerate(zip(chunks, starts, strict=True)):
        events.append(event(frame, "chunk", f"chunk {number + 1} begins; the policy is asked"))
        if chunk["retrieved"]:
            names = ", ".join(map(str, chunk["retrieved"]))
            text = f"chunk {number + 1} remembers frame {names}"
            events.append({**event(frame, "memory", text), "frames": chunk["retrieved"]})
    if path.success_at is not None and what.facts.get("success") and path.success_at[1:].any():
        first = 1 + int(np.argmax(path.success_at[1:]))
        events.append(event(first, "success", "the world itself says: solved"))
    trust, fallen = _trust(what, starts, int(what.facts["length"]))
    return {"curves": curves + trust, "events": events + fallen}


def _chunks(what: Shown) -> list[dict[str, Any]]:
    """step and retrieved frames of each chunk, as far as the log can be read."""
    length = int(what.facts["length"])
    try:
        found = json.loads(what.facts.get("chunks") or "[]")
    except (ValueError, TypeError, RecursionError):
        return []
    chunks = []
    for chunk in found if isinstance(found, list) else []:
        step = chunk.get("step") if isinstance(chunk, dict) else None
        if isinstance(step, bool) or not isinstance(step, int | float) or not 0 <= step < 1e9:
            continue
        seen = chunk.get("retrieved")
        seen = seen if isinstance(seen, list) else []
        frames = [f for f in seen if type(f) is int and 0 <= f < length]
        chunks.append({"step": step, "retrieved": frames[:32]})
    return chunks


def _trust(
    what: Shown, starts: Sequence[float], length: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The mean signal of distrust of each chunk as a curve, and where it rises."""
    table = _trust_table(what.store.root / "trust-chunks.parquet", str(what.facts["key"]))
    if table is None:
        return [], []
    names = [name for name in SIGNALS if name in table.columns]
    if not names or "chunk" not in table.columns:
        return [], []
    values = table[names].mean(axis=1).tolist()
    numbers = [int(n) for n in table["chunk"]]
    at = [starts[n] if n < len(starts) else None for n in numbers]
    kept = [(a, v) for a, v in zip(at, values, strict=True) if a is not None]
    if not kept:
        return [], []
    xs, ys = [a for a, _ in kept], [v for _, v in kept]
    drawn = curve("trust", "strangeness", [*xs, length - 1], [*ys, ys[-1]]) | {"step": True}
    events, before = [], 0.0
    for frame, value in kept:
        if value > STRANGE >= before:
            text = f"trust falls: signals {value:.1f} beyond what true frames show"
            events.append(event(frame, "trust", text))
        before = value
    return [drawn], events


def _trust_table(path: Path, key: str) -> Any:
    import pandas as pd

    if not path.is_file():
        return None
    try:
        table = pd.read_parquet(path, filters=[("key", "==", key)])
        return table if len(table) and "key" in table.columns else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def curve(group: str, name: str, at: Iterable[float], values: Iterable[Any]) -> dict[str, Any]:
    """As the player draws it. at: frames, not always whole. Of very many points every n-th."""
    xs, ys = list(at), [_finite(value) for value in values]
    every = -(-len(xs) // MOST_POINTS)
    return {"group": group, "name": name, "at": xs[::every], "values": ys[::every]}


def _finite(value: Any) -> float | None:
    number = float(value)
    return round(number, 5) if math.isfinite(number) else None


def event(frame: float, kind: str, text: str) -> dict[str, Any]:
    """As the player's rail shows it."""
    return {"frame": round(frame, 3), "kind": kind, "text": text}
