"""The same evaluation by Ray's actors, one of which is killed. Needs ray (pip install ray)."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.evaluation.test_execution import ran, same, words
from worldeval.evaluation.execution.parts import held_keys

pytest.importorskip("ray", reason="ray is not installed: pip install 'worldeval[ray]'")
pytestmark = [
    pytest.mark.heavy,
    # Of ray's own: sockets and processes that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore"),
]
__all__ = ["words"]


def actors() -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_bytes().startswith(b"ray::RayWorker"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


def test_two_actors_make_what_one_process_makes_though_one_is_killed(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    out, killed = tmp_path / "ray", []

    def kill() -> None:
        until = time.monotonic() + 200
        while time.monotonic() < until and not killed:
            if held_keys(out) and (found := actors()):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    ran("evaluate", *words, "--out", out, "--batch=1", "--executor=ray", "--workers=2")
    killer.join()
    ran("evaluate", *words, "--out", tmp_path / "one")
    assert killed
    same(tmp_path / "one", out)
