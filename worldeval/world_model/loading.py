"""Opens a world model of any size by its checkpoint folder, with the codec of its latents.

Enters: folders. Leaves: a ``LatentModel`` and its ``LatentCodec`` (``interfaces.py``). The kind
that stands in ``config.json`` says which class reads it; classes are imported only when they are
needed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError
from worldeval.world_model.interfaces import LatentCodec, LatentModel

CTRL_WORLD = "ctrl-world"
"""The kind of checkpoint that brings its autoencoder along."""
MODELS = {"world-model": "model:WorldModel"}
CODECS = {
    "autoencoder": "autoencoder:Autoencoder",
    "latent-decoder": "few_recordings.decoder:LatentDecoder",
}


def open_world_model(
    folder: str | Path,
    autoencoder: str | Path | None = None,
    *,
    preset: str | None = None,
    bfloat16: bool = False,
) -> tuple[LatentModel, LatentCodec]:
    """The model in ``folder`` and its codec, by default that of the sibling folder "autoencoder".

    preset: of a Ctrl-World: "published" or "improved"; None takes what the checkpoint says.
    bfloat16: run a Ctrl-World with weights of that type (on a GPU) instead of as they are stored.
    Raises CheckpointError for a missing, damaged or unknown checkpoint, and for a codec other than
    the one whose latents the model was trained on.
    """
    folder = Path(folder)
    if checkpoint.read_header(folder)["kind"] == CTRL_WORLD:
        return _open_ctrl_world(folder, preset, bfloat16)
    if preset is not None:
        raise ConfigError(
            f"preset is {preset!r}, but {folder} is no imported Ctrl-World; leave preset out"
        )
    model = _load(folder, MODELS)
    codec = Path(autoencoder) if autoencoder else folder.parent / "autoencoder"
    expected, found = model.config.autoencoder, latents_of(codec)
    if expected and expected != found:
        raise CheckpointError(
            f"{folder} was trained on the latents of autoencoder {expected}, but {codec} is of "
            f"{found}; give the autoencoder it was trained with"
        )
    return model, _load(codec, CODECS)


def open_codec(folder: str | Path) -> LatentCodec:
    """What turns latents into frames, from its folder. CheckpointError as above."""
    return _load(Path(folder), CODECS)


def latents_of(codec: Path) -> str:
    """A name for the latents that a codec reads: its digest, or that of the encoder it is for."""
    header = checkpoint.read_header(codec)
    return str(header["config"].get("latents") or checkpoint.digest(codec))


def _open_ctrl_world(
    folder: Path, preset: str | None, bfloat16: bool
) -> tuple[LatentModel, LatentCodec]:
    import torch

    from worldeval.world_model.ctrl_world.autoencoder import SvdAutoencoder
    from worldeval.world_model.ctrl_world.model import CtrlWorld

    model = CtrlWorld.load(folder, torch.bfloat16 if bfloat16 else None)
    codec = SvdAutoencoder.load(folder)
    if preset is not None:
        model.use(model.config.with_preset(preset))
        codec.config = model.config
    if bfloat16:
        codec.to(torch.bfloat16)
    return model, codec


def _load(folder: Path, known: dict[str, str]) -> Any:
    kind = checkpoint.read_header(folder)["kind"]
    if kind not in known:
        raise CheckpointError(
            f"{folder} holds a {kind!r} checkpoint, expected {' or '.join(map(repr, known))}; give "
            "the folder of the right kind"
        )
    module, name = known[kind].split(":")
    return getattr(import_module(f"worldeval.world_model.{module}"), name).load(folder)
