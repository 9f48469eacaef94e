"""Importing: all names accounted for, nothing unpickled, nothing half written, little memory."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from worldeval.commands.import_model import ImportCtrlWorld, ImportSvd
from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError
from worldeval.world_model.ctrl_world.autoencoder import SvdAutoencoder
from worldeval.world_model.ctrl_world.config import KIND, POSE_HIGH, POSE_LOW, CtrlWorldConfig
from worldeval.world_model.ctrl_world.importing import (
    account_for,
    import_ctrl_world,
    import_svd,
    open_state_dict,
    read_statistics,
    unwrapped,
)
from worldeval.world_model.ctrl_world.model import CtrlWorld


@pytest.fixture(scope="module")
def state(release) -> dict[str, torch.Tensor]:
    return torch.load(release.checkpoint, weights_only=True)


def bring(release, state, tmp_path, name="other.pt"):
    """Import ``state`` with the release's folders."""
    torch.save(state, tmp_path / name)
    return import_ctrl_world(release.svd, release.clip, tmp_path / name, tmp_path / "out")


def test_every_tensor_comes_over_but_the_image_encoders(imported, state) -> None:
    found = dict(checkpoint.stream(imported, kind=KIND))
    dropped = {name for name in state if name.startswith("image_encoder.")}
    assert len(dropped) == 2 and set(found) == set(state) - dropped
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
    card = checkpoint.read_header(imported)["card"]
    assert card["dropped"] == {"image_encoder.": 2}


def test_the_configuration_tells_what_was_imported(imported) -> None:
    config = CtrlWorldConfig.from_json(checkpoint.read_header(imported)["config"])
    assert config.preset == "published" and config.guidance.high == 2.0
    assert (config.pose_low, config.pose_high) == (POSE_LOW, POSE_HIGH)
    assert config.unet["block_out_channels"] == [32, 32, 64, 64]
    assert (config.frames, config.image_size) == (11, (192, 320))


def test_missing_surplus_and_misshaped_tensors_are_named(release, state, tmp_path) -> None:
    wrong = dict(state)
    del wrong["unet.conv_in.bias"]
    wrong["unet.conv_extra.bias"] = torch.zeros(3)
    wrong["vae.encoder.conv_out.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointError) as caught:
        bring(release, wrong, tmp_path)
    said = str(caught.value)
    assert "1 tensors are missing (unet.conv_in.bias)" in said
    assert "1 are surplus (unet.conv_extra.bias)" in said
    assert "vae.encoder.conv_out.bias is (5,), expected (8,)" in said
    assert not list((tmp_path / "out").glob("*")), "nothing may be written"


def test_long_lists_are_cut(tmp_path) -> None:
    expected = {f"unet.{i}": (1,) for i in range(9)}
    with pytest.raises(CheckpointError, match=r"unet\.3 and 5 more"):
        account_for({}, expected, tmp_path)


def test_another_width_is_said_in_one_word(release, state, tmp_path) -> None:
    other = release.copy(tmp_path / "wide")
    path = other.svd / "unet" / "config.json"
    config = json.loads(path.read_text()) | {"block_out_channels": [64, 64, 128, 128]}
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"another width.*\(32, 8, 3, 3\).*\(64, 8, 3, 3\)"):
        bring(other, state, tmp_path)


def test_nan_weights_are_named_and_leave_the_older_checkpoint(release, state, tmp_path) -> None:
    out = bring(release, state, tmp_path)
    before = checkpoint.digest(out)
    bad = dict(state)
    bad["vae.quant_conv.weight"] = bad["vae.quant_conv.weight"].clone()
    bad["vae.quant_conv.weight"][0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=r"vae\.quant_conv\.weight has NaN"):
        bring(release, bad, tmp_path)
    assert checkpoint.digest(out) == before
    shards = {shard["file"] for shard in checkpoint.read_header(out)["shards"]}
    assert {path.name for path in out.glob("weights-*")} == shards


