"""Checkpoints: what was saved comes back, what is damaged is named."""

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
