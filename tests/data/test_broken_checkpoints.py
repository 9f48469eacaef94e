"""Whatever is wrong with a checkpoint is one sentence, before memory is taken or code is run."""

import hashlib
import json
import os
import pickle
import resource
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from worldeval import shipped
from worldeval.data import checkpoint
from worldeval.errors import CheckpointError
from worldeval.imagination.trust.signals import Trust
from worldeval.judging.loading import load_judge
from worldeval.policies.cloning import behaviour_cloning
from worldeval.policies.joint_adapter import PUBLISHED, AdapterNetwork, LearnedAdapter
from worldeval.world_model.loading import open_codec, open_world_model

WEIGHTS = "weights-00000.safetensors"
SHIPPED = shipped.folder()


def open_trust(folder):
    return Trust.load(folder, SHIPPED / "autoencoder")


OPENERS = {
    "policies/full": behaviour_cloning.load,
    "world-model": lambda folder: open_world_model(folder, SHIPPED / "autoencoder"),
    "autoencoder": open_codec,
    "judge": load_judge,
    "progress": load_judge,
    "trust": open_trust,
}


@pytest.fixture
def copy(tmp_path):
    def make(part="policies/full"):
        return shutil.copytree(SHIPPED / part, tmp_path / "made" / part.replace("/", "-"))

    return make


def edit(folder, change):
    """``change`` the parsed config.json in place."""
    header = json.loads((folder / "config.json").read_text())
    change(header)
    (folder / "config.json").write_text(json.dumps(header))


def seal(folder, data=None, name=WEIGHTS):
    """Let the hash and the length in config.json be those of the shard as it is now."""
    path = folder / name
    if data is not None:
        path.write_bytes(data)
    data = path.read_bytes()
    entry = {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(folder, lambda header: header.update(shards=[entry]))


def change_weights(folder, change):
    header = json.loads((folder / "config.json").read_text())
    for shard in header["shards"]:
        path = folder / shard["file"]
        save_file({n: change(n, np.array(t)) for n, t in load_file(path).items()}, path)
        data = path.read_bytes()
        shard.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "config.json").write_text(json.dumps(header))


def one_nan(name, tensor):
    if tensor.dtype.kind == "f":
        tensor.flat[-1] = np.nan
    return tensor


def refused(opener, folder, *words):
    with pytest.raises(CheckpointError) as error:
        opener(folder)
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    for word in words:
        assert word in text
    return text


@pytest.mark.parametrize("part", OPENERS)
def test_weights_that_are_no_weights(part, copy) -> None:
    folder = copy(part)
    change_weights(folder, lambda n, t: t.astype(np.int8))
    words = ("int8",) if part == "trust" else ("int8", "expected floating-point")
    refused(OPENERS[part], folder, *words)
    shutil.rmtree(folder)
    change_weights(copy(part), one_nan)
    text = refused(OPENERS[part], folder)
    assert "NaN or infinite" in text or "expected finite" in text


def test_weights_in_double_precision_are_as_good_as_any(copy) -> None:
    folder = copy()
    change_weights(folder, lambda n, t: t.astype(np.float64) if t.dtype.kind == "f" else t)
    assert behaviour_cloning.load(folder).spec.name == "full"


