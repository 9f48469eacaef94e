"""Checkpoints: what was saved comes back, what is damaged is named."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}


@pytest.fixture
def folder(tmp_path):
    return checkpoint.save(
        tmp_path / "model",
        kind="judge",
        config={"width": 8},
        tensors=TENSORS,
        card={"made": "in a test"},
    )


def test_it_comes_back(folder) -> None:
    config, tensors = checkpoint.load(folder, kind="judge")
    assert config == {"width": 8} and set(tensors) == {"a", "b"}
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and np.array_equal(tensors[name], tensor)
    assert checkpoint.read_header(folder)["card"] == {"made": "in a test"}


def test_shards_stay_small_and_are_all_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 1000)
    tensors = {f"t{i}": np.full(100, i, np.float32) for i in range(7)}
    folder = checkpoint.save(tmp_path / "m", kind="x", config={}, tensors=tensors)
    assert len(list(folder.glob("weights-*"))) == 4  # two of 400 bytes fit into one
    _, back = checkpoint.load(folder, kind="x")
    assert all(np.array_equal(back[name], tensor) for name, tensor in tensors.items())
    with pytest.raises(CheckpointError, match="'big' has 4000 bytes"):
        checkpoint.save(tmp_path / "m", kind="x", config={}, tensors={"big": np.zeros(1000, "f4")})


def test_the_wrong_kind_is_refused(folder) -> None:
    with pytest.raises(CheckpointError, match="'judge' checkpoint, expected 'world-model'"):
        checkpoint.load(folder, kind="world-model")


def test_a_truncated_shard_is_named(folder) -> None:
    shard = folder / "weights-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"weights-00000.*truncated"):
        checkpoint.load(folder, kind="judge")


def test_a_flipped_bit_is_named(folder) -> None:
    shard = folder / "weights-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"weights-00000.*sha256"):
        checkpoint.load(folder, kind="judge")


def test_missing_and_foreign_folders_are_told_apart(folder, tmp_path) -> None:
    (folder / "weights-00000.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        checkpoint.load(folder, kind="judge")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "nowhere", kind="judge")
    (folder / "config.json").write_text('{"format": "other"}')
    with pytest.raises(CheckpointError, match="'other'"):
        checkpoint.load(folder, kind="judge")
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        checkpoint.load(folder, kind="judge")


def test_a_failed_save_leaves_the_old_one(folder, monkeypatch) -> None:
    import safetensors.numpy

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = checkpoint.digest(folder)
    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(folder, kind="judge", config={"width": 9}, tensors=TENSORS)
    assert checkpoint.digest(folder) == before
    assert checkpoint.load(folder, kind="judge")[0] == {"width": 8}


def test_saving_again_replaces_weights_and_keeps_what_lies_beside(folder) -> None:
    (folder / "notes.txt").write_text("mine")
    checkpoint.save(folder, kind="judge", config={"width": 9}, tensors={"c": TENSORS["a"]})
    config, tensors = checkpoint.load(folder, kind="judge")
    assert config == {"width": 9} and set(tensors) == {"c"}
    assert (folder / "notes.txt").read_text() == "mine"
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_kill_between_any_two_steps_of_a_save_leaves_the_old_or_the_new(
    folder, tmp_path, monkeypatch
) -> None:
    (folder / "training").mkdir()
    (folder / "training" / "state").write_text("what to go on from")
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 30)  # two shards
    taken: list[Path] = []

    def watch(function):
        def watched(*args, **kwargs):
            copy = tmp_path / f"snapshot-{len(taken)}"
            taken.append(shutil.copytree(folder, copy))
            return function(*args, **kwargs)

        return watched

    monkeypatch.setattr(os, "replace", watch(os.replace))
    monkeypatch.setattr(Path, "unlink", watch(Path.unlink))
    for width in (9, 10):  # there and back: the names of the shards take turns
        checkpoint.save(folder, kind="judge", config={"width": width}, tensors=TENSORS)
    monkeypatch.undo()
    widths = []
    for copy in [*taken, folder]:
        config, tensors = checkpoint.load(copy, kind="judge")
        widths.append(config["width"])
        assert np.array_equal(tensors["a"], TENSORS["a"])
        assert (copy / "training" / "state").read_text() == "what to go on from"
        checkpoint.save(copy, kind="judge", config={"width": 11}, tensors=TENSORS)
        header = checkpoint.read_header(copy)
        assert len(list(copy.glob("weights-*"))) == len(header["shards"]), "a kill's rests stayed"
    assert widths == sorted(widths) and set(widths) == {8, 9, 10}


@pytest.mark.parametrize("name", ["kind", "config", "shards"])
def test_a_header_that_lost_a_part_is_named(folder, name) -> None:
    header = json.loads((folder / "config.json").read_text())
    del header[name]
    (folder / "config.json").write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match=f"{name} is None, expected a .*fetch"):
        checkpoint.load(folder, kind="judge")


def test_what_does_not_fit_a_model_is_one_sentence() -> None:
    said = "checkpoint here does not fit .*KeyError: 'widths'"
    with pytest.raises(CheckpointError, match=said), checkpoint.fitting("here"):
        raise KeyError("widths")
