"""Resuming: a step is reported once and taken wholly or not at all; a state is old or new."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest
import torch

from worldeval.errors import CheckpointError, StoreError
from worldeval.learning.resuming import (
    append_row,
    forget_rows_after,
    load_state,
    save_state,
    uninterrupted,
)


def test_rows_after_the_restored_step_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    forget_rows_after(path, 3)  # there is no file yet
    assert not path.exists()
    for step in (1, 2, 2, 3, 4, 5):  # 2: a row of training and one of validation
        append_row(path, {"step": step, "loss": 0.5})
    whole = path.read_text()
    forget_rows_after(path, 5)
    assert path.read_text() == whole
    with path.open("a") as file:
        file.write('{"step": 1, "lo')  # the line that a kill cut
    forget_rows_after(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 2, 3]
    append_row(path, {"step": 4, "loss": 0.25})
    assert path.read_text().splitlines()[-1] == '{"step": 4, "loss": 0.25}'


def test_a_row_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/metrics.jsonl: No such file.*run the same"):
        append_row(tmp_path / "nowhere" / "metrics.jsonl", {"step": 1})


def test_ctrl_c_waits_for_the_end_of_a_step() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("whole step")
    assert done == ["whole step"]
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_a_step_is_not_swallowed_and_threads_may_step_too() -> None:
    with pytest.raises(ValueError, match="bad"), uninterrupted():
        raise ValueError("bad")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    done = []

    def step() -> None:
        with uninterrupted():
            done.append(1)

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert done == [1]


def test_a_state_comes_back_and_a_damaged_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"step": torch.tensor([7]), "a": torch.arange(3.0)}, {"seed": 5})
    tensors, settings = load_state(path)
    assert int(tensors["step"]) == 7 and settings == {"seed": 5}
    assert torch.equal(tensors["a"], torch.arange(3.0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as during:
        during.setattr("worldeval.learning.resuming.stream_tensors", full)
        with pytest.raises(CheckpointError, match=r"state.safetensors: No space left"):
            save_state(path, {"step": torch.tensor([8])})
    assert int(load_state(path)[0]["step"]) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    whole = path.read_bytes()
    for length in (0, 100, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"state.safetensors cannot be read .*remove it"):
            load_state(path)