def _st(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


ONE = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
FILES = {
    "pickle": pickle.dumps({"w": 1}),
    "empty": b"",
    "header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "overlap": _st(b'{"a":' + ONE + b',"b":' + ONE + b"}", b"0000"),
    "shape": _st(b'{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}', b"0000"),
    "bf16": _st(b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}', b"0000"),
    "no json": _st(b"{" * 50),
    "negative": _st(b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"0000"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_lie_about_themselves(what, copy) -> None:
    folder = copy()
    seal(folder, FILES[what])
    refused(behaviour_cloning.load, folder, WEIGHTS, "safetensors")
    if what != "bf16":  # which torch knows and numpy does not
        with pytest.raises(CheckpointError):
            list(checkpoint.stream(folder, kind=behaviour_cloning.KIND))


SHARDS = {
    "text": ["w"],
    "null": [None],
    "empty": [{}],
    "number": [{"file": 5, "bytes": 1, "sha256": "0" * 64}],
    "no hash": [{"file": WEIGHTS, "bytes": 1}],
    "short hash": [{"file": WEIGHTS, "bytes": 1, "sha256": "x"}],
    "long": [{"file": "a" * 10_000, "bytes": 1, "sha256": "0" * 64}],
    "above": [{"file": "../" + WEIGHTS, "bytes": 1, "sha256": "0" * 64}],
    "elsewhere": [{"file": "/etc/passwd", "bytes": 1, "sha256": "0" * 64}],
    "itself": [{"file": "..", "bytes": 1, "sha256": "0" * 64}],
    "twice": 2 * [{"file": WEIGHTS, "bytes": 1, "sha256": "0" * 64}],
    "true bytes": [{"file": WEIGHTS, "bytes": True, "sha256": "0" * 64}],
    "nul": [{"file": "a\0b", "bytes": 1, "sha256": "0" * 64}],
}


@pytest.mark.parametrize("what", SHARDS)
def test_entries_of_shards_that_are_none(what, copy) -> None:
    folder = copy()
    edit(folder, lambda header: header.update(shards=SHARDS[what]))
    refused(behaviour_cloning.load, folder, "config.json is damaged")
    with pytest.raises(CheckpointError):
        checkpoint.digest(folder)


def test_a_link_out_of_the_folder(copy, tmp_path) -> None:
    folder = copy()
    (folder / WEIGHTS).rename(tmp_path / "elsewhere")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    refused(behaviour_cloning.load, folder, "is a link to", "outside")


def test_a_folder_that_is_itself_a_link(copy, tmp_path) -> None:
    (tmp_path / "link").symlink_to(copy())
    assert behaviour_cloning.load(tmp_path / "link").spec.name


CONFIGS = {
    "deep": ("[" * 100_000, "nest too deeply"),
    "twice": ('{"format": 1, "format": 2}', "'format' twice"),
    "none": ("", "cannot be read"),
    "digits": ('{"a": ' + "1" * 5000 + "}", "cannot be read"),
    "latin": ("\udcff", "cannot be read"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_configuration_that_is_no_json(what, copy) -> None:
    folder = copy()
    text, word = CONFIGS[what]
    (folder / "config.json").write_text(text, errors="surrogateescape")
    refused(behaviour_cloning.load, folder, word)


def test_a_pipe_is_not_waited_for(copy) -> None:
    folder = copy()
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    refused(behaviour_cloning.load, folder, "named pipe")


VALUES = {
    ("name",): (None, "", " ", 5, "a\x1b[31m"),
    ("network", "rate_hz"): ("x", None, float("nan"), True, [15.0], 10**400),
    ("network", "hidden"): (1.5, "192", None, -1, 10**12),
    ("network", "chunk"): (10**12, 0, "8"),
    ("network", "text_buckets"): (10**12, 10**8),
    ("network", "channels"): ([8, 8, 10**12], [16, 32], "abc", 5),
    ("network", "cameras"): ("front", [1, 2], []),
    ("network", "action_high"): ([-5.0, 1.0, 1.0, 1.0], [1e308, 1.0, 1.0, 1.0]),
    ("network", "action_low"): ([0.0], ["a"] * 4, None),
    ("network", "image_size"): ([10**12, 10**12], [64], [64.0, 64.0], [0, 0]),
    ("network", "use_text"): (1, "yes", None),
}


@pytest.mark.parametrize("place", VALUES)
def test_settings_of_a_wrong_kind_or_size(place, copy) -> None:
    folder = copy()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in VALUES[place]:

        def change(header, value=value):
            inner = header["config"]
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value

        edit(folder, change)
        refused(behaviour_cloning.load, folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("world-model", "memory_slots"), ("world-model", "future"),
        ("world-model", "latent_size"), ("world-model", "latent_channels"),
        ("world-model", "backbone.blocks"), ("world-model", "backbone.token_width"),
        ("world-model", "backbone.max_views"), ("world-model", "sampler.steps"),
        ("autoencoder", "latent_channels"), ("autoencoder", "image_size"),
        ("judge", "network.hidden"), ("judge", "network.image_size"),
        ("progress", "network.outputs"), ("progress", "bins"), ("trust", "network.hidden"),
    ],
)  # fmt: skip
def test_sizes_of_a_million_million(part, place, copy) -> None:
    folder = copy(part)

    def change(header):
        inner = header["config"]
        *path, last = place.split(".")
        for key in path:
            inner = inner[key]
        inner[last] = [10**12 for _ in inner[last]] if isinstance(inner[last], list) else 10**12

    edit(folder, change)
    refused(OPENERS[part], folder)


def test_tensors_that_are_missing_or_too_many_are_named(copy) -> None:
    folder = copy()
    tensors = load_file(folder / WEIGHTS)
    left = tensors.pop(sorted(tensors)[0])
    save_file({**tensors, "stranger": left}, folder / WEIGHTS)
    seal(folder)
    refused(behaviour_cloning.load, folder, "1 tensors are missing", "1 are surplus (stranger)")


def test_an_adapter_of_whole_numbers(tmp_path) -> None:
    network = AdapterNetwork(8, PUBLISHED)
    torch.save({n: t.to(torch.int8) for n, t in network.state_dict().items()}, tmp_path / "a.pth")
    refused(LearnedAdapter.load, tmp_path / "a.pth", "int8")
    (tmp_path / "b.pth").write_bytes(os.urandom(100))
    refused(LearnedAdapter.load, tmp_path / "b.pth", "cannot be read as weights")


def test_what_a_card_measured_as_nan_is_kept_as_null(tmp_path) -> None:
    folder = checkpoint.save(
        tmp_path / "m", kind="x", config={}, tensors={}, card={"loss": float("nan")}
    )
    assert checkpoint.read_header(folder)["card"] == {"loss": None}
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("null", "NaN"))
    assert checkpoint.read_header(folder)["card"]  # as older versions wrote it


def test_a_judge_whose_calibration_lost_a_number_gets_no_default(copy) -> None:
    folder = copy("judge")
    edit(folder, lambda header: header["config"]["calibration"].pop("slope"))
    refused(load_judge, folder, "calibration.slope is missing")
