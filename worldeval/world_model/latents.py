"""Latents of a store's episodes, computed or copied once and read by memory mapping.

Enters: the folder of a store, the name of a latent space (``digest``), and latents by episode key.
Leaves: arrays (T+1, V, C, h, w) that the operating system pages in as they are used.

::

    STORE/latents/DIGEST/space.json            type and shape of one frame, what made them
    STORE/latents/DIGEST/index.json            key -> file and frames, for people and other tools
    STORE/latents/DIGEST/ab/abcdef....npy      one an episode, named after a hash of its key

An episode is in the cache once its file has its name, which happens atomically; so a kill loses
what was under way at most, and several processes may write different episodes. ``index.json`` is
rebuilt from what is asked for and never needed for reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.atomic import write_array, write_atomically
from worldeval.data.files import load_json
from worldeval.errors import DataError, MismatchError, StoreError

FOLDER = "latents"
SVD = "svd"
"""Digest of the latent space of Stable Video Diffusion, scaled by 0.18215, as published."""
TYPES = ("float16", "float32")
_SPACE, _INDEX = "space.json", "index.json"


class LatentCache:
    """The latents of one space beside one store."""

    def __init__(self, store_root: str | Path, digest: str) -> None:
        """Nothing is made before the first ``write``."""
        if not digest or not digest.replace("-", "").replace("_", "").isalnum():
            raise DataError(f"latent space {digest!r}: use letters, digits, '_' and '-' only")
        self.digest = digest
        self.root = Path(store_root) / FOLDER / digest

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.path(key).is_file()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    def path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        return self.root / name[:2] / f"{name}.npy"

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` that the cache lacks, in their order."""
        return [key for key in keys if key not in self]

    def space(self) -> dict[str, Any] | None:
        """What every episode has in common: dtype, shape (V, C, h, w), source; None before the
        first is written."""
        try:
            return dict(load_json(self.root / _SPACE))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.root / _SPACE} cannot be read: {error}; delete {self.root} and run "
                "`worldeval prepare` again"
            ) from error

    def read(self, key: str, *, frames: int | None = None) -> np.ndarray:
        """(T+1, V, C, h, w) of episode ``key``, mapped into memory, read-only.

        frames: the length that is expected. Raises StoreError if the episode is missing, damaged
        or of another length.
        """
        path = self.path(key)
        try:
            if path.exists() and not path.is_file():
                raise ValueError("it is no regular file")
            latents: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise StoreError(
                f"{self.root} has no latents of episode {key!r}; run `worldeval prepare` again"
            ) from None
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path} (latents of {key!r}) cannot be read: {error}; delete it and run "
                "`worldeval prepare` again"
            ) from error
        if frames is not None and len(latents) != frames:
            raise StoreError(
                f"{path} has {len(latents)} latents of episode {key!r}, which has {frames} "
                "frames; delete it and run `worldeval prepare` again"
            )
        return latents

    def write(
        self, key: str, latents: np.ndarray, *, dtype: str = "float16", source: str = ""
    ) -> None:
        """Put an episode's latents (T+1, V, C, h, w) in place, atomically.

        Raises DataError for NaN, infinity or values that float16 cannot hold, MismatchError if
        the shape or type differs from that of the others, StoreError if the disk is full.
        """
        if dtype not in TYPES:
            raise DataError(f"latents of type {dtype!r}, expected one of {', '.join(TYPES)}")
        if latents.ndim != 5 or not len(latents):
            raise DataError(
                f"latents of {key!r} have shape {latents.shape}, expected (T, V, C, h, w)"
            )
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(latents, np.dtype(dtype))
        if not np.isfinite(stored).all():
            raise DataError(f"latents of {key!r} have NaN, infinity or values too large: {dtype}")
        space = {"dtype": dtype, "shape": list(latents.shape[1:]), "source": source}
        earlier = self.space()
        if earlier is not None and any(earlier[n] != space[n] for n in ("dtype", "shape")):
            raise MismatchError(
                f"latents of {key!r} are {dtype} {space['shape']}, those in {self.root} "
                f"{earlier['dtype']} {earlier['shape']}; choose another folder or the same settings"
            )
        try:
            if earlier is None:
                _write_json(self.root / _SPACE, space)
            write_array(self.path(key), stored)
        except OSError as error:
            raise StoreError(
                f"cannot write latents to {self.root}: {error.strerror or error}; free some space "
                "or choose another folder, and run the same command again to continue"
            ) from error

    def write_index(self, keys: Iterable[str]) -> None:
        """``index.json`` over those of ``keys`` that are in the cache."""
        index = {
            key: {
                "file": self.path(key).relative_to(self.root).as_posix(),
                "frames": len(self.read(key)),
            }
            for key in keys
            if key in self
        }
        if index:
            _write_json(self.root / _INDEX, index)


Encode = Callable[[np.ndarray], np.ndarray]
"""(T, V, H, W, 3) uint8 -> (T, V, C, h, w) float32."""


def open_encoder(folder: str | Path, device: str = "cpu", batch: int = 16) -> tuple[Encode, str]:
    """The encoder of a checkpoint of kind "autoencoder" or "ctrl-world", and its digest.

    Raises CheckpointError if the checkpoint is missing, damaged or of another kind.
    """
    import torch

    from worldeval.data.video import to_model

    model, digest = _autoencoder(folder)
    model = model.to(device).eval()

    def encode(frames: np.ndarray) -> np.ndarray:
        flat = frames.reshape(-1, *frames.shape[2:])
        parts = []
        with torch.inference_mode():
            for i in range(0, len(flat), batch):
                video = torch.from_numpy(to_model(flat[i : i + batch])).to(device)
                parts.append(model.encode(video).float().cpu().numpy())
        latents = np.concatenate(parts)
        return latents.reshape(*frames.shape[:2], *latents.shape[1:])

    return encode, digest


def encoder_digest(folder: str | Path) -> str:
    """The digest that ``open_encoder`` returns, without reading weights."""
    from worldeval.data import checkpoint

    header = checkpoint.read_header(folder)
    if header["kind"] == "ctrl-world":
        return str(header["config"].get("autoencoder", SVD))
    return checkpoint.digest(folder)


def _autoencoder(folder: str | Path) -> tuple[Any, str]:
    from worldeval.data import checkpoint

    if checkpoint.read_header(folder)["kind"] == "ctrl-world":
        from worldeval.world_model.ctrl_world.autoencoder import SvdAutoencoder

        published = SvdAutoencoder.load(folder)
        return published, published.digest
    from worldeval.world_model.autoencoder import Autoencoder

    return Autoencoder.load(folder), checkpoint.digest(folder)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text)

    write_atomically(path, write)
