"""Values right for no option of any verb end in one sentence, before anything is opened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worldeval import cli

REQUIRED = ["rollout", "--policy", "random", "--out"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert cli.main(list(words)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--gripper-most", "nan"], "gripper_most is nan, expected a finite number"),
        (["--gripper-most", "-inf"], "gripper_most is -inf, expected a finite number"),
        (["--batch", "0"], "batch is 0, expected 1 to 65536"),
        (["--batch", "-3"], "batch is -3, expected 1 to 65536"),
        (["--threads", "1000000"], "threads is 1000000, expected 1 to 1024"),
        (["--chunks", "1000000"], "chunks is 1000000, expected 1 to 10000"),
        (["--per-task", "9" * 40], "per_task is a number of 40 digits, expected 1 to"),
        (["--suite", ""], "--suite is empty, expected a value"),
        (["--suite="], "--suite is empty, expected a value"),
        (["--suite", "a\0b"], "--suite is 'a\\x00b', which is no text in UTF-8"),
        (["--starts", "a\udcff"], "--starts is 'a\\udcff', which is no text in UTF-8"),
        (["--adapter", "/dev/zero"], "/dev/zero is a device, expected a regular file as adapter"),
        (["--suite", "a" * 300], "which cannot be a path (File name too long)"),
    ],
)
def test_a_value_that_no_verb_can_use(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, *REQUIRED, str(tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--policy", "zero", "--policy", "random", "--judge", "a", "--judge", "b"],
        ["evaluate", "--policy", "zero", "--judge=a", "--judge=b"],
        ["synthesize", "--policy", "zero", "--judge", "a", "--judge=b"],
    ],
)
def test_what_other_verbs_take_several_of_is_not_lost_in_silence(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *words, "--out", str(tmp_path / "out"))
    assert f"--judge was given 'a' and 'b', but `worldeval {words[0]}` takes one" in said
    assert not (tmp_path / "out").exists()


def test_a_named_pipe_is_told_in_any_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, out = str(tmp_path / "pipe"), str(tmp_path / "out")
    os.mkfifo(pipe)
    for words in (
        ["rank", pipe, "--out", out],
        ["rank", str(tmp_path), "--out", out, "--against", pipe],
        ["rank", str(tmp_path), "--out", out, "--weights", pipe],
        ["calibrate", pipe, "--truth", pipe, "--out", out],
        ["train", "policy", "--store", pipe, "--out", out],
        ["prepare", "--source", str(tmp_path), "--out", out, "--key-map", pipe],
        ["store", "verify", pipe],
        ["rollout", "--policy", pipe, "--out", out],
        ["rollout", "--policy", "zero", "--out", pipe],
    ):
        assert "is a named pipe" in refused(capsys, *words), words


def test_a_training_s_numbers_are_checked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "policy", "--store", str(tmp_path), "--out", str(tmp_path / "out")]
    assert "weight_decay is nan" in refused(capsys, *words, "--loop.weight-decay", "nan")
    assert "weight_decay is -1, expected 0 or more" in refused(
        capsys, *words, "--loop.weight-decay", "-1"
    )
    assert "seed is -1, expected 0 to" in refused(capsys, *words, "--loop.seed", "-1")


@pytest.mark.parametrize("user", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "9"}])
def test_threads_wait_without_spinning_unless_the_user_says_so(user: dict[str, str]) -> None:
    """Two threads that spin for each other beside other work are 14 times slower."""
    code = "import worldeval, os; print(os.environ.get('OMP_WAIT_POLICY'))"
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | user, capture_output=True, text=True, check=True
    )
    expected = "PASSIVE" if not user else user.get("OMP_WAIT_POLICY", "None")
    assert done.stdout == f"{expected}\n"
