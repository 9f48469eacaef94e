"""A Ray cluster on this machine: a head without CPUs, and machines that join and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Cluster", "processes_of"]
JOIN_S = 120.0


def processes_of(session: int) -> dict[int, str]:
    """Process -> its command line, of all that were begun in a session of the kernel."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(place.name)] = (place / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
    return found


class Cluster:
    """address: what RAY_ADDRESS shall be. Each machine is a session of processes, with an address
    of its own on the loopback. folder: a short path, for sockets lie below it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address, self._folder, self._count = f"127.0.0.1:{port}", folder, 0
        self.environment = {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.machines: dict[str, subprocess.Popen[bytes]] = {}
        self._head = self._begin("head", "127.0.0.1", ["--head", f"--port={port}", "--num-cpus=0"])
        self.wait()

    def join(self, cpus: int, environment: Mapping[str, str] | None = None) -> str:
        """Begin a machine; its name, before it is ready."""
        self._count += 1
        name, host = f"machine-{self._count}", f"127.0.1.{self._count}"
        words = [f"--address={self.address}", f"--num-cpus={cpus}"]
        self.machines[name] = self._begin(name, host, words, environment or {})
        return name

    def failed(self) -> list[str]:
        """Machines that ended by themselves, as on a busy computer they do before they joined."""
        return [name for name, machine in self.machines.items() if machine.poll() is not None]

    def wait(self) -> None:
        """Until all that was begun is ready."""
        until = time.monotonic() + JOIN_S
        for name in ("head", *self.machines):
            while b"Ray runtime started" not in (self._folder / f"{name}.log").read_bytes():
                assert time.monotonic() < until, (self._folder / f"{name}.log").read_text()
                time.sleep(0.1)

    def workers(self) -> list[int]:
        """Actors that are there, on any machine."""
        return [
            pid
            for machine in self.machines.values()
            for pid, words in processes_of(machine.pid).items()
            if words.startswith("ray::RayWorker")
        ]

    def kill(self, name: str, *, at_once: bool = True) -> None:
        """A machine dies. Not at once: only what joins it to the cluster, and its actors live on
        until they notice."""
        machine = self.machines.pop(name)
        for pid, words in processes_of(machine.pid).items():
            if at_once or "/raylet/raylet" in words or pid == machine.pid:
                _kill(pid)
        machine.wait()

    def close(self) -> None:
        for machine in (*self.machines.values(), self._head):
            while running := processes_of(machine.pid):
                for pid in running:
                    _kill(pid)
                time.sleep(0.05)
            machine.wait()

    def _begin(
        self, name: str, host: str, words: list[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"]
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*program, *words, f"--node-ip-address={host}", "--block", *self._only_head(words)],
                env={**os.environ, **self.environment, **(environment or {})},
                start_new_session=True,
                stdout=log,
                stderr=log,
            )

    def _only_head(self, words: list[str]) -> list[str]:
        if "--head" not in words:
            return []
        return ["--include-dashboard=false", f"--temp-dir={self._folder / 'ray'}"]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
