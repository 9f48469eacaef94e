"""What lets a training that was stopped go on as if it had not been.

Enters: a ``metrics.jsonl`` and the step to go on from; a step under way; a state. Leaves: a file
that reports every step once, steps that are taken wholly or not at all whatever Ctrl-C does, and a
state on the disk that a kill leaves old or new.
"""

from __future__ import annotations

import io
import json
import pickle
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from worldeval.data.atomic import write_atomically
from worldeval.errors import CheckpointError, StoreError


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON line with a ``step`` to a file of metrics. StoreError if it cannot."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; free some space and run the same "
            "command again, it goes on from the last state"
        ) from error


def forget_rows_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a kill undid, and the line that it cut.

    They will be taken again, and no step shall be reported twice.
    """
    if not path.is_file():
        return
    lines = path.read_text().splitlines()
    kept = [line + "\n" for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        write_atomically(path, lambda temporary: _write(temporary, "".join(kept).encode()))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended: between two steps the state can be saved.

    It then strikes as ever. Only the main thread can do this; elsewhere it strikes at once there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    struck = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal struck
        struck = True

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if struck:
            signal.raise_signal(signal.SIGINT)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and numbers for ``load_state``. CheckpointError if the disk refuses."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)  # in memory first: of a full disk torch says nothing readable
    try:
        write_atomically(path, lambda temporary: _write(temporary, buffer.getvalue()))
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; free some space and run the same "
            "command again, it goes on from the last state"
        ) from error


def load_state(path: Path, device: Any) -> dict[str, Any]:
    """What ``save_state`` wrote; nothing but tensors and plain values is unpickled."""
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}), expected the state of a training; remove "
            "it to begin anew, or restore it from a copy"
        ) from error
    return state


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
