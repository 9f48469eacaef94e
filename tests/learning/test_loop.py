"""The loop: it goes on exactly, keeps its rows in order, and refuses what does not fit."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from worldeval.errors import CheckpointError, ConfigError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop

CONFIG = LoopConfig(
    steps=8, batch=4, learning_rate=0.05, warmup=2, ema=0.9, threads=1, device="cpu",
    report_every=2, validate_every=4, save_every_s=0.0,
)  # fmt: skip


def network() -> nn.Module:
    """A convolution whose memory is laid out channels last, as fused AdamW must find it again."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 1))
    return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def loss(module: nn.Module, step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
    image = torch.randn(4, 3, 3, 3, generator=generator)
    value = (module(image) - image.mean(dim=(1, 2, 3))[:, None]).square().mean()
    return value, {"step_before": float(step)}


def validate(step: int) -> dict[str, Any]:
    return {"validated": step}


def trained(folder: Path, config: LoopConfig = CONFIG, **settings: Any) -> Loop:
    loop = Loop(network(), config, folder, **settings)
    loop.run(loss, validate, progress=False)
    return loop


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "samples_per_s"} for row in found]


def assert_same(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "state.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name in first.keys() - {"seconds"}:
        assert torch.equal(first[name], second[name]), name
    assert rows(one) == rows(other)


@pytest.mark.parametrize("last_saved", [3, 4])
def test_a_killed_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_saved: int
) -> None:
    trained(tmp_path / "whole")
    save = Loop.save

    def killed(module: nn.Module, step: int, generator: torch.Generator) -> Any:
        if step == 7:
            raise SystemExit
        return loss(module, step, generator)

    with monkeypatch.context() as during:
        during.setattr(Loop, "save", lambda self: self.step > last_saved or save(self))
        with pytest.raises(SystemExit):
            Loop(network(), CONFIG, tmp_path / "cut").run(killed, validate, progress=False)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # the line that a kill cuts
    assert trained(tmp_path / "cut").step == 8
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert [(r["step"], "loss" in r) for r in rows(tmp_path / "cut")] == [
        (2, True), (4, True), (4, False), (6, True), (8, True), (8, False)
    ]  # fmt: skip


def test_ctrl_c_keeps_every_step_taken(tmp_path: Path) -> None:
    trained(tmp_path / "whole")
    config = replace(CONFIG, save_every_s=1000)

    def struck(module: nn.Module, step: int, generator: torch.Generator) -> Any:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return loss(module, step, generator)

    with pytest.raises(KeyboardInterrupt):
        Loop(network(), config, tmp_path / "cut").run(struck, progress=False)
    loop = Loop(network(), config, tmp_path / "cut")
    assert loop.step == 5
    loop.run(loss, validate, progress=False)
    for name, tensor in loop.raw.state_dict().items():
        whole = load_file(tmp_path / "whole" / "state.safetensors")
        assert torch.equal(tensor, whole[f"weights/{name}"])


def test_a_finished_training_takes_no_more_steps(tmp_path: Path) -> None:
    trained(tmp_path)
    loop = Loop(network(), CONFIG, tmp_path)
    loop.run(lambda *_: pytest.fail("one step too many"), progress=False)
    assert len(rows(tmp_path)) == 6


def test_other_settings_are_refused_and_free_ones_are_not(tmp_path: Path) -> None:
    trained(tmp_path, settings=CONFIG.identity())
    carried_out = replace(CONFIG, report_every=1, save_every_s=5, validate_every=8)
    Loop(network(), carried_out, tmp_path, settings=carried_out.identity())
    other = replace(CONFIG, learning_rate=0.1)
    with pytest.raises(ConfigError, match=r"learning_rate = 0.05, now it is 0.1"):
        Loop(network(), other, tmp_path, settings=other.identity())
    with pytest.raises(CheckpointError, match="another architecture"):
        Loop(nn.Linear(2, 1), CONFIG, tmp_path, settings=CONFIG.identity())


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"half of it")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Loop(network(), CONFIG, tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    loop = Loop(network(), CONFIG, tmp_path)
    with pytest.raises(ConfigError, match="not finite at step 0"):
        loop.run(lambda m, s, g: (loss(m, s, g)[0] * math.nan, {}), progress=False)
    assert all(torch.equal(a, b) for a, b in zip(loop.raw.parameters(), network().parameters(),
                                                 strict=True))  # fmt: skip


def test_averages_are_an_exponential_memory_of_the_weights(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def watched(module: nn.Module, step: int, generator: torch.Generator) -> Any:
        seen.append(next(module.parameters()).detach().clone())
        return loss(module, step, generator)

    loop = Loop(network(), CONFIG, tmp_path / "a")
    loop.run(watched, progress=False)
    name, last = next(iter(loop.raw.state_dict().items()))
    expected = seen[0]
    for step, weight in enumerate([*seen[1:], last], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(loop.averaged[name], expected)
    with loop.averaged_weights() as averaged:
        assert torch.equal(averaged.state_dict()[name], loop.averaged[name])
    assert torch.equal(loop.raw.state_dict()[name], last)
    without = trained(tmp_path / "b", replace(CONFIG, ema=0.0))
    assert torch.equal(without.averaged[name], last)


def test_groups_of_parameters_decay_apart(tmp_path: Path) -> None:
    module = nn.Linear(2, 1)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    config = replace(CONFIG, steps=1, warmup=1, learning_rate=0.1, weight_decay=0.5)
    groups = [{"params": [module.weight]}, {"params": [module.bias], "weight_decay": 0.0}]
    loop = Loop(module, config, tmp_path, parameters=groups)
    loop.run(lambda m, s, g: (m(torch.zeros(1, 2)).sum() * 0, {}), progress=False)
    torch.testing.assert_close(module.weight.detach(), before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(module.bias.detach(), before["bias"])


def test_precision_may_change_between_trainings_where_there_are_units_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = replace(CONFIG, mixed_precision="bf16", steps=1)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.raises(ConfigError, match="no bfloat16"):
        Loop(network(), half, tmp_path / "half")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    kinds = []

    def watched(module: nn.Module, step: int, generator: torch.Generator) -> Any:
        kinds.append(torch.is_autocast_enabled("cpu"))
        return loss(module, step, generator)

    for number, config in enumerate([replace(CONFIG, steps=1), half, replace(CONFIG, steps=1)]):
        Loop(network(), config, tmp_path / str(number)).run(watched, progress=False)
    assert kinds == [False, True, False]


def test_learning_rates() -> None:
    linear = LoopConfig(steps=100, learning_rate=2.0, warmup=10, decay=0.5)
    assert [linear.rate(s) for s in (0, 4, 9, 50, 75)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0])
    cosine = replace(linear, schedule="cosine", warmup=0)
    assert [cosine.rate(s) for s in (0, 50, 75)] == pytest.approx([2.0, 1.0, 1 - math.sqrt(0.5)])
    assert replace(cosine, warmup=10).rate(4) == pytest.approx(cosine.rate(4) / 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("batch", 0), ("learning_rate", 0.0), ("ema", 1.0), ("schedule", "sine"),
     ("mixed_precision", "fp8"), ("device", "tpu"), ("threads", 0)],
)  # fmt: skip
def test_unusable_settings_raise(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{field} is {value!r}"):
        LoopConfig(**{field: value})  # type: ignore[arg-type]
