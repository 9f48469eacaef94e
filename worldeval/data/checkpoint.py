"""The one form in which learned things are kept: ``config.json`` + safetensors shards + hashes.

A checkpoint folder holds ``config.json`` (kind, configuration, sha256 and size of each shard) and
``weights-00000.safetensors`` ... of at most 16 MiB. A checkpoint that replaces another takes other
names for its shards (``weights-00000b...``, and back) and exists once its ``config.json`` stands in
place of the old one: a kill leaves the old or the new one, and what else lies in the folder is left
alone. Nothing is ever unpickled. Tensors cross this border as numpy arrays, so no torch is needed
to read or verify a checkpoint; only ``stream``, for models of gigabytes, gives torch's. ``save``
takes either and holds one shard at a time, ``stream`` one tensor.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.data.atomic import write_atomically
from worldeval.data.files import load_json
from worldeval.data.finite import finite, not_finite
from worldeval.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 16 * 2**20 - 2**17  # leaves room for the safetensors header below 16 MiB
LARGE_SHARD_BYTES = 512 * 2**20
"""For models of gigabytes, whose tensors may be larger than a usual shard."""
FORMAT = "worldeval-checkpoint-1"
_FILE = re.compile(r"[\w-][\w.-]{0,120}")
"""A plain name: no folder, nothing hidden, nothing that a terminal obeys."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def save(
    folder: str | Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Any] | Iterable[tuple[str, Any]],
    card: Mapping[str, Any] | None = None,
    robot: Mapping[str, Any] | None = None,
    shard_bytes: int | None = None,
) -> Path:
    """Write a checkpoint of ``kind`` atomically and return its folder.

    tensors: name -> array, numpy's (float32, float16 or int64) or torch's, each below the size of a
        shard; or pairs, which are then taken one by one as there is room for them.
    card: free JSON about how it was made, kept under ``card``.
    robot: the whole robot that it was made for (``robots.robot_as_json``), beside the
        configuration: no digest depends on it. ``data/fit.py`` reads it.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    pairs = tensors.items() if isinstance(tensors, Mapping) else tensors
    earlier = _shards_of(folder)
    series = "b" if "weights-00000.safetensors" in earlier else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_shards(folder, but=earlier)  # what a kill left
        shards: list[dict[str, Any]] = []
        for number, some in enumerate(_packs(pairs, shard_bytes or SHARD_BYTES)):
            path = folder / f"weights-{number:05d}{series}.safetensors"
            write_atomically(path, partial(_write_shard, some))
            some.clear()  # while the next one fills up
            path.chmod(0o644)  # safetensors makes it private to whoever trained it
            shards.append(
                {"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
            )
        header = {
            "format": FORMAT,
            "kind": kind,
            "config": dict(config),
            "shards": shards,
            "card": finite(dict(card or {})),
            **({} if robot is None else {"robot": dict(robot)}),
        }
        text = json.dumps(header, indent=1) + "\n"
        write_atomically(folder / "config.json", lambda path: _write(path, text))
        _remove_shards(folder, but=[shard["file"] for shard in shards])
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk
        with suppress(OSError):
            _remove_shards(folder, but=earlier)
        raise CheckpointError(
            f"cannot write the checkpoint {folder}: {getattr(error, 'strerror', None) or error}; "
            "free some space or choose another folder"
        ) from error
    except BaseException:  # an error of whoever makes the tensors, or Ctrl-C
        with suppress(OSError):
            _remove_shards(folder, but=_shards_of(folder))
        raise
    return folder


def load(folder: str | Path, *, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a checkpoint after checking its kind and every shard's hash.

    Returns (config, tensors). Raises CheckpointError naming what is missing or damaged.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    header = read_header(folder, kind=kind)
    tensors: dict[str, np.ndarray] = {}
    for shard in header["shards"]:
        path = _checked(folder, shard)
        with _readable(path):
            found = load_file(path)
        _no_tensor_twice(path, tensors, found)
        tensors.update(found)
    return header["config"], tensors


def stream(folder: str | Path, *, kind: str, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, torch tensor) one by one, of those whose names begin with ``prefix``, without it.

    Shards that hold none of them are neither read nor checked.
    """
    from safetensors import safe_open

    folder = Path(folder)
    for shard in read_header(folder, kind=kind)["shards"]:
        path = _present(folder, shard)
        with _readable(path):
            file = safe_open(path, framework="pt")
        with file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            if names:
                _checked(folder, shard)
            for name in names:
                with _readable(path):
                    tensor = file.get_tensor(name)
                yield name.removeprefix(prefix), tensor


def checked_shards(folder: str | Path) -> list[Path]:
    """The files of a checkpoint's weights, each compared with its recorded sha256."""
    folder = Path(folder)
    return [_checked(folder, shard) for shard in read_header(folder)["shards"]]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Wraps the reading of a shard: its header is compared with its length before any allocation,
    and no other format, a pickle least of all, is ever tried."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path} holds no weights that can be read here, expected safetensors of float32, "
            f"float16 or whole numbers ({type(error).__name__}: {reason}); fetch the checkpoint "
            "again"
        ) from error


def _no_tensor_twice(path: Path, before: Collection[str], found: Collection[str]) -> None:
    twice = [name for name in found if name in before]
    if twice:
        raise CheckpointError(
            f"{path} holds {twice[0]!r}, which an earlier shard holds too; fetch the checkpoint "
            "again"
        )


