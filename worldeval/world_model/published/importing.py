"""Importing the published release, or Stable Video Diffusion alone, into our checkpoint form.

In: diffusers' folder of Stable Video Diffusion, CLIP's folder, and the release's state dict. Out: a
checkpoint folder (``CtrlWorld.load``, ``SvdAutoencoder.load``). Nothing is unpickled but tensors,
every name is accounted for before anything is written, and tensors stream from the memory-mapped
file one by one. The image encoder of the release is never run and is left out.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError
from worldeval.world_model.published.actions import (
    ActionEncoder,
    tokenizer_files,
    write_tokenizer,
)
from worldeval.world_model.published.config import KIND, CtrlWorldConfig
from worldeval.world_model.published.model import TOKEN_WIDTH, TOKENIZER

DROPPED = ("image_encoder.",)
DERIVED = ("text_model.embeddings.position_ids",)
"""Buffers that older transformers saved and newer ones make: neither missing nor surplus."""
WIDTH_KEYS = {
    "unet.conv_in.weight": "the UNet",
    "vae.encoder.conv_in.weight": "the autoencoder",
    "text_encoder.text_model.final_layer_norm.weight": "the text encoder",
    "action_encoder.action_encode.0.weight": "the action encoder",
}
SHOWN = 4


def import_ctrl_world(
    svd: Path,
    clip: Path,
    weights: Path,
    out: Path,
    *,
    preset: str = "published",
    statistics: Path | None = None,
) -> Path:
    """Turn the release into a checkpoint folder ``out``; see ``worldeval import ctrl-world``."""
    config, files = _describe(svd, clip, preset, statistics)
    expected = expected_shapes(config)
    tensors = open_state_dict(weights)
    kept = {n: t for n, t in tensors.items() if not n.startswith(DROPPED) and not _derived(n)}
    account_for(kept, expected, weights)
    card = {
        "imported": str(weights),
        "bytes": weights.stat().st_size,
        "dropped": {p: sum(n.startswith(p) for n in tensors) for p in DROPPED},
        "statistics": str(statistics) if statistics else "DROID, as published",
    }
    return _write(out, config, files, ((n, kept[n]) for n in expected), weights, card)


def import_svd(
    svd: Path,
    clip: Path,
    out: Path,
    *,
    preset: str = "improved",
    statistics: Path | None = None,
    seed: int = 0,
) -> Path:
    """A new model: Stable Video Diffusion's weights and an untrained action encoder."""
    config, files = _describe(svd, clip, preset, statistics)
    expected = expected_shapes(config)
    sources = {
        "unet.": _weights_in(svd / "unet", "diffusion_pytorch_model"),
        "vae.": _weights_in(svd / "vae", "diffusion_pytorch_model"),
        "text_encoder.": _weights_in(clip, "model", "pytorch_model"),
    }
    found: dict[str, Tensor] = {}
    for prefix, paths in sources.items():
        part: dict[str, Tensor] = {}
        for path in paths:
            part.update(open_state_dict(path))
        if prefix == "text_encoder.":  # CLIP's folder may hold its image tower too
            part = {n: t for n, t in part.items() if n.startswith("text_") and not _derived(n)}
        wanted = {n: s for n, s in expected.items() if n.startswith(prefix)}
        part = {prefix + n: t for n, t in part.items()}
        account_for(part, wanted, paths[0])
        found.update(part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ActionEncoder(len(config.pose_low), TOKEN_WIDTH)
    found.update({f"action_encoder.{n}": t for n, t in encoder.state_dict().items()})
    card = {
        "imported": str(svd),
        "action_encoder_seed": seed,
        "statistics": str(statistics) if statistics else "DROID, as published",
    }
    return _write(out, config, files, ((n, found[n]) for n in expected), svd, card)


def read_statistics(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """1st and 99th percentiles of poses from a ``stat.json`` (``state_01`` and ``state_99``)."""
    stats = _read_json(path)
    low, high = stats.get("state_01"), stats.get("state_99")
    fit = isinstance(low, list) and isinstance(high, list) and len(low) == len(high)
    if not fit or not all(isinstance(x, int | float) for x in [*low, *high]):
        raise ConfigError(
            f"{path} does not hold two lists of numbers state_01 and state_99; give the stat.json "
            "of the release or of `worldeval prepare`"
        )
    return tuple(map(float, low)), tuple(map(float, high))


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


def expected_shapes(config: CtrlWorldConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a checkpoint with this configuration."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    with checkpoint.fitting("of the SVD and CLIP folders"), torch.device("meta"):
        parts: dict[str, torch.nn.Module] = {
            "unet.": UNetSpatioTemporalConditionModel.from_config(dict(config.unet)),
            "vae.": AutoencoderKLTemporalDecoder.from_config(dict(config.vae)),
            "text_encoder.": CLIPTextModelWithProjection(CLIPTextConfig(**config.text_encoder)),
            "action_encoder.": ActionEncoder(len(config.pose_low), TOKEN_WIDTH),
        }
    return {
        prefix + name: tuple(tensor.shape)
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def account_for(
    found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], source: Path
) -> None:
    """Raise CheckpointError that names what is missing, surplus or of another shape."""
    missing = [n for n in expected if n not in found]
    surplus = [n for n in found if n not in expected]
    shaped = [n for n in expected if n in found and tuple(found[n].shape) != expected[n]]
    if not missing and not surplus and not shaped:
        return
    wide = next((n for n in WIDTH_KEYS if n in shaped), None)
    if wide is not None and not missing and not surplus:
        raise CheckpointError(
            f"{source} is of another width: {WIDTH_KEYS[wide]}'s {wide} is "
            f"{tuple(found[wide].shape)}, expected {expected[wide]} from the folders' config.json "
            f"and the statistics ({len(shaped)} tensors differ); give the SVD and CLIP folders "
            "that it was trained from"
        )
    faults = []
    if missing:
        faults.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if surplus:
        faults.append(f"{len(surplus)} are surplus ({_some(surplus)})")
    if shaped:
        some = [f"{n} is {tuple(found[n].shape)}, expected {expected[n]}" for n in shaped]
        faults.append(f"{len(shaped)} are of another shape ({_some(some)})")
    raise CheckpointError(
        f"{source} does not fit the SVD and CLIP folders: {'; '.join(faults)}; give the folders "
        "that it was trained from, or a complete checkpoint"
    )


def _describe(
    svd: Path, clip: Path, preset: str, statistics: Path | None
) -> tuple[CtrlWorldConfig, dict[str, bytes]]:
    """The configuration that the folders describe, and the tokenizer's files."""
    text = _read_json(clip / "config.json")
    poses = {}
    if statistics is not None:
        poses["pose_low"], poses["pose_high"] = read_statistics(statistics)
    vae = _read_json(svd / "vae" / "config.json")
    config = CtrlWorldConfig(
        unet=_read_json(svd / "unet" / "config.json"),
        vae=vae,
        text_encoder=text.get("text_config", text),  # CLIP with both towers nests it
        scaling_factor=float(vae.get("scaling_factor", 0.18215)),
        **poses,
    )
    return config.with_preset(preset), tokenizer_files(clip)


def _write(
    out: Path,
    config: CtrlWorldConfig,
    files: dict[str, bytes],
    pairs: Iterator[tuple[str, Tensor]],
    source: Path,
    card: dict[str, Any],
) -> Path:
    hashes = write_tokenizer(out / TOKENIZER, files)
    return checkpoint.save(
        out,
        kind=KIND,
        config=asdict(replace(config, tokenizer=hashes)),
        tensors=_finite(pairs, source),
        card=card,
        shard_bytes=checkpoint.LARGE_SHARD_BYTES,
    )


def _finite(pairs: Iterator[tuple[str, Tensor]], source: Path) -> Iterator[tuple[str, Tensor]]:
    """The same pairs, shown as progress; raises CheckpointError naming weights that are NaN."""
    with tqdm(desc="importing", unit="B", unit_scale=True, mininterval=0.5) as bar:
        for name, tensor in pairs:
            if not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(
                    f"{source}: {name} has NaN or infinite weights; this checkpoint cannot "
                    "imagine anything, take an earlier one"
                )
            yield name, tensor
            bar.update(tensor.nbytes)


def _weights_in(folder: Path, *stems: str) -> list[Path]:
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


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it may be truncated, fetch it again"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); give the "
            "complete folder as it was published"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object; fetch it again")
    return content


def _derived(name: str) -> bool:
    return name.endswith(DERIVED)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
