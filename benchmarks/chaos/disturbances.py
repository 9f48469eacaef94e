"""What can be done to a run, at random but seeded, and how it is mended again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.inspector import Inspector
from tests.evaluation.cluster import Cluster
from tests.evaluation.network import Proxy
from worldeval.evaluation.execution.parts import held_keys

POLICY = Path(__file__).with_name("policy.py")


@dataclass
class Chaos:
    """A run (``words`` of its command, and of that by which it goes on), what it needs, and what
    was done to them. cluster: where Ray has the workers; disk: a small one, to be filled."""

    out: Path
    words: list[str]
    environment: dict[str, str]
    log: Path
    server_port: int
    policy_proxy: Proxy
    mirror_proxy: Proxy
    inspector: Inspector
    cluster: Cluster | None = None
    disk: Path | None = None
    seed: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._file = self.log.open("ab")
        self._due: list[tuple[float, Callable[[], None]]] = []
        """Time, and what is done then: all that mends."""
        self._server = self._serve()
        self._head = self._begin(self.words)

    def run(self, rollouts: int, most_s: float) -> bool:
        """Until the head ends well by itself; whether it did."""
        until, next_at, filled = time.monotonic() + most_s, 2, self.disk is None
        while time.monotonic() < until:
            time.sleep(0.3)
            self._mend()
            code = self._head.poll()
            if code == 0:
                return True
            if code is not None:
                self.done["resumed"] += 1
                self._head = self._begin(["resume", str(self.out)])
            elif (made := len(held_keys(self.out))) >= next_at:
                if not filled and made > rollouts // 3:
                    filled = True
                    self._fill_disk()
                else:
                    self._strike()
                    if self.random.random() < 0.3:  # and again, while that begins anew
                        self._due.append(
                            (time.monotonic() + self.random.uniform(1, 8), self._strike)
                        )
                next_at = made + self.random.randint(*((4, 10) if rollouts > 50 else (2, 4)))
        return False

    def close(self) -> None:
        self.policy_proxy.mode = self.mirror_proxy.mode = "pass"
        for process in (self._head, self._server):
            if process.poll() is None:
                process.kill()
                process.wait()
        self._empty_disk()
        self._file.close()

    def _strike(self) -> None:
        acts = [
            *[self._kill_server] * 2,
            *[self._hold_policy, self._hold_mirror, self._end_head, self._kill_worker],
            *[self._kill_database] * 2,
            *([self._kill_machine] * 3 if self.cluster is not None else [self._kill_worker] * 2),
        ]
        self.random.choice(acts)()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, act))

    def _mend(self) -> None:
        now = time.monotonic()
        due = [act for at, act in self._due if at <= now]
        self._due = [(at, act) for at, act in self._due if at > now]
        for act in due:
            act()
        self.inspector.mend()
        for name in self.cluster.failed() if self.cluster is not None else ():
            self.cluster.kill(name)
            self.cluster.join(1)

    def _begin(self, words: list[str]) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "worldeval", *words]
        environment = {**os.environ, **self.environment}
        return subprocess.Popen(program, stdout=self._file, stderr=self._file, env=environment)

    def _serve(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(POLICY), str(self.server_port)]
        return subprocess.Popen(words, stdout=self._file, stderr=self._file)

    def _kill_worker(self) -> None:
        workers = self._local_workers() if self.cluster is None else self.cluster.workers()
        if workers:
            os.kill(self.random.choice(workers), signal.SIGKILL)
            self.done["workers killed"] += 1

    def _local_workers(self) -> list[int]:
        children = Path(f"/proc/{self._head.pid}/task/{self._head.pid}/children")
        try:
            pids = [int(pid) for pid in children.read_text().split()]
            return [p for p in pids if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
        except OSError:
            return []

    def _kill_machine(self) -> None:
        assert self.cluster is not None
        if not self.cluster.machines:
            return
        at_once = self.random.random() < 0.5
        self.cluster.kill(self.random.choice(list(self.cluster.machines)), at_once=at_once)
        self.done["machines killed" if at_once else "machines cut off"] += 1
        self._later(self.random.uniform(0, 20), self._join)

    def _join(self) -> None:
        assert self.cluster is not None
        self.cluster.join(1)
        self.done["machines joined"] += 1

    def _kill_server(self) -> None:
        if self._server.poll() is None:
            self._server.kill()
            self._server.wait()
            self.done["policy server killed"] += 1
            self._later(self.random.uniform(0.5, 3), self._serve_again)

    def _serve_again(self) -> None:
        self._server = self._serve()

    def _hold_policy(self) -> None:
        self._hold(self.policy_proxy, "network to the policy held", 25)

    def _hold_mirror(self) -> None:
        self._hold(self.mirror_proxy, "network to the mirror held", 40)

    def _hold(self, proxy: Proxy, name: str, most_s: float) -> None:
        if proxy.mode == "pass":
            proxy.mode = "hold"
            self.done[name] += 1
            self._later(self.random.uniform(1, most_s), lambda: setattr(proxy, "mode", "pass"))

    def _kill_database(self) -> None:
        if self.inspector.kill_database(self.random.uniform(1, 10)):
            self.done["database killed"] += 1

    def _end_head(self) -> None:
        if self._head.poll() is None:
            how = self.random.choice([signal.SIGKILL, signal.SIGTERM])
            self._head.send_signal(how)
            self.done[f"head ended by {how.name}"] += 1

    def _fill_disk(self) -> None:
        assert self.disk is not None
        try:
            with (self.disk / "filler").open("wb") as file:
                while True:
                    file.write(bytes(2**16))
                    file.flush()
        except OSError:
            self.done["disk filled"] += 1
            self._later(8, self._empty_disk)

    def _empty_disk(self) -> None:
        if self.disk is not None:
            (self.disk / "filler").unlink(missing_ok=True)