def _present(folder: Path, shard: Mapping[str, Any]) -> Path:
    """The shard's file if it is there in full length, and in the checkpoint's own folder."""
    path = folder / shard["file"]
    if path.is_symlink() and path.resolve().parent != folder.resolve():
        raise CheckpointError(
            f"{path} is a link to {path.resolve()}, outside of the checkpoint, where somebody else "
            "may change it; put the file itself there (cp -L)"
        )
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; fetch the checkpoint again")
    size = path.stat().st_size
    if size != shard["bytes"]:
        raise CheckpointError(
            f"{path} has {size} bytes, expected {shard['bytes']}: it is truncated or was "
            "changed; fetch the checkpoint again"
        )
    return path


def _checked(folder: Path, shard: Mapping[str, Any]) -> Path:
    """The shard's file if it is what was written."""
    path = _present(folder, shard)
    if _sha256(path) != shard["sha256"]:
        raise CheckpointError(
            f"{path} does not match its sha256 {shard['sha256'][:12]}...: it is damaged; "
            "fetch the checkpoint again"
        )
    return path


def read_header(folder: str | Path, *, kind: str | None = None) -> dict[str, Any]:
    """The checkpoint's ``config.json`` without reading any weights; kind: the one expected."""
    path = Path(folder) / "config.json"
    try:
        header = load_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"no checkpoint at {folder} (there is no config.json); give a folder that "
            "`worldeval train` wrote"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be read: {reason}; fetch it again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a worldeval checkpoint (format is {header.get('format')!r}, expected "
            f"{FORMAT!r}); give a folder that `worldeval train` wrote"
            if isinstance(header, dict)
            else f"{path} is not a JSON object; fetch the checkpoint again"
        )
    for name, expected in (("kind", str), ("config", dict), ("shards", list), ("card", dict)):
        if not isinstance(header.get(name), expected):
            raise CheckpointError(
                f"{path} is damaged: {name} is {repr(header.get(name))[:80]}, expected a "
                f"{expected.__name__}; fetch the checkpoint again"
            )
    if kind is not None and header["kind"] != kind:
        raise CheckpointError(
            f"{folder} holds a {header['kind']!r} checkpoint, expected {kind!r}; "
            "give the folder of the right kind"
        )
    if wrong := not_finite(header["config"]):
        raise CheckpointError(
            f"{path} is damaged: config.{wrong} is no finite number; fetch the checkpoint again"
        )
    _check_shards(path, header["shards"])
    return header


def _check_shards(path: Path, shards: list[Any]) -> None:
    """Whether every shard is a file of this folder, with a length and a hash."""
    names = []
    for number, shard in enumerate(shards):
        fields = shard if isinstance(shard, dict) else {}
        name, size, sha256 = (fields.get(field) for field in ("file", "bytes", "sha256"))
        if not (
            isinstance(name, str)
            and _FILE.fullmatch(name)
            and type(size) is int
            and isinstance(sha256, str)
            and _SHA256.fullmatch(sha256)
        ):
            raise CheckpointError(
                f"{path} is damaged: shards[{number}] is {repr(shard)[:120]}, expected the name of "
                "a file in this folder, its bytes and its sha256; fetch the checkpoint again"
            )
        names.append(name)
    if len(set(names)) != len(names):
        raise CheckpointError(
            f"{path} is damaged: it names a file of shards twice; fetch the checkpoint again"
        )


@contextmanager
def fitting(folder: str | Path) -> Iterator[None]:
    """Wraps the making of a model from a checkpoint, whose settings or weights may not fit it."""
    try:
        yield
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(
            f"the checkpoint {folder} does not fit this version of worldeval ({reason}); fetch it "
            "again or train it anew"
        ) from error


def digest(folder: str | Path, *, settings: bool = False) -> str:
    """A short name for exactly these weights, recorded beside every result made with them.

    settings: and for what the checkpoint was configured to, where the same weights mean something
        else under another configuration.
    """
    header = read_header(folder)
    joined = "".join(shard["sha256"] for shard in header["shards"])
    joined += json.dumps(header["config"], sort_keys=True) if settings else ""
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def _shards_of(folder: Path) -> list[str]:
    """Names of the shards of the checkpoint in ``folder``; none if there is no whole one."""
    try:
        return [shard["file"] for shard in read_header(folder)["shards"]]
    except CheckpointError:
        return []


def _remove_shards(folder: Path, *, but: Collection[str]) -> None:
    for path in folder.glob("weights-*"):
        if path.name not in but:
            path.unlink()


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _write_shard(tensors: Mapping[str, Any], path: Path) -> None:
    arrays = {n: np.ascontiguousarray(t) for n, t in tensors.items() if isinstance(t, np.ndarray)}
    if len(arrays) == len(tensors):
        from safetensors.numpy import save_file

        save_file(arrays, path)
    else:
        from safetensors.torch import save_file as save_torch_file

        save_torch_file({name: t.contiguous() for name, t in tensors.items()}, path)


def _packs(pairs: Iterable[tuple[str, Any]], shard_bytes: int) -> Iterator[dict[str, Any]]:
    """Tensors by the shard, in their order; an empty checkpoint has one empty shard."""
    pack: dict[str, Any] = {}
    room = shard_bytes
    for name, tensor in pairs:
        if tensor.nbytes > shard_bytes:
            raise CheckpointError(
                f"tensor {name!r} has {tensor.nbytes} bytes, more than a shard of {shard_bytes}"
            )
        if tensor.nbytes > room:
            yield pack
            pack, room = {}, shard_bytes
        pack[name] = tensor
        room -= tensor.nbytes
    yield pack


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
