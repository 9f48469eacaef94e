"""Trainings begun by the shipped launch file, on one machine and on two: what one process gives."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.test_kill import assert_same_training, autoencoder, lines_of, recorded, rows_of
from worldeval import cli
from worldeval.errors import ConfigError
from worldeval.learning import processes
from worldeval.learning.config import LoopConfig
from worldeval.learning.processes import SHARED

__all__ = ["autoencoder", "recorded"]
FILE = Path(__file__).parents[2] / "docs" / "accelerate.yaml"
LOOP = "--loop.batch 4 --loop.threads 1 --loop.warmup 5 --loop.report-every 2 --loop.device cpu"
POLICY = "--channels 8 8 8 --hidden 8"
METRICS = "training/metrics.jsonl"


def launched(words: str, out: Path, *, machines: int = 1) -> list[subprocess.Popen[str]]:
    """A training on so many machines, of one process each if there are several."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FILE)]
    launch += ["--main_process_port", str(port)]
    started = []
    for rank in range(machines):
        several = f"--num_machines {machines} --machine_rank {rank} --main_process_ip 127.0.0.1"
        own = [*launch, *(several.split() if machines > 1 else ())]
        started.append(
            subprocess.Popen(
                [*own, "-m", "worldeval", *shlex.split(words), "--out", str(out)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
    return started


def finished(started: list[subprocess.Popen[str]]) -> tuple[str, str]:
    ended = [process.communicate(timeout=600) for process in started]
    told = "\n".join(err for _, err in ended)
    assert not any(process.returncode for process in started), told[-4000:]
    return "".join(out for out, _ in ended), told


def until(ready: Callable[[], bool], started: list[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + 300
    while not ready():
        assert time.monotonic() < end and all(p.poll() is None for p in started)
        time.sleep(0.01)


def told_after(started: list[subprocess.Popen[str]], number: signal.Signals) -> str:
    """What they said after Ctrl-C in their terminals, or after power was cut."""
    for process in started:
        below = psutil.Process(process.pid).children(recursive=True)
        for each in below if number == signal.SIGKILL else ():
            each.kill()  # the launcher gives each a session of its own
        process.send_signal(number)
    return "\n".join(process.communicate(timeout=120)[1] for process in started)


def reached(out: Path) -> int:
    return max(rows_of(out / METRICS, "loss"), default=0) if (out / METRICS).is_file() else 0


def test_two_processes_train_the_policy_of_one(recorded: Path, tmp_path: Path) -> None:
    words = f"train policy --store {recorded} {POLICY} {LOOP} --loop.steps 6"
    one, two = tmp_path / "one" / "clone", tmp_path / "two" / "clone"
    assert cli.main([*shlex.split(words), "--out", str(one)]) == 0
    out, _ = finished(launched(words, two))
    assert_same_training(two, one, METRICS, ("loss", "learning_rate"))
    assert out.split() == [str(two)]
    assert len(json.loads((two / "run.json").read_text())["resumed"]) == 0
    parts = tmp_path / "parts" / "clone"
    assert cli.main([*shlex.split(words), "--out", str(parts), "--loop.accumulate", "2"]) == 0
    assert_same_training(parts, one, METRICS, ("loss", "learning_rate"))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["policy", "world-model"])
def test_two_machines_go_on_after_kill_and_ctrl_c(
    kind: str, recorded: Path, autoencoder: Path, tmp_path: Path
) -> None:
    sizes = POLICY
    if kind == "world-model":
        sizes = f"--autoencoder {autoencoder} --validation {recorded} --loop.validate-every 20"
        sizes += " --backbone.widths 8 16 --backbone.blocks 1 --backbone.token-width 16"
    words = f"train {kind} --store {recorded} {sizes} {LOOP} --loop.steps 200"
    one, two = tmp_path / "one" / "clone", tmp_path / "two" / "clone"
    assert cli.main([*shlex.split(words), "--out", str(one)]) == 0
    words += " --loop.save-every-s 0"
    started = launched(words, two, machines=2)
    until(lambda: lines_of(two / METRICS) >= 4, started)
    told_after(started, signal.SIGKILL)
    before = reached(two)
    started = launched(words, two, machines=2)
    until(lambda: lines_of(two / METRICS) > before // 2 + 4, started)
    said = told_after(started, signal.SIGINT)
    assert "worldeval: interrupted; run the same command again" in said, said
    assert "worldeval-fault" not in said, said
    state = load_file(two / "training" / "state.safetensors")
    assert before < int(state["step"]) < 200
    finished(launched(words, two, machines=2))
    ours, theirs = rows_of(two / METRICS, "loss"), rows_of(one / METRICS, "loss")
    assert list(ours) == list(theirs)
    # Sums of halves round otherwise, and training makes that grow: in one process too, where it
    # accumulates. What is wrong after a state would be so at once, and by more.
    for most, error in ((30, 1e-4), (200, 2e-2)):
        steps = [step for step in ours if step <= most]
        np.testing.assert_allclose(
            [ours[step] for step in steps], [theirs[step] for step in steps], rtol=error
        )
    assert len(json.loads((two / "run.json").read_text())["resumed"]) == 2


@pytest.mark.parametrize(
    "verb", sorted(v for v in cli.VERBS if v.startswith("train ") and v not in SHARED)
)
def test_what_does_not_share_its_batches_is_refused(
    verb: str,
    recorded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    out = tmp_path / "out"
    own = [] if verb in ("train autoencoder", "train population") else ["--validation", "x"]
    own += ["--margin", "x"] if verb == "train path" else []
    words = [*verb.split(), "--store", str(recorded), *own, "--out", str(out)]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert f"`worldeval {verb}` was begun in 2 processes" in said and not out.exists(), said


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "x"}, "the variable RANK is 'x', expected a number"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "the variable WORLD_SIZE is 'two'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "speak of 2 processes, but MASTER_ADDR is not set"),
    ],
)
def test_variables_that_no_launcher_set_are_told_in_a_sentence(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        if processes.first_of_many():
            processes.accelerator_of(LoopConfig(device="cpu"))


def test_machines_that_share_no_disk_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Two:
        """As the second of two processes whose first stands at step 40."""

        num_processes, device = 2, torch.device("cpu")

        def gather(self, step: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.tensor([40]), step])

    processes.check_same_step(Two(), 40, tmp_path)
    with pytest.raises(processes.ConfigError, match="one disk that all of them see"):
        processes.check_same_step(Two(), 0, tmp_path)
