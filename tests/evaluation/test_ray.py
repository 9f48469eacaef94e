"""The same evaluation by Ray's actors, one of which is killed. Needs ray (pip install ray)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.evaluation.test_execution import ran, same, words
from worldeval.evaluation.execution.parts import held_keys

pytest.importorskip("ray", reason="ray is not installed: pip install 'worldeval[ray]'")
from tests.evaluation.cluster import Cluster

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


@pytest.mark.parametrize("memory", [False, True], ids=["killed", "out-of-memory"])
def test_machines_that_go_and_come_leave_what_one_process_makes(
    memory: bool, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three workers on one machine, which goes; and workers that Ray kills for lack of memory."""
    place = Path(tempfile.mkdtemp(prefix="ray-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cluster, done, out = Cluster(place, port), [], tmp_path / "ray"
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    # Ray's own guard of the memory takes every worker of this machine for one too many.
    scarce = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "3000"}
    first = cluster.join(3, scarce if memory else None)

    def disturb() -> None:
        until = time.monotonic() + 200
        while time.monotonic() < until and not done:
            if held_keys(out) or (memory and cluster.workers()):
                time.sleep(6 if memory else 0)
                cluster.kill(first, at_once=memory)
                cluster.join(3)
                done.append(first)
            time.sleep(0.05)

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        ran("evaluate", *words, "--out", out, "--batch=1", "--executor=ray", "--workers=3")
        disturbing.join()
    finally:
        cluster.close()
        shutil.rmtree(place)
    ran("evaluate", *words, "--out", tmp_path / "one")
    assert done
    same(tmp_path / "one", out)
