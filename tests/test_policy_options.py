"""Policies that misbehave, from the command line: their own rollouts only, one sentence, an end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worldeval import cli
from worldeval.data.store.episodes import EpisodeStore

POLICY = """
import os, sys, threading, time
from worldeval.policies.scripted import ZeroPolicy

class Mine(ZeroPolicy):
    def __init__(self, robot, how: str = "well", name: str = "mine"):
        super().__init__(robot, name=name)
        self.how = how
        if how == "moves":
            os.chdir("/")
        if how == "spins":
            threading.Thread(target=threading.Event().wait, name="spinner").start()

    def act(self, observations):
        if any("0001" in o.rollout_id for o in observations):
            if self.how == "hangs":
                time.sleep(60)
            if self.how == "aborts":
                os.abort()
        if self.how == "never":
            raise ValueError("no weights")
        return super().act(observations)

    def close(self):
        if self.how == "close":
            raise RuntimeError("the connection is gone")
"""
ROLLOUT = ["rollout", "--world", "toy", "--chunks", "1", "--threads", "1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.py").write_text(POLICY)
    return tmp_path


@pytest.fixture
def suite(here: Path) -> Path:
    from worldeval.rollout.suite import Suite
    from worldeval.worlds.toy import toy_starts

    path = here / "suite.json"
    Suite(name="toy", robot="toy", chunks=1, starts=toy_starts(count=2)[:2]).save(path)
    return path


def rollout(suite: Path, *words: str) -> int:
    return cli.main([*ROLLOUT, "--suite", str(suite), "--out", "out", *words])


def errors(out: Path) -> dict[str, str]:
    with EpisodeStore.open(out) as store:
        return {e.key: e.extra["error"] for e in store}


def test_a_policy_that_moves_writes_where_it_was_told_to(here: Path, suite: Path) -> None:
    assert rollout(suite, "--policy", "python:p.py:Mine?how=moves") == 0
    assert (here / "out" / "run.json").is_file() and Path.cwd() == here
    assert len(errors(here / "out")) == 2


def test_close_that_fails_is_told_and_costs_nothing(
    here: Path, suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = rollout(suite, "--policy", "python:p.py:Mine?how=close", "--policy", "zero")
    said = capsys.readouterr()
    assert code == 0 and len(errors(here / "out")) == 4
    assert "'mine' raised RuntimeError: the connection is gone (in close()" in said.err
    assert (here / "out" / "truth.parquet").is_file()


@pytest.mark.parametrize("isolate", [(), ("--isolate",)])
def test_a_hang_is_an_error_of_its_rollout(
    here: Path, suite: Path, isolate: tuple[str, ...]
) -> None:
    words = ["--policy", "python:p.py:Mine?how=hangs", "--policy-timeout", "1.5", *isolate]
    assert rollout(suite, *words) == 0
    found = errors(here / "out")
    assert [("did not answer within 1.5 s" in e, e == "") for _, e in sorted(found.items())] == [
        (False, True),
        (True, False),
    ]


def test_an_abort_with_isolate_is_an_error_of_its_rollout(here: Path, suite: Path) -> None:
    assert rollout(suite, "--policy", "python:p.py:Mine?how=aborts", "--isolate") == 0
    found = errors(here / "out")
    assert sorted("SIGABRT" in error for error in found.values()) == [False, True]


def test_others_are_rolled_out_though_one_never_works(
    here: Path, suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--policy", "python:p.py:Mine?how=never&name=ill", "--policy", "python:p.py:Mine"]
    assert rollout(suite, *words) == 2
    assert {key.partition("/")[0] for key in errors(here / "out")} == {"mine"}
    said = capsys.readouterr().err
    assert "1 of 2 policies gave no rollouts" in said and "'ill' raised ValueError" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--policy-timeout", "-1"), "policy_timeout is -1, expected 0 or more"),
        (("--policy-timeout", "nan"), "policy_timeout is nan, expected a finite number"),
        (("--policy-memory", "2"), "policy_memory was given without --isolate"),
        (("--policy-memory", "-2", "--isolate"), "policy_memory is -2, expected 0 or more"),
    ],
)
def test_limits_that_cannot_be(
    here: Path, suite: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    assert rollout(suite, "--policy", "python:p.py:Mine", *words) == 2
    assert says in capsys.readouterr().err and not (here / "out").exists()


def test_the_program_ends_though_a_thread_does_not(here: Path, suite: Path) -> None:
    words = ["--suite", str(suite), "--out", "out", "--policy", "python:p.py:Mine?how=spins"]
    done = subprocess.run(
        [sys.executable, "-m", "worldeval", *ROLLOUT, *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    assert "2 rollouts" in done.stdout and "'spinner' of policy" in done.stderr
