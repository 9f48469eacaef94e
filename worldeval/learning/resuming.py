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
from worldeval.data.files import regular_file
from worldeval.errors import CheckpointError, ConfigError, StoreError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


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


def best_so_far(path: Path, name: str) -> float:
    """The largest value of a metric in a file of metrics; -inf where there is none."""
    if not path.is_file():
        return float("-inf")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return max((row[name] for row in rows if name in row), default=float("-inf"))


def forget_rows_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a kill undid, and the line that it cut.

    They will be taken again, and no step may be reported twice.
    """
    if not path.is_file():
        return
    lines = path.read_text().splitlines()
    kept = [line + "\n" for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        write_atomically(path, lambda temporary: _write(temporary, "".join(kept)))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block has ended: between two steps the state can be
    saved.

    They then strike as ever. Only the main thread can do this; elsewhere they strike at once there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    struck: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        struck.append(number)

    held = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, remember) for number in held}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if struck:
            signal.raise_signal(struck[0])


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


def tensors_of(
    module: nn.Module, averaged: Mapping[str, Tensor], optimizer: Optimizer
) -> dict[str, Tensor]:
    """What a state holds of them, by name; nothing is copied."""
    import torch

    tensors = {f"weights/{name}": t for name, t in module.state_dict().items()}
    tensors |= {f"averaged/{name}": t for name, t in averaged.items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)
    return tensors


def take_over(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    averaged: Mapping[str, Tensor],
    optimizer: Optimizer,
    path: Path,
) -> None:
    """Put the tensors of a state where ``tensors_of`` found them."""
    import torch

    weights = {n[8:]: tensors[n] for n in tensors if n.startswith("weights/")}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} was written by a run of another architecture; choose another --out or "
            f"remove it ({str(error).splitlines()[0]})"
        ) from None
    for name, mean in averaged.items():
        mean.copy_(tensors[f"averaged/{name}"])
    moments: dict[str, list[str]] = {}
    for key in tensors:
        if key.startswith("optimizer/"):
            moments.setdefault(key.split("/", 2)[2], []).append(key)
    for name, parameter in module.named_parameters():
        found = {key.split("/", 2)[1]: tensors[key] for key in moments.get(name, ())}
        if found:
            # moments in the parameter's own memory layout: fused AdamW walks both side by side
            optimizer.state[parameter] = {
                key: t.to(parameter.device)
                if key == "step"
                else torch.empty_like(parameter).detach().copy_(t)
                for key, t in found.items()
            }


def save_state(
    path: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None
) -> None:
    """Write a state for ``load_state``. CheckpointError if the disk refuses; the old one stays."""
    metadata = {} if settings is None else {"settings": json.dumps(settings)}
    try:
        write_atomically(path, lambda temporary: stream_tensors(temporary, tensors, metadata))
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; the previous "
            "state is kept, free some space and run the same command again"
        ) from error


def stream_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, one tensor in main memory at a time.

    The format is the length of a JSON header (uint64), the header, and the bytes of the tensors in
    its order. safetensors' own writer wants all tensors in memory, which for the state of a model
    of 1.5 billion parameters is 24 GiB beside the model's.
    """
    import torch

    kinds = {
        torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32",
        torch.bfloat16: "BF16", torch.float16: "F16", torch.int16: "I16", torch.int8: "I8",
        torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip
    # the widest first, so that each lies at a multiple of its width
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


class StoredTensors(Mapping[str, "Tensor"]):
    """The tensors of a safetensors file, each read when it is asked for."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._names = list(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_state(path: Path) -> tuple[Mapping[str, Tensor], dict[str, Any] | None]:
    """The tensors and settings that ``save_state`` wrote. CheckpointError if damaged."""
    from safetensors import SafetensorError, safe_open

    regular_file(path, "state of a training", error=CheckpointError)
    try:
        file = safe_open(path, "pt")
        settings = (file.metadata() or {}).get("settings")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}), expected the state of a training; remove it to "
            "begin anew, or restore it from a copy"
        ) from error
    return StoredTensors(file), settings and json.loads(settings)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _write(path: Path, text: str) -> None:
    path.write_text(text)
