"""A release in miniature: the file layout and tensor names of the published one, made in seconds.

``release`` needs nothing but this repository; the parity tests read the given case instead.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

torch.set_num_threads(1)

UNET = {
    "_class_name": "UNetSpatioTemporalConditionModel",
    "addition_time_embed_dim": 32,
    "block_out_channels": [32, 32, 64, 64],
    "cross_attention_dim": 1024,
    "in_channels": 8,
    "out_channels": 4,
    "layers_per_block": 1,
    "num_attention_heads": [1, 2, 2, 2],
    "projection_class_embeddings_input_dim": 96,
    "sample_size": 96,
}
VAE = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "block_out_channels": [32, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 1,
    "scaling_factor": 0.18215,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "projection_dim": 512,
    "vocab_size": 514,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}


@dataclass(frozen=True)
class Release:
    """Where its three parts are."""

    svd: Path
    clip: Path
    checkpoint: Path

    def copy(self, folder: Path) -> Release:
        """One of its own, to be damaged."""
        shutil.copytree(self.svd.parent, folder, dirs_exist_ok=True)
        return Release(folder / "svd", folder / "clip", folder / "checkpoint.pt")


def describe(root: Path, unet: dict, vae: dict, text: dict) -> Release:
    """Write the folders' descriptions and a tokenizer that knows single bytes."""
    for folder, config in (("svd/unet", unet), ("svd/vae", vae), ("clip", text)):
        (root / folder).mkdir(parents=True)
        (root / folder / "config.json").write_text(json.dumps(config))
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]
    words = [*letters, *(x + "</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    (root / "clip" / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (root / "clip" / "merges.txt").write_text("#version: 0.2\n")
    (root / "clip" / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})
    )
    return Release(root / "svd", root / "clip", root / "checkpoint.pt")


@pytest.fixture(scope="session")
def describe_release():
    """``describe``, for tests."""
    return describe


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Release:
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from worldeval.world_model.ctrl_world.actions import ActionEncoder

    made = describe(tmp_path_factory.mktemp("release"), UNET, VAE, TEXT)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        parts = {
            "unet.": UNetSpatioTemporalConditionModel.from_config(UNET),
            "vae.": AutoencoderKLTemporalDecoder.from_config(VAE),
            "text_encoder.": CLIPTextModelWithProjection(CLIPTextConfig(**TEXT)),
            "action_encoder.": ActionEncoder(7),
            "image_encoder.": torch.nn.Linear(3, 2),
        }
    state = {p + n: t for p, module in parts.items() for n, t in module.state_dict().items()}
    torch.save(state, made.checkpoint)
    for prefix, path in (
        ("unet.", made.svd / "unet" / "diffusion_pytorch_model.safetensors"),
        ("vae.", made.svd / "vae" / "diffusion_pytorch_model.safetensors"),
        ("text_encoder.", made.clip / "model.safetensors"),
    ):
        save_file(dict(parts[prefix].state_dict()), path)
    return made


@pytest.fixture(scope="session")
def imported(release: Release, tmp_path_factory) -> Path:
    """The checkpoint folder that importing ``release`` gives."""
    from worldeval.world_model.ctrl_world.importing import import_ctrl_world

    out = tmp_path_factory.mktemp("imported") / "model"
    return import_ctrl_world(release.svd, release.clip, release.checkpoint, out)
