"""A batch cut into micro-batches or shared by processes gives what it gives whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.tracker_recorder import recorder
from worldeval.errors import CheckpointError, ConfigError, MissingDependencyError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.learning.resuming import load_state, save_state

CONFIG = LoopConfig(
    steps=6, batch=8, learning_rate=0.05, warmup=2, ema=0.9, threads=1, device="cpu",
    report_every=2, validate_every=3, save_every_s=0.0,
)  # fmt: skip


class Network(nn.Module):
    """Two layers whose activations need not be kept."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 1)
        self.lean = False

    def enable_gradient_checkpointing(self) -> None:
        self.lean = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = lambda x: torch.tanh(self.first(x))  # noqa: E731
        if self.lean:
            hidden = torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)
        else:
            hidden = inner(x)
        return self.last(hidden)


def trained(folder: Path, config: LoopConfig = CONFIG, module: nn.Module | None = None) -> Loop:
    loop = Loop(module or Network(), config, folder, shared=True)

    def loss(module: nn.Module, step: int, generator: torch.Generator) -> Any:
        x = torch.randn(config.batch, 3, generator=generator)[loop.share]
        error = (module(x) - x.sum(1, keepdim=True)).square()
        return error.mean(), {"largest": float(x.mean())}

    loop.run(loss, lambda step: {"validated": step}, progress=False)
    return loop


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "samples_per_s"} for row in found]


def assert_same_up_to_rounding(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "state.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name in first.keys() - {"seconds"}:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-6, msg=name)
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        {"accumulate": 4},
        {"gradient_checkpointing": True},
        {"ema_device": "cpu"},
        {"accumulate": 8, "gradient_checkpointing": True},
    ],
)
def test_how_a_step_is_carried_out_does_not_change_it(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    trained(tmp_path / "whole")
    config = replace(CONFIG, **change)
    assert config.identity() == CONFIG.identity()
    trained(tmp_path / "parts", config)
    assert_same_up_to_rounding(tmp_path / "whole", tmp_path / "parts")


def test_two_processes_give_the_curve_and_the_weights_of_one(tmp_path: Path) -> None:
    trained(tmp_path / "one")
    program = (
        "import importlib.util, sys\n"
        "from pathlib import Path\n"
        "from dataclasses import replace\n"
        "spec = importlib.util.spec_from_file_location('shared', sys.argv[1])\n"
        "shared = importlib.util.module_from_spec(spec); spec.loader.exec_module(shared)\n"
        "out, half = Path(sys.argv[2]), replace(shared.CONFIG, accumulate=2)\n"
        "class Stop(Exception): pass\n"
        "save = shared.Loop.save\n"
        "def stop(self):\n"
        "    save(self)\n"
        "    if self.step == 3: raise Stop\n"
        "shared.Loop.save = stop\n"
        "try: shared.trained(out)\n"
        "except Stop: pass\n"
        "shared.Loop.save = save\n"
        "loop = shared.trained(out, half)\n"
        "assert loop.accelerator.num_processes == 2\n"
    )
    (tmp_path / "program.py").write_text(program)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    run = subprocess.run(
        [*launch, "2", str(tmp_path / "program.py"), __file__, str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert_same_up_to_rounding(tmp_path / "one", tmp_path / "two")


def test_a_batch_that_cannot_be_cut_evenly_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch is 8 and accumulate 3"):
        replace(CONFIG, accumulate=3)
    with pytest.raises(ConfigError, match="accumulate is 0"):
        replace(CONFIG, accumulate=0)


class Small(Network):
    """A module for which more than ``fitting`` rows are too many."""

    def __init__(self, fitting: int) -> None:
        super().__init__()
        self.fitting = fitting

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_memory_that_runs_out_names_the_micro_batch_that_fits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"micro-batch of 8; one of 2 fits: use accumulate 4"):
        trained(tmp_path / "run", module=Small(3))
    trained(tmp_path / "run", replace(CONFIG, accumulate=4), module=Small(3))
    trained(tmp_path / "whole")
    assert_same_up_to_rounding(tmp_path / "whole", tmp_path / "run")
    with pytest.raises(ConfigError, match="one of 1 does not fit either; gradient_checkpointing"):
        trained(tmp_path / "none", module=Small(0))


def test_a_module_that_must_keep_its_activations_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no part of this module can do without"):
        Loop(nn.Linear(3, 1), replace(CONFIG, gradient_checkpointing=True), tmp_path)


def test_trackers_get_every_row_if_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, trackers=("trackio:mine",))
    monkeypatch.setitem(sys.modules, "trackio", None)  # not installed
    with pytest.raises(MissingDependencyError, match="pip install trackio"):
        trained(tmp_path / "run" / "training", config)
    calls = recorder(monkeypatch, "trackio")
    trained(tmp_path / "run" / "training", config)
    first, *logged, last = calls
    assert first["project"] == "mine" and first["name"].startswith("run-")
    assert first["resume"] == "allow"
    assert [step for step, _ in logged] == [2, 3, 4, 6, 6] and last == "finished"
    assert logged[0][1]["loss"] == rows(tmp_path / "run" / "training")[0]["loss"]
    trained(tmp_path / "other" / "run" / "training", config)
    assert calls[len(logged) + 2]["name"] != first["name"], "another folder of the same name"
    with pytest.raises(ConfigError, match="trackers holds 'abacus'"):
        replace(CONFIG, trackers=("abacus",))


def test_a_tracker_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder(monkeypatch, "trackio", failing_at=2)
    trained(tmp_path / "run", replace(CONFIG, trackers=("trackio",)))
    trained(tmp_path / "plain")
    assert rows(tmp_path / "run") == rows(tmp_path / "plain")
    assert capsys.readouterr().err.count("trackio:worldeval shows nothing more (OSError: no") == 1


def test_a_state_holds_every_type_and_shape_to_the_last_bit(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 5).bfloat16(),
        "transposed": torch.randn(4, 3).T,
        "scalar": torch.tensor(7.0),
        "none": torch.zeros(0, 2),
        "count": torch.tensor([3], dtype=torch.int64),
        "flags": torch.tensor([True, False, True]),
        "shared": torch.ones(2, 2).expand(3, 2, 2),
    }
    save_state(tmp_path / "s", tensors, {"seed": 5})
    stored, settings = load_state(tmp_path / "s")
    official = load_file(tmp_path / "s")
    assert settings == {"seed": 5} and set(stored) == set(tensors) == set(official)
    for name, tensor in tensors.items():
        for read in (stored[name], official[name]):
            assert read.dtype == tensor.dtype and torch.equal(read, tensor), name
    with pytest.raises(KeyError):
        stored["other"]
    with pytest.raises(CheckpointError, match="there is no state of a training"):
        load_state(tmp_path / "nothing")
