"""``worldeval bench step``: the counters, and a whole bench at miniature size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from worldeval.bench import measuring
from worldeval.bench import step as benches
from worldeval.bench.counting import Cost, bytes_of, count
from worldeval.bench.step import Bench, BenchConfig, variants
from worldeval.bench.tables import (
    counted_table,
    measured_table,
    summarise,
)
from worldeval.errors import ConfigError
from worldeval.world_model.ctrl_world.backbone import EXACT, PUBLISHED, PreparedBackbone


def meta(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, device="meta")


def test_counting_by_hand() -> None:
    a, weight, bias = meta(6, 10), meta(4, 10), meta(4)
    linear = count(lambda: F.linear(a, weight, bias))
    assert linear.flops == 2 * 6 * 10 * 4 and linear.operations == 1
    assert linear.bytes == 4 * (6 * 10 + 4 * 10 + 4 + 6 * 4)
    in_place = count(lambda: meta(6, 4).addmm_(a, weight.t()))
    assert in_place.flops == linear.flops
    views = count(lambda: a.view(2, 3, 10).transpose(0, 1)[1].unflatten(1, (5, 2)))
    assert views == Cost()
    added = count(lambda: a.add_(meta(10)))
    assert added.operations - count(lambda: meta(10)).operations == 1
    assert added.fused_s < added.roofline_s


def test_an_expanded_axis_is_stored_once() -> None:
    assert bytes_of(meta(1, 10).expand(7, 10)) == 40
    assert bytes_of(meta(0, 10)) == 0


def test_attention_is_one_operation() -> None:
    q = meta(2, 3, 50, 8)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            cost = count(lambda: F.scaled_dot_product_attention(q, q, q))
        assert cost.operations == 1
        assert cost.flops == 2 * (2 * 2 * 3 * 50 * 50 * 8)


def test_composites_count_the_same_in_inference_mode() -> None:
    layer = torch.nn.Conv2d(3, 5, 3, device="meta")
    costs = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            costs.append(count(lambda: layer(meta(1, 3, 8, 8))))
    assert costs[0] == costs[1]
    assert costs[0].flops == 2 * 5 * 6 * 6 * 3 * 9


def test_cost_at_full_size() -> None:
    """One evaluation under guidance: 19.09 TFLOP as published, counted by hand elsewhere."""
    bench = Bench(BenchConfig(size="full"), "meta", torch.bfloat16)
    unet = bench.model.unet
    assert sum(p.numel() for p in unet.parameters()) == 1_524_623_082
    sample, hidden = meta(1, 11, 8, 72, 40), meta(2, 11, 1024)
    costs = []
    for execution in (PUBLISHED, EXACT):
        backbone = PreparedBackbone(unet, execution)
        conditioning = backbone.condition(hidden, meta(1, 3))
        with torch.no_grad():
            costs.append(count(lambda b=backbone, c=conditioning: b(sample, meta(1), c, first=6)))
    published, exact = costs
    assert published.flops == pytest.approx(19.09e12, rel=1e-3)
    assert published.flops / exact.flops > 1.06
    assert published.operations / exact.operations > 1.7
    assert published.bytes / exact.bytes > 1.2


CONFIG = BenchConfig(steps=3, repeats=1)


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Iterator[None]:
    """An autoencoder that doubles twice instead of eightfold: decoding would take most of it."""
    mini = benches.SIZES["mini"]
    two = {"down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (32, 32)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(benches.SIZES, "mini", {**mini, "vae": {**mini["vae"], **two}})
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("bench")
    said: list[str] = []
    report = measuring.measure(CONFIG, out, None, said.append)
    assert report["finished"] and len(said) == len(variants(CONFIG))
    return out


def test_errors_tell_rounding_from_another_schedule(folder: Path) -> None:
    report = json.loads((folder / "bench.json").read_text())
    errors = {name: v["errors"] for name, v in report["variants"].items()}
    assert errors["published"] == {"latents": 0.0, "frames": 0.0}
    assert 0 < errors["equal"]["latents"] < 1e-4 and errors["equal"]["frames"] < 1e-4
    assert errors["solver-4"]["latents"] > 1e-3
    evaluations = {name: v["evaluations"] for name, v in report["variants"].items()}
    assert evaluations["published"] == evaluations["equal"] == 2 * CONFIG.steps
    assert evaluations["solver-4"] == 2


def test_goes_on_where_it_stopped(folder: Path) -> None:
    said: list[str] = []
    assert measuring.measure(CONFIG, folder, None, said.append)["finished"]
    assert said == []
    with pytest.raises(ConfigError, match=r"steps 3 is now 4"):
        measuring.measure(BenchConfig(steps=4), folder, None, said.append)


def test_time_that_is_up(tmp_path: Path) -> None:
    report = measuring.measure(CONFIG, tmp_path, 1e-9, print)
    assert not report["finished"]
    summarise(report)
    assert "run the same command again" in measured_table(report)


def test_tables(folder: Path) -> None:
    report = measuring.measure(CONFIG, folder, None, print)
    summarise(report)
    entry = report["variants"]["equal"]["batches"]["1"]
    assert entry["rollouts_per_hour"] == pytest.approx(360 / entry["median_s"])
    assert report["variants"]["published"]["batches"]["1"]["times_as_fast"] == 1.0
    text = measured_table(report)
    assert "equal: ours, equal output" in text and "10 interactions" in text
    cost = Cost(flops=2e12, operations=3, bytes=4e12, roofline_s=2, fused_s=1)
    assert "| half | 1.0 | 2.00x |" in counted_table({"published": cost, "half": cost * 0.5})


def test_out_of_memory_is_said_and_the_others_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = json.loads((folder / "bench.json").read_text())
    report["variants"] = {name: report["variants"][name] for name in ("published", "solver-4")}
    (tmp_path / "bench.json").write_text(json.dumps(report))
    reference = (folder / "reference.safetensors").read_bytes()
    (tmp_path / "reference.safetensors").write_bytes(reference)
    sampled = Bench.sampled

    def failing(self: Bench, variant: Any, inputs: Any) -> torch.Tensor:
        if variant.execution == PUBLISHED:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sampled(self, variant, inputs)

    few = {name: variants(CONFIG)[name] for name in ("published", "solver-4")}
    monkeypatch.setattr(measuring, "variants", lambda config: few)
    monkeypatch.setattr(Bench, "sampled", failing)
    config = BenchConfig(steps=3, repeats=1, batches=(1, 2))
    report = measuring.measure(config, tmp_path, None, print)
    assert report["finished"]
    assert "a batch of 1 should fit" in report["variants"]["published"]["batches"]["2"]["failed"]
    assert report["variants"]["solver-4"]["batches"]["2"]["wall_s"]
    summarise(report)
    assert "a batch of 1 should fit" in measured_table(report)


def test_batch_that_would_fit() -> None:
    # 10 bytes of weights, 5 a row, 100 in all of which 95 may be used: 17 rows.
    assert measuring.would_fit({1: 15, 4: 30}, 32, 10, 100) == 17
    assert measuring.would_fit({4: 30}, 16, 10, 100) == 15
    assert measuring.would_fit({}, 16, 10, 100) == 8
    assert measuring.would_fit({2: 20}, 4, 10, None) == 2


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="'huge'"):
        BenchConfig(size="huge")
    with pytest.raises(ConfigError, match="steps is 1"):
        BenchConfig(steps=1)
    with pytest.raises(ConfigError, match="batches"):
        BenchConfig(batches=(0,))
