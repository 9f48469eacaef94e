"""Interpolation of two policies: exact at its ends, by groups, of ours and of others' files."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from worldeval import cli
from worldeval.commands.merge import read_group
from worldeval.data import checkpoint
from worldeval.data.weight_files import WeightFiles, header_of
from worldeval.errors import CheckpointError, ConfigError, MismatchError, StoreError
from worldeval.learning import merging
from worldeval.learning.merging import Mixture, merge, sweep
from worldeval.policies.cloning import behaviour_cloning
from worldeval.policies.cloning.config import BCConfig
from worldeval.policies.cloning.families import network_of
from worldeval.robots import RobotSpec

HALF = Mixture(alpha=0.5)


def weights(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "head.weight": torch.randn(3, 5, generator=draw),
        "trunk.0.weight": torch.randn(4, 2, generator=draw).to(torch.bfloat16),
        "trunk.1.bias": torch.randn(7, generator=draw).to(torch.float16),
        "trunk.steps": torch.tensor([5]),
        "scale": torch.tensor(2.0 + seed),
        "nothing": torch.zeros(0, 3),
    }


def folder_of(place: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> Path:
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"type": "act"}')
    (place / "tokenizer").mkdir()
    (place / "tokenizer/vocab.txt").write_text("a b c")
    (place / "old.bin").write_bytes(b"pickled")
    if shards == 1:
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
        return place
    names, index = list(tensors), {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        some = names[number::shards]
        save_file({name: tensors[name] for name in some}, place / file, {"format": "pt"})
        index |= dict.fromkeys(some, file)
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return place


def all_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 3), (3, 1)])
def test_files_of_others_are_interpolated_and_the_rest_is_copied(
    tmp_path: Path, first: int, second: int
) -> None:
    one, other = weights(1), weights(2)
    base = folder_of(tmp_path / "base", one, first)
    tuned = folder_of(tmp_path / "tuned", other, second)
    out = merge(base, tuned, tmp_path / "out", Mixture(alpha=0.25))
    found = all_of(out)
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        assert tensor.dtype == one[name].dtype
        wanted = 0.75 * one[name].double() + 0.25 * other[name].double()
        np.testing.assert_allclose(
            tensor.double(),
            wanted,
            rtol=8e-3 if tensor.dtype == torch.bfloat16 else 1e-3,
            atol=2e-3,
        )
    assert (out / "tokenizer/vocab.txt").read_text() == "a b c"
    assert (out / "config.json").is_file()
    assert not (out / "old.bin").exists()  # weights of the base must not lie beside merged ones
    names = sorted(path.name for path in base.glob("*.safetensors*"))
    assert sorted(path.name for path in out.glob("*.safetensors*")) == names
    for path in base.glob("*.safetensors"):
        assert header_of(path) == header_of(out / path.name)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_both_ends_are_the_policies_to_the_bit(tmp_path: Path, alpha: float) -> None:
    base = folder_of(tmp_path / "base", weights(1))
    tuned = folder_of(tmp_path / "tuned", weights(2))
    out = merge(base, tuned, tmp_path / "out", Mixture(alpha=alpha))
    same = tuned if alpha else base
    assert (out / "model.safetensors").read_bytes() == (same / "model.safetensors").read_bytes()


def test_groups_have_shares_of_their_own(tmp_path: Path) -> None:
    one, other = weights(1), weights(2)
    base, tuned = folder_of(tmp_path / "a", one), folder_of(tmp_path / "b", other)
    groups = (("^trunk\\.0", 1.0), ("^trunk", 0.0))
    found = all_of(merge(base, tuned, tmp_path / "out", Mixture(alpha=0.5, groups=groups)))
    assert torch.equal(found["trunk.0.weight"], other["trunk.0.weight"])
    assert torch.equal(found["trunk.1.bias"], one["trunk.1.bias"])
    assert float(found["scale"]) == 3.5
    with pytest.raises(ConfigError, match="group 'views' is found in no tensor"):
        merge(base, tuned, tmp_path / "x", Mixture(groups=(("views", 0.5),)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head.weight": torch.zeros(5, 3)}, r"'head.weight' has shape \(3, 5\) .* and \(5, 3\)"),
        ({"scale": torch.tensor(1.0).double()}, "'scale' has type F32 .* and F64"),
        ({"more": torch.zeros(1)}, "a tensor 'more' that .* lacks"),
        ({"trunk.steps": torch.tensor([6])}, "whole numbers"),
    ],
)
def test_policies_that_are_not_alike_are_refused_with_the_tensor_named(
    tmp_path: Path, change: dict[str, torch.Tensor], said: str
) -> None:
    base = folder_of(tmp_path / "base", weights(1))
    tuned = folder_of(tmp_path / "tuned", {**weights(2), **change})
    with pytest.raises(MismatchError, match=said):
        merge(base, tuned, tmp_path / "out", HALF)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tuned"]


def test_what_nothing_lies_between_is_refused(tmp_path: Path) -> None:
    name = "normalize_inputs.buffer_observation_state.mean"
    base = folder_of(tmp_path / "a", {name: torch.zeros(2)})
    tuned = folder_of(tmp_path / "b", {name: torch.ones(2)})
    with pytest.raises(MismatchError, match="statistics of the base"):
        merge(base, tuned, tmp_path / "out", HALF)
    for number, place in enumerate((base, tuned)):
        save_file({"w": torch.zeros(2)}, place / "model.safetensors")
        save_file({"mean": torch.tensor([number])}, place / "processor_3.safetensors")
    with pytest.raises(MismatchError, match="processor_3.safetensors differs"):
        merge(base, tuned, tmp_path / "out", HALF)
    (tuned / "processor_3.safetensors").write_bytes((base / "processor_3.safetensors").read_bytes())
    assert (merge(base, tuned, tmp_path / "out", HALF) / "processor_3.safetensors").is_file()
    factors = {"q.lora_A.weight": torch.zeros(2, 2)}
    for number in "cd":
        folder_of(tmp_path / number, factors)
    with pytest.raises(MismatchError, match="low-rank factor"):
        merge(tmp_path / "c", tmp_path / "d", tmp_path / "lora", HALF)
    for number in "ef":
        folder_of(tmp_path / number, {"w": torch.tensor([1.0, float("nan")])})
    with pytest.raises(CheckpointError, match="'w' is not finite"):
        merge(tmp_path / "e", tmp_path / "f", tmp_path / "nan", HALF)


def policy(place: Path, robot: RobotSpec, seed: int, **settings: object) -> Path:
    torch.manual_seed(seed)
    config = BCConfig.for_robot(robot, channels=(8, 8, 16), hidden=16, **settings)
    return behaviour_cloning.save(place, network_of(config), name=place.name, robot=robot)


def test_policies_of_ours_act_in_between(tmp_path: Path, toy_robot: RobotSpec) -> None:
    base, tuned = (policy(tmp_path / n, toy_robot, i) for i, n in enumerate(("base", "tuned")))
    folders = sweep(base, tuned, tmp_path / "sweep", (0.0, 0.5, 1.0))
    assert [f.name for f in folders] == ["tuned-alpha-0", "tuned-alpha-0.5", "tuned-alpha-1"]
    loaded = [behaviour_cloning.load(folder) for folder in folders]
    assert [p.spec.name for p in loaded] == [folder.name for folder in folders]
    tensors = [checkpoint.load(f, kind="policy-bc")[1] for f in (base, *folders, tuned)]
    for name, values in tensors[0].items():
        assert np.array_equal(values, tensors[1][name])
        assert np.array_equal(tensors[-1][name], tensors[3][name])
        between = (values.astype(np.float32) + tensors[-1][name]) / 2
        assert np.array_equal(between.astype(np.float16), tensors[2][name])
    card = checkpoint.read_header(folders[1])["card"]["merged"]
    assert card["base"] == checkpoint.digest(base)
    assert (folders[1] / "run.json").is_file()
    stamp = (folders[1] / "config.json").stat().st_mtime_ns
    sweep(base, tuned, tmp_path / "sweep", (0.0, 0.5))  # they are there
    assert (folders[1] / "config.json").stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match="mixture.alpha = 0.5, now it is 0.25"):
        merge(base, tuned, folders[1], Mixture(alpha=0.25))
    with pytest.raises(MismatchError, match="network.use_text = True"):
        merge(base, policy(tmp_path / "deaf", toy_robot, 2, use_text=False), tmp_path / "x", HALF)
    with pytest.raises(MismatchError, match="is a checkpoint of worldeval"):
        merge(base, folder_of(tmp_path / "other", weights(1)), tmp_path / "x", HALF)


def test_nothing_is_left_of_a_merge_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = folder_of(tmp_path / "base", weights(1), 2)
    tuned = folder_of(tmp_path / "tuned", weights(2), 2)
    for error, raised in (
        (OSError(errno.ENOSPC, "No space left on device"), StoreError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def fails(*_: object, error: BaseException = error) -> torch.Tensor:
            raise error

        with monkeypatch.context() as during, pytest.raises(raised):
            during.setattr(merging, "merged", fails)
            merge(base, tuned, tmp_path / "out", HALF)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tuned"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        merge(base, tuned, tmp_path / "out", HALF)
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"


def test_places_without_one_model_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no safetensors"):
        WeightFiles.open(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="there is no safetensors file"):
        WeightFiles.open(tmp_path / "nowhere")
    (tmp_path / "text.safetensors").write_text("no weights at all")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        WeightFiles.open(tmp_path / "text.safetensors")
    place = folder_of(tmp_path / "sharded", weights(1), 2)
    next(place.glob("*1-of*")).unlink()
    with pytest.raises(CheckpointError, match="there is no shard"):
        WeightFiles.open(place)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = folder_of(tmp_path / "base", weights(1)) / "model.safetensors"
    tuned = folder_of(tmp_path / "tuned", weights(2)) / "model.safetensors"
    words = ["merge", str(base), str(tuned), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--group", "^trunk=1", "--alpha", "0.5"]) == 0
    assert float(load_file(tmp_path / "out/model.safetensors")["scale"]) == 3.5
    assert cli.main([*words[:-1], str(tmp_path / "s"), "--sweep", "0", "1"]) == 0
    assert len(list((tmp_path / "s").iterdir())) == 2
    for wrong, said in (
        (["--alpha", "1.5"], "alpha is 1.5, expected 0 (base) to 1"),
        (["--group", "trunk"], "expected PATTERN=ALPHA"),
        (["--group", "(=0.5"], "no regular expression"),
        (["--sweep", "0", "0"], "each alpha once"),
        (["--sweep", "0", "--alpha", "1"], "both given"),
    ):
        assert cli.main([*words[:-1], str(tmp_path / "w"), *wrong]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "w").exists()
    assert read_group("a=b=0.5") == ("a=b", 0.5)
