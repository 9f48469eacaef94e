"""The cache of latents: what was put in comes out, whole or not at all."""

import json
import os

import numpy as np
import pytest
import torch

from worldeval.data.checkpoint import digest
from worldeval.errors import CheckpointError, DataError, MismatchError, StoreError
from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig
from worldeval.world_model.latents import LatentCache, encoder_digest, open_encoder


def latents(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 3, 4, 6, 10)).astype(np.float32)


def test_latents_come_back_mapped_and_read_only(tmp_path):
    cache = LatentCache(tmp_path, "svd")
    assert cache.space() is None and "train/1" not in cache and not cache.root.exists()
    given = {key: latents(n, n) for n, key in ((5, "train/1"), (7, "a key/with: signs"))}
    for key, array in given.items():
        cache.write(key, array, source="published")
    for key, array in given.items():
        assert key in cache
        read = cache.read(key, frames=len(array))
        assert isinstance(read, np.memmap) and not read.flags.writeable
        assert read.dtype == np.float16 and np.array_equal(read, array.astype(np.float16))
    assert cache.space() == {"dtype": "float16", "shape": [3, 4, 6, 10], "source": "published"}
    assert cache.missing(["train/1", "train/2"]) == ["train/2"]


def test_float32_loses_nothing(tmp_path):
    cache = LatentCache(tmp_path, "svd")
    cache.write("one", latents(4), dtype="float32")
    assert np.array_equal(cache.read("one"), latents(4))


def test_the_index_names_the_files(tmp_path):
    cache = LatentCache(tmp_path, "svd")
    cache.write("one", latents(4))
    cache.write_index(["one", "never written"])
    index = json.loads((cache.root / "index.json").read_text())
    assert list(index) == ["one"] and index["one"]["frames"] == 4
    assert np.array_equal(np.load(cache.root / index["one"]["file"]), cache.read("one"))


def test_spaces_lie_beside_each_other(tmp_path):
    svd, own = LatentCache(tmp_path, "svd"), LatentCache(tmp_path, "abc123")
    svd.write("one", latents(4))
    assert "one" not in own
    own.write("one", latents(4)[:, :, :2])
    assert own.read("one").shape == (4, 3, 2, 6, 10) and svd.read("one").shape[2] == 4
    with pytest.raises(DataError, match=r"'\.\./else'"):
        LatentCache(tmp_path, "../else")


@pytest.mark.parametrize(
    ("array", "settings", "error", "words"),
    [
        (latents(4)[:, :2], {}, MismatchError, r"\[2, 4, 6, 10\]"),
        (latents(4), {"dtype": "float32"}, MismatchError, "float32"),
        (latents(4), {"dtype": "int8"}, DataError, "int8"),
        (latents(4)[0], {}, DataError, "expected \\(T, V, C, h, w\\)"),
        (latents(4) * np.nan, {}, DataError, "NaN"),
        (latents(4) * 1e6, {}, DataError, "too large"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, array, settings, error, words):
    cache = LatentCache(tmp_path, "svd")
    cache.write("one", latents(4))
    with pytest.raises(error, match=words):
        cache.write("two", array, **settings)
    assert "two" not in cache


def test_damage_and_absence_are_named(tmp_path):
    cache = LatentCache(tmp_path, "svd")
    with pytest.raises(StoreError, match="no latents of episode 'one'; run `worldeval prepare`"):
        cache.read("one")
    cache.write("one", latents(4))
    with pytest.raises(StoreError, match="4 latents of episode 'one', which has 5 frames"):
        cache.read("one", frames=5)
    cache.path("one").write_bytes(cache.path("one").read_bytes()[:200])
    with pytest.raises(StoreError, match="cannot be read"):
        cache.read("one")


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    cache = LatentCache(tmp_path, "svd")
    cache.write("one", latents(4))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StoreError, match="No space left"):
            cache.write("one", latents(4, seed=1))
    assert np.array_equal(cache.read("one"), latents(4).astype(np.float16))
    assert [path.suffix for path in cache.path("one").parent.iterdir()] == [".npy"]


def test_an_encoder_works_view_by_view(tmp_path):
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(widths=(8, 8, 8), image_size=(16, 24))).eval()
    model.save(tmp_path)
    encode, name = open_encoder(tmp_path, batch=4)
    assert name == digest(tmp_path) == encoder_digest(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 24, 3), np.uint8)
    result = encode(frames)
    assert result.shape == (3, 2, 8, 2, 3)
    with torch.inference_mode():
        one = torch.from_numpy(frames[2, 1]).permute(2, 0, 1)[None].float() / 127.5 - 1
        assert np.allclose(result[2, 1], model.encode(one)[0].numpy(), atol=1e-5)


def test_no_encoder(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        open_encoder(tmp_path)