class Evil:
    """Unpickling it would run a command."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_in_a_pickle_is_never_run(release, tmp_path, form) -> None:
    bomb, path = tmp_path / "bomb", tmp_path / "evil.pt"
    if form == "torch":
        torch.save({"unet.conv_in.bias": Evil(bomb)}, path)
    else:
        path.write_bytes(pickle.dumps({"unet.conv_in.bias": Evil(bomb)}))
    with pytest.raises(CheckpointError, match="could be code, and is not opened"):
        import_ctrl_world(release.svd, release.clip, path, tmp_path / "out")
    assert not bomb.exists()


def test_what_is_no_state_dict_is_described(state, release, tmp_path) -> None:
    torch.save({"model": dict(list(state.items())[:2]), "step": 3}, tmp_path / "nested.pt")
    with pytest.raises(CheckpointError, match=r"dictionary of \['model', 'step'\]"):
        open_state_dict(tmp_path / "nested.pt")
    (tmp_path / "short.pt").write_bytes(release.checkpoint.read_bytes()[:-100_000])
    with pytest.raises(CheckpointError, match=r"short\.pt cannot be read.*truncated"):
        open_state_dict(tmp_path / "short.pt")
    with pytest.raises(CheckpointError, match=r"no file .*absent\.pt"):
        open_state_dict(tmp_path / "absent.pt")


def test_older_forms_are_read_too(tmp_path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.float16)}
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "new.safetensors")
    for name in ("old.pt", "new.safetensors"):
        found = open_state_dict(tmp_path / name)
        assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in found.items())


def test_derived_buffers_of_older_transformers_are_no_surplus(release, state, tmp_path) -> None:
    name = "text_encoder.text_model.embeddings.position_ids"
    out = bring(release, state | {name: torch.arange(77)[None]}, tmp_path)
    assert name not in dict(checkpoint.stream(out, kind=KIND, prefix=""))


def test_incomplete_folders_are_named(release, tmp_path) -> None:
    other = release.copy(tmp_path / "cut")
    (other.clip / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match="no CLIP tokenizer"):
        import_ctrl_world(other.svd, other.clip, other.checkpoint, tmp_path / "out")
    (other.svd / "unet" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"unet.config\.json cannot be read"):
        import_ctrl_world(other.svd, other.clip, other.checkpoint, tmp_path / "out")


def test_statistics_replace_droids(release, tmp_path, capsys) -> None:
    path = tmp_path / "stat.json"
    path.write_text(json.dumps({"state_01": [-1] * 7, "state_99": [2.5] * 7}))
    ImportCtrlWorld(
        svd=release.svd,
        clip=release.clip,
        checkpoint=release.checkpoint,
        out=tmp_path / "out",
        preset="improved",
        statistics=path,
    ).run()
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    config = CtrlWorldConfig.from_json(checkpoint.read_header(tmp_path / "out")["config"])
    assert config.pose_low == (-1.0,) * 7 and config.pose_high == (2.5,) * 7
    assert config.decoding == "views" and config.latent_type == "float32"
    path.write_text(json.dumps({"pose_p01": [-1, 0.5], "pose_p99": [1, 2]}))
    assert read_statistics(path) == ((-1.0, 0.5), (1.0, 2.0))
    for bad in ({"state_01": [0.0], "state_99": 3}, {"pose_p01": [1.0], "pose_p99": [2.0, "x"]}):
        path.write_text(json.dumps(bad))
        with pytest.raises(ConfigError, match="two lists of numbers"):
            read_statistics(path)


def test_a_new_model_from_svd_alone(release, state, tmp_path) -> None:
    """The same seed gives the same action encoder; the rest is what the folders hold."""
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        ImportSvd(svd=release.svd, clip=release.clip, out=folder, seed=seed).run()
    a, b, c = (dict(checkpoint.stream(f, kind=KIND)) for f in folders)
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name])
        own = name.startswith("action_encoder.")
        assert torch.equal(tensor, c[name]) != own
        assert own or torch.equal(tensor, state[name])
    assert checkpoint.read_header(folders[0])["card"]["action_encoder_seed"] == 3
    SvdAutoencoder.load(folders[0])
    assert CtrlWorld.load(folders[0]).config.preset == "improved"


def test_clip_with_both_towers_and_shards_of_svd(release, tmp_path) -> None:
    other = release.copy(tmp_path / "whole")
    text = json.loads((other.clip / "config.json").read_text())
    (other.clip / "config.json").write_text(json.dumps({"text_config": text, "logit_scale": 2.6}))
    tensors = load_file(other.clip / "model.safetensors")
    (other.clip / "model.safetensors").unlink()
    both = tensors | {"vision_model.x": torch.zeros(2), "logit_scale": torch.zeros(())}
    torch.save(both, other.clip / "pytorch_model.bin")
    unet = other.svd / "unet" / "diffusion_pytorch_model"
    names = list(load_file(f"{unet}.safetensors").items())
    for i, part in enumerate((names[:100], names[100:])):
        save_file(dict(part), f"{unet}-{i + 1:05d}-of-00002.safetensors")
    (other.svd / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    out = import_svd(other.svd, other.clip, tmp_path / "out")
    assert "text_encoder.text_projection.weight" in dict(checkpoint.stream(out, kind=KIND))
    (other.svd / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        import_svd(other.svd, other.clip, tmp_path / "again")


FULL_UNET = {
    "_class_name": "UNetSpatioTemporalConditionModel",
    "addition_time_embed_dim": 256,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "in_channels": 8,
    "out_channels": 4,
    "layers_per_block": 2,
    "num_attention_heads": [5, 10, 20, 20],
    "projection_class_embeddings_input_dim": 768,
}
FULL_VAE = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "scaling_factor": 0.18215,
}
FULL_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "num_hidden_layers": 12,
    "projection_dim": 512,
    "vocab_size": 49408,
}
MEASURED = """
import sys
from pathlib import Path
from worldeval.cli import main
code = main(sys.argv[1:])
status = Path("/proc/self/status").read_text()
print("PEAK", int(status.partition("VmHWM:")[2].split()[0]) * 1024)
sys.exit(code)
"""


@pytest.fixture
def large_folder(tmp_path):
    """Emptied at once: pytest would keep it for a while."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.heavy
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="peak memory is read from /proc")
def test_a_release_of_real_size_streams(describe_release, large_folder, capsys) -> None:
    """1.7 G parameters, 6.7 GB twice on disk; the peak is that of a process of its own."""
    from worldeval.world_model.ctrl_world.importing import expected_shapes

    made = describe_release(large_folder / "release", FULL_UNET, FULL_VAE, FULL_TEXT)
    config = CtrlWorldConfig(unet=FULL_UNET, vae=FULL_VAE, text_encoder=FULL_TEXT)
    shapes = expected_shapes(config)
    unet = sum(int(np.prod(s)) for n, s in shapes.items() if n.startswith("unet."))
    assert unet == 1_524_623_082
    # All tensors are windows on one block of random numbers, so that writing takes no memory.
    block = torch.randn(max(int(np.prod(shape)) for shape in shapes.values()), dtype=torch.float32)
    flat = block.numpy()
    state = {
        name: torch.from_numpy(flat[: int(np.prod(shape))]).view(shape)
        for name, shape in shapes.items()
    }
    torch.save(state, made.checkpoint)
    size = made.checkpoint.stat().st_size
    assert size > 6.5e9
    del state, flat, block
    words = ("import", "ctrl-world", "--svd", made.svd, "--clip", made.clip)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, words)]
        + ["--checkpoint", str(made.checkpoint), "--out", str(large_folder / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    peak = int(re.search(r"PEAK (\d+)", done.stdout)[1])
    with capsys.disabled():
        print(f"\ncheckpoint {size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB ({peak / size:.2f}x)")
    assert peak < 1.5 * size
    shards = checkpoint.read_header(large_folder / "out")["shards"]
    assert sum(shard["bytes"] for shard in shards) > 6.5e9


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_are_taken_out_of_what_wrapped_the_model(release, state, tmp_path, prefix) -> None:
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    half = {  # of one part, inside of its name
        name.replace("unet.", f"unet.{prefix}", 1): tensor for name, tensor in state.items()
    }
    for number, tensors in enumerate((wrapped, half)):
        plain = unwrapped(tensors, tmp_path)
        assert list(plain) == list(state), number
        assert all(plain[name] is tensor for name, tensor in state.items())


def test_a_name_in_and_out_of_a_wrapper_must_be_one_tensor(state, tmp_path) -> None:
    name = next(iter(state))
    both = {**state, f"module.{name}": state[name].clone()}
    assert list(unwrapped(both, tmp_path)) == list(state)
    both[f"module.{name}"] = state[name] + 1
    with pytest.raises(CheckpointError, match=r"twice with different numbers.*model\.module"):
        unwrapped(both, tmp_path)
