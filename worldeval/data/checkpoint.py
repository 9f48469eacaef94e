"""The one form in which learned things are kept: ``config.json`` + safetensors shards + hashes.

A checkpoint folder holds ``config.json`` (kind, configuration, sha256 and size of each shard) and
``weights-00000.safetensors`` ... of at most 16 MiB. It is written beside its place and renamed, so
a kill leaves the old or the new one. Nothing is ever unpickled. Tensors cross this border as numpy
arrays, so no torch is needed to read or verify a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.errors import CheckpointError

SHARD_BYTES = 16 * 2**20 - 2**17  # leaves room for the safetensors header below 16 MiB
FORMAT = "worldeval-checkpoint-1"


def save(
    folder: str | Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint of ``kind`` atomically and return its folder.

    tensors: name -> array (float32, float16 or int64), each below the size of a shard.
    card: free JSON about how it was made, kept under ``card``.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        shards = []
        for number, names in enumerate(_pack(tensors)):
            path = staging / f"weights-{number:05d}.safetensors"
            save_file({n: np.ascontiguousarray(tensors[n]) for n in names}, path)
            path.chmod(0o644)  # safetensors makes it private to whoever trained it
            shards.append(
                {"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
            )
        header = {
            "format": FORMAT,
            "kind": kind,
            "config": dict(config),
            "shards": shards,
            "card": dict(card or {}),
        }
        (staging / "config.json").write_text(json.dumps(header, indent=1) + "\n")
        previous = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            for extra in folder.iterdir():  # a card or optimiser state laid beside the weights
                if extra.name != "config.json" and not extra.name.startswith("weights-"):
                    target = staging / extra.name
                    copy = shutil.copytree if extra.is_dir() else shutil.copy2
                    copy(extra, target)
            os.replace(folder, previous)
        os.replace(staging, folder)
        shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint {folder}: {error.strerror or error}; "
            "free some space or choose another folder"
        ) from error
    return folder


def load(folder: str | Path, *, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a checkpoint after checking its kind and every shard's hash.

    Returns (config, tensors). Raises CheckpointError naming what is missing or damaged.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    header = read_header(folder)
    if header["kind"] != kind:
        raise CheckpointError(
            f"{folder} holds a {header['kind']!r} checkpoint, expected {kind!r}; "
            "give the folder of the right kind"
        )
    tensors: dict[str, np.ndarray] = {}
    for shard in header["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; fetch the checkpoint again")
        size = path.stat().st_size
        if size != shard["bytes"]:
            raise CheckpointError(
                f"{path} has {size} bytes, expected {shard['bytes']}: it is truncated or was "
                "changed; fetch the checkpoint again"
            )
        if _sha256(path) != shard["sha256"]:
            raise CheckpointError(
                f"{path} does not match its sha256 {shard['sha256'][:12]}...: it is damaged; "
                "fetch the checkpoint again"
            )
        tensors.update(load_file(path))
    return header["config"], tensors


def read_header(folder: str | Path) -> dict[str, Any]:
    """The checkpoint's ``config.json`` without reading any weights."""
    path = Path(folder) / "config.json"
    try:
        header = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(
            f"no checkpoint at {folder} (there is no config.json); give a folder that "
            "`worldeval train` wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; fetch it again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a worldeval checkpoint (format is {header.get('format')!r}, expected "
            f"{FORMAT!r})"
            if isinstance(header, dict)
            else f"{path} is not a JSON object"
        )
    return header


def digest(folder: str | Path) -> str:
    """A short name for exactly these weights, recorded beside every result made with them."""
    header = read_header(folder)
    joined = "".join(shard["sha256"] for shard in header["shards"])
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def _pack(tensors: Mapping[str, np.ndarray]) -> list[list[str]]:
    packs: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, tensor in tensors.items():
        if tensor.nbytes > SHARD_BYTES:
            raise CheckpointError(
                f"tensor {name!r} has {tensor.nbytes} bytes, more than a shard of {SHARD_BYTES}"
            )
        if tensor.nbytes > room:
            packs.append([])
            room = SHARD_BYTES
        packs[-1].append(name)
        room -= tensor.nbytes
    return packs


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
