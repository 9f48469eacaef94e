"""The same evaluation by Ray's actors, one of which is killed. Needs ray (pip install ray)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.evaluation.test_execution import ran, same, words
from worldeval import cli
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


@contextmanager
def disturbed(out: Path, act: Callable[[], bool]) -> Iterator[None]:
    """Beside this block, once a rollout is kept in ``out``, ``act`` until it says that it did."""
    done = []

    def disturb() -> None:
        until = time.monotonic() + 200
        while time.monotonic() < until and not done:
            if held_keys(out) and act():
                done.append(True)
            time.sleep(0.02)

    thread = threading.Thread(target=disturb)
    thread.start()
    yield
    thread.join()
    assert done


def test_two_actors_make_what_one_process_makes_though_one_is_killed(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    out = tmp_path / "ray"

    def kill() -> bool:
        found = actors()
        if found:
            os.kill(found[0], signal.SIGKILL)
        return bool(found)

    with disturbed(out, kill):
        ran("evaluate", *words, "--out", out, "--batch=1", "--executor=ray", "--workers=2")
    ran("evaluate", *words, "--out", tmp_path / "one")
    same(tmp_path / "one", out)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    place = Path(tempfile.mkdtemp(prefix="ray-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Cluster(place, port)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()
    shutil.rmtree(place)


def test_three_workers_on_a_machine_that_goes_are_made_good_by_another(
    cluster: Cluster, tmp_path: Path, words: list[str]
) -> None:
    first, out = cluster.join(3), tmp_path / "ray"

    def replace() -> bool:
        cluster.kill(first, at_once=False)
        cluster.join(3)
        return True

    with disturbed(out, replace):
        ran("evaluate", *words, "--out", out, "--batch=1", "--executor=ray", "--workers=3")
    ran("evaluate", *words, "--out", tmp_path / "one")
    same(tmp_path / "one", out)


def test_workers_that_ray_kills_for_lack_of_memory_are_told_of_in_a_sentence(
    cluster: Cluster, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Ray's own guard of the memory then takes every worker for one too many.
    scarce = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "3000"}
    cluster.join(3, scarce)
    run = ["rollout", *words, f"--out={tmp_path / 'ray'}", "--executor=ray", "--workers=3"]
    assert cli.main(run) == 2
    told = capsys.readouterr().err
    assert "killed by Ray, for lack of memory" in told and "take fewer --workers" in told
