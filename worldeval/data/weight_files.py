"""Where the weights of a policy lie, whoever wrote them: safetensors in a folder, sharded or not.

Enters: a folder (a checkpoint of ours, or as Hugging Face and LeRobot write them) or one
safetensors file. Leaves: ``WeightFiles``: every tensor by name, each read when it is asked for.
Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.data import checkpoint
from worldeval.data.files import read_json, regular_file
from worldeval.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

INDEX = ".safetensors.index.json"
MODEL = "model.safetensors"
"""The name by which Hugging Face and LeRobot call the weights, if other files lie beside them."""

_KINDS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""Types of safetensors, as torch calls them."""


class WeightFiles(Mapping[str, "Tensor"]):
    """The tensors of some safetensors files; one is in memory for as long as it is used.

    Bytes are read, not mapped: pages of a mapped file stay, and models are larger than memory.
    """

    def __init__(self, place: Path, files: list[Path], *, ours: bool = False) -> None:
        """Use ``open``."""
        from safetensors import safe_open

        self.place, self.files, self.ours = place, files, ours
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, str] = {}
        """As safetensors call them: "F32", "BF16", "I64" ..."""
        self._home: dict[str, tuple[Path, int, int]] = {}
        """File of each tensor, and where in it its bytes begin and end."""
        for path in files:
            with _readable(path), safe_open(path, framework="pt") as file:  # checks the header
                head, places = header_of(path)
                for name, (begin, end) in places.items():
                    if name in self._home:
                        raise CheckpointError(
                            f"{path} holds {name!r}, which {self._home[name][0].name} holds too; "
                            "fetch the weights again"
                        )
                    self._home[name] = (path, len(head) + begin, len(head) + end)
                    part = file.get_slice(name)
                    self.shapes[name] = tuple(part.get_shape())
                    self.kinds[name] = str(part.get_dtype())

    @classmethod
    def open(cls, place: str | Path) -> WeightFiles:
        """The weights at ``place``; CheckpointError where there are none or several models."""
        place = Path(place)
        if not place.is_dir():
            return cls(place, [regular_file(place, "safetensors file", error=CheckpointError)])
        if is_ours(place):
            return cls(place, checkpoint.checked_shards(place), ours=True)
        indices = sorted(place.glob(f"*{INDEX}"))
        found = sorted(place.glob("*.safetensors"))
        if len(indices) == 1:
            return cls(place, _indexed(indices[0]))
        if not indices and (place / MODEL).is_file():
            return cls(place, [place / MODEL])
        if not indices and len(found) == 1:
            return cls(place, found)
        names = [path.name for path in (indices or found)]
        raise CheckpointError(
            f"{place} has {'several models ' + str(names) if names else 'no safetensors'}, expected"
            f" a checkpoint of worldeval, one *.safetensors, {MODEL}, or one *{INDEX}; give a "
            "folder of one policy, or the file itself (weights in .bin or .pt are not read: save "
            "them as safetensors)"
        )

    def __getitem__(self, name: str) -> Tensor:
        import torch

        path, begin, end = self._home[name]
        kind = _KINDS.get(self.kinds[name])
        if kind is None:
            raise CheckpointError(
                f"{path}: tensor {name!r} is of type {self.kinds[name]}, expected one of "
                f"{', '.join(_KINDS)}; save the weights in one of these"
            )
        content = bytearray(end - begin)
        with _readable(path), path.open("rb") as file:
            file.seek(begin)
            if file.readinto(content) != len(content):
                raise CheckpointError(f"{path} is truncated; fetch the weights again")
        if not content:
            return torch.empty(self.shapes[name], dtype=getattr(torch, kind))
        return torch.frombuffer(content, dtype=getattr(torch, kind)).reshape(self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._home)

    def __len__(self) -> int:
        return len(self._home)


def is_ours(folder: Path) -> bool:
    """Whether a checkpoint of worldeval lies there."""
    try:
        checkpoint.read_header(folder)
    except CheckpointError:
        text = folder / "config.json"
        # a damaged one of ours is not taken for somebody else's
        if text.is_file() and checkpoint.FORMAT in text.read_text(errors="replace"):
            raise
        return False
    return True


def header_of(path: Path) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A safetensors file up to its first tensor, and where each begins and ends behind that."""
    with path.open("rb") as file:
        length = file.read(8)
        text = file.read(int.from_bytes(length, "little"))
    entries = json.loads(text)
    entries.pop("__metadata__", None)
    return length + text, {name: tuple(e["data_offsets"]) for name, e in entries.items()}


def _indexed(path: Path) -> list[Path]:
    """The shards that an index names, in its folder; CheckpointError if one is missing."""
    index = read_json(path, "index of shards", error=CheckpointError)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise CheckpointError(
            f"{path} has no weight_map from tensors to files; fetch the weights again"
        )
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name:
            raise CheckpointError(f"{path} names the file {name!r} outside of its own folder")
    return [regular_file(path.parent / name, "shard", error=CheckpointError) for name in files]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({' '.join(str(error).split())[:160]}); fetch "
            "the weights again"
        ) from error
