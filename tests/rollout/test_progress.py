"""What a person who waits is told: rollouts done of all, speed, time left, what comes next."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import types
from pathlib import Path

import pytest

from worldeval.rollout.engine import run
from worldeval.rollout.progress import Progress, duration, percentages
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.terminal import bar_options
from worldeval.types import Outcome
from worldeval.worlds.toy import TOY_ROBOT, ToyPolicy, ToyWorld, toy_starts


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_rollouts_of_all_speed_and_time_left() -> None:
    clock = Clock()
    progress = Progress(40, shown=False, clock=clock)
    progress.next = "judging"
    assert str(progress) == "0 of 40 rollouts, next judging"
    progress.begin("a", rollouts=20, held=10, frames=30)
    assert str(progress) == "10 of 40 rollouts, next judging"
    clock.seconds += 10
    progress.advance(150)  # half of ten rollouts
    assert progress.speed == "15 frames/s" and progress.left_s == pytest.approx(50)
    clock.seconds += 10
    progress.advance(100)
    progress.finish(10)  # some were solved early
    assert str(progress) == "20 of 40 rollouts, 12.5 frames/s, 40 s left, next judging"
    progress.end()
    progress.begin("b", rollouts=20, held=0, frames=30)
    progress.end()  # it never worked: its rollouts will not come
    assert progress.counted == "20 of 20 rollouts" and "left" not in str(progress)


def test_what_is_slow_is_told_in_rollouts_an_hour() -> None:
    clock = Clock()
    progress = Progress(4, at_most=True, shown=False, clock=clock)
    progress.begin("a", rollouts=4, held=0, frames=30)
    clock.seconds += 1200
    progress.advance(30)
    progress.finish(1)
    assert str(progress) == "1 of at most 4 rollouts, 3 rollouts/h, 60 min left"
    progress.end()
    assert progress.total == 4


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (99, "99 s"), (119, "2 min"), (7200, "2 h 0 min"), (200_000, "2 d 7 h")],
)
def test_durations_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_terminal_is_told_and_nothing_is_called_undecided(tmp_path: Path) -> None:
    suite = Suite(name="s", robot="toy", chunks=2, starts=toy_starts(count=2))
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    was = sys.stderr
    sys.stderr = os.fdopen(follower, "w")
    try:
        with open_rollouts(tmp_path, TOY_ROBOT) as store:
            report = run(ToyWorld(), ToyPolicy(robot=TOY_ROBOT), suite, store, batch=2)
        sys.stderr.flush()
        said = os.read(leader, 65536).decode()
    finally:
        sys.stderr.close()
        sys.stderr = was
        os.close(leader)
    assert re.search(r"toy-expert: \d of 4 rollouts", said), said
    assert "4 of 4 rollouts" in said and "frames/s" in said
    assert "undecided" not in f"{said}{report}"
    unknown = {o.value: 0 for o in Outcome} | {"undecided": 4}
    report = type(report)(**{**vars(report), "outcomes": unknown, "world": "imagination"})
    assert "4 rollouts; " in str(report)
    unknown["error"] = 2
    assert "6 rollouts: 2 ended in an error; " in str(report)


def test_a_notebook_is_told_too_and_a_file_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = types.SimpleNamespace(kernel=object())
    assert bar_options() == {"disable": None}
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert bar_options() == {"disable": False, "file": sys.stdout}
    del shell.kernel  # IPython in a terminal
    assert bar_options() == {"disable": None}


@pytest.mark.parametrize(
    ("amounts", "shares"),
    [
        ({"a": 1, "b": 1, "c": 1}, {"a": 34, "b": 33, "c": 33}),
        ({"model": 68.6, "write": 10.3, "engine": 21.1}, {"model": 69, "write": 10, "engine": 21}),
        ({"a": 2.0, "b": 0.0}, {"a": 100, "b": 0}),
        ({"a": 0.0}, {"a": 0}),
        ({}, {}),
    ],
)
def test_percentages_add_up_to_a_hundred(amounts: dict[str, float], shares: dict[str, int]) -> None:
    assert percentages(amounts) == shares
