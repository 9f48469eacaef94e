"""Importing the published release, or Stable Video Diffusion alone, into our checkpoint form.

In: diffusers' folder of Stable Video Diffusion, CLIP's folder, and the release's state dict. Out: a
checkpoint folder (``CtrlWorld.load``, ``SvdAutoencoder.load``). Nothing is unpickled but tensors,
every name is accounted for before anything is written, and tensors stream from the memory-mapped
file one by one. The image encoder of the release is never run and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError
from worldeval.world_model.ctrl_world.actions import (
    ActionEncoder,
    tokenizer_files,
    write_tokenizer,
)
from worldeval.world_model.ctrl_world.config import KIND, CtrlWorldConfig
from worldeval.world_model.ctrl_world.files import SHOWN, open_state_dict, read_json, weights_in
from worldeval.world_model.ctrl_world.model import TOKEN_WIDTH, TOKENIZER

DROPPED = ("image_encoder.",)
DERIVED = ("text_model.embeddings.position_ids",)
"""Buffers that older transformers saved and newer ones make: neither missing nor surplus."""
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What DistributedDataParallel, torch.compile and FSDP put into the names of what they wrap."""
STATISTICS = (("state_01", "state_99"), ("pose_p01", "pose_p99"))
WIDTH_KEYS = {
    "unet.conv_in.weight": "the UNet",
    "vae.encoder.conv_in.weight": "the autoencoder",
    "text_encoder.text_model.final_layer_norm.weight": "the text encoder",
    "action_encoder.action_encode.0.weight": "the action encoder",
}


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
    tensors = unwrapped(open_state_dict(weights), weights)
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
        "unet.": weights_in(svd / "unet", "diffusion_pytorch_model"),
        "vae.": weights_in(svd / "vae", "diffusion_pytorch_model"),
        "text_encoder.": weights_in(clip, "model", "pytorch_model"),
    }
    found: dict[str, Tensor] = {}
    for prefix, paths in sources.items():
        part: dict[str, Tensor] = {}
        for path in paths:
            part.update(unwrapped(open_state_dict(path), path))
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
    """1st and 99th percentiles of poses from the release's ``stat.json`` or our statistics."""
    stats = read_json(path)
    for names in STATISTICS:
        low, high = (_numbers(stats.get(name)) for name in names)
        if low and len(low) == len(high):
            return low, high
    raise ConfigError(
        f"{path} does not hold two lists of numbers named {' or '.join(map(str, STATISTICS))}; "
        "give the stat.json of the release or the statistics.json of `worldeval prepare`"
    )


def _numbers(values: Any) -> tuple[float, ...]:
    """Empty for what is no list of numbers."""
    if not isinstance(values, list) or not all(isinstance(x, int | float) for x in values):
        return ()
    return tuple(map(float, values))


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


def unwrapped(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """By the names that they had before DistributedDataParallel or torch.compile wrapped them.

    A wrapper may stand at any level ("unet.module.conv_in.weight"), on some tensors only, and in
    another one. Raises CheckpointError where two tensors then have one name and are not equal.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        other = plain.get(bare)
        if other is not None and not (other.dtype == tensor.dtype and torch.equal(other, tensor)):
            raise CheckpointError(
                f"{source} holds {bare!r} twice with different numbers, once with a prefix of "
                f"{' or '.join(WRAPPERS)} and once without; save the state dict of the model "
                "inside of its wrapper (model.module, or model._orig_mod)"
            )
        plain[bare] = tensor
    return plain


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
    text = read_json(clip / "config.json")
    poses: dict[str, Any] = {}
    if statistics is not None:
        poses["pose_low"], poses["pose_high"] = read_statistics(statistics)
    vae = read_json(svd / "vae" / "config.json")
    config = CtrlWorldConfig(
        unet=read_json(svd / "unet" / "config.json"),
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


def _derived(name: str) -> bool:
    return name.endswith(DERIVED)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
