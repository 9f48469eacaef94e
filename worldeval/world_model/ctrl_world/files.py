"""Reading what others published: weights without running code, and descriptions.

In: files of torch, safetensors and JSON. Out: memory-mapped tensors by name, and dictionaries; or a
CheckpointError that says what is wrong with the file.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldeval.data.files import load_json
from worldeval.errors import CheckpointError

SHOWN = 4


def open_state_dict(path: Path) -> dict[str, Tensor]:
    """Name -> memory-mapped tensor of a ``.pt``, ``.bin`` or ``.safetensors``; no code is run."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; check the spelling")
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    try:
        with warnings.catch_warnings():  # of pickle protocols, which is ours to judge
            warnings.simplefilter("ignore", UserWarning)
            try:
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
                # as torch wrote before 1.6
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        named = reason.partition("GLOBAL ")[2].split()
        raise CheckpointError(
            f"{path} holds more than tensors"
            + (f" ({named[0]})" if named else "")
            + ", which could be code, and is not opened; ask its author for a plain state dict or "
            "safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read as weights ({' '.join(str(error).split())[:120]}); it may be "
            "truncated, fetch it again"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()
    ):
        kind = (
            f"a dictionary of {[str(n) for n in list(state)[:SHOWN]]}"
            if isinstance(state, dict)
            else f"a {type(state).__name__}"
        )
        raise CheckpointError(
            f"{path} holds {kind}, expected one flat dictionary of tensors (a state dict)"
        )
    return state


def weights_in(folder: Path, *stems: str) -> list[Path]:
    """The files of a model that diffusers or transformers saved: one, or several shards."""
    for stem in stems:
        for name in (f"{stem}.safetensors", f"{stem}.bin", f"{stem}.fp16.safetensors"):
            if (folder / name).is_file():
                return [folder / name]
        shards = sorted(folder.glob(f"{stem}-[0-9]*-of-*.safetensors"))
        if shards:
            return shards
    raise CheckpointError(
        f"{folder} holds no weights ({stems[0]}.safetensors); fetch the folder again"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); give the "
            "complete folder as it was published"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object; fetch it again")
    return content


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it may be truncated, fetch it again"
        ) from error
