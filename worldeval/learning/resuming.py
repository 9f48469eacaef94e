"""What lets a training that was stopped go on as if it had not been.

Enters: a ``metrics.jsonl`` and the step to go on from; a step under way; a state. Leaves: a file
that reports every step once, steps that are taken wholly or not at all whatever Ctrl-C does, and a
state on the disk (safetensors) that a kill leaves old or new.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from worldeval.data.atomic import write_atomically
from worldeval.errors import CheckpointError, ConfigError, StoreError

if TYPE_CHECKING:
    from torch import Tensor


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
        write_atomically(path, lambda temporary: _write(temporary, "".join(kept)))


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


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], place: Path) -> None:
    """ConfigError names the first setting that differs from that of the training in ``place``.

    What an older version did not know of is not compared.
    """
    for name, value in now.items():
        if before.get(name, value) != value:
            raise ConfigError(
                f"{place} holds a training with {name} = {before[name]!r}, now it is {value!r}; "
                "use the old value or another folder, or delete that one"
            )


def save_state(
    path: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None
) -> None:
    """Write a state for ``load_state``. CheckpointError if the disk refuses; the old one stays."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Weights may share memory, which safetensors refuses.
    kept = {n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()}
    metadata = None if settings is None else {"settings": json.dumps(settings)}
    try:
        write_atomically(path, lambda temporary: save_file(kept, temporary, metadata))
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk
        raise CheckpointError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; the previous "
            "state is kept, free some space and run the same command again"
        ) from error


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors and settings that ``save_state`` wrote. CheckpointError if damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            settings = (file.metadata() or {}).get("settings")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}), expected the state of a training; remove it to "
            "begin anew, or restore it from a copy"
        ) from error
    return tensors, settings and json.loads(settings)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _write(path: Path, text: str) -> None:
    path.write_text(text)
