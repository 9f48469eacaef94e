"""200 rollouts while everything dies at random: does each end once, and as it would in peace?

    python benchmarks/chaos.py runs/chaos            writes benchmarks/chaos.json

Two policies behind one server roll out in the toy world with two workers. Meanwhile, at random:
a worker is killed (SIGKILL); the policy server is killed and begun again; it stalls (SIGSTOP) for a
second, as a network does; the head is killed or ended (SIGTERM), and resumed by `worldeval resume`;
and once the disk fills for some seconds (with --disk, where a small file system can be mounted).
Then the run is compared with one that nobody disturbed, in process and without any server.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from worldeval.data.store.episodes import EpisodeStore
from worldeval.evaluation.execution.parts import held_keys
from worldeval.rollout.suite import Suite
from worldeval.rollout.table import rollout_table
from worldeval.worlds.toy import toy_starts

POLICY = Path(__file__).with_name("chaos_policy.py")
PORT = 18763
HERE = Path(__file__).parents[1]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "worldeval", *map(str, words)]


def films(folder: Path) -> dict[str, list[bytes]]:
    store = EpisodeStore.open(folder)
    return {
        store.facts(i)["key"]: [path.read_bytes() for path in store.own_films(i) or ()]
        for i in range(len(store))
    }


class Chaos:
    """The processes, and what was done to them."""

    def __init__(self, out: Path, words: list[str], log: Path) -> None:
        self.out, self.words, self.log = out, words, log.open("a")
        self.done: Counter[str] = Counter()
        self.chance = random.Random(0)
        self.server = self._serve()
        self.head = self._begin(command("rollout", *words, f"--out={out}", "--workers=2"))
        self.stalled_until = self.served_from = 0.0
        self.filled_until: float | None = None

    def _begin(self, words: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(words, stdout=self.log, stderr=self.log)

    def _serve(self) -> subprocess.Popen[bytes]:
        return self._begin([sys.executable, str(POLICY), str(PORT)])

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.head.pid}/task/{self.head.pid}/children")
        try:
            pids = [int(pid) for pid in children.read_text().split()]
            return [p for p in pids if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
        except OSError:
            return []

    def kill_worker(self) -> None:
        if workers := self.workers():
            os.kill(self.chance.choice(workers), signal.SIGKILL)
            self.done["workers killed"] += 1

    def kill_server(self) -> None:
        if self.server.poll() is None:
            self.server.kill()
            self.server.wait()
            self.served_from = time.monotonic() + self.chance.uniform(0.5, 3)
            self.done["policy server killed"] += 1

    def stall(self) -> None:
        if self.server.poll() is None and not self.stalled_until:
            self.server.send_signal(signal.SIGSTOP)
            self.stalled_until = time.monotonic() + 1
            self.done["policy server stalled"] += 1

    def end_head(self) -> None:
        if self.head.poll() is None:
            how = self.chance.choice([signal.SIGKILL, signal.SIGTERM])
            self.head.send_signal(how)
            self.done[f"head ended by {how.name}"] += 1

    def fill_disk(self) -> None:
        try:
            with (self.out.parent / "filler").open("wb") as file:
                while True:
                    file.write(bytes(2**16))
                    file.flush()
        except OSError:
            self.filled_until = time.monotonic() + 8
            self.done["disk filled"] += 1

    def mend(self) -> None:
        """Begin again what is due."""
        now = time.monotonic()
        if self.stalled_until and now > self.stalled_until:
            if self.server.poll() is None:
                self.server.send_signal(signal.SIGCONT)
            self.stalled_until = 0.0
        if self.server.poll() is not None and now > self.served_from:
            self.server = self._serve()
        if self.filled_until is not None and now > self.filled_until:
            (self.out.parent / "filler").unlink(missing_ok=True)
            self.filled_until = None

    def run(self, rollouts: int, most_s: float, disk: bool) -> bool:
        """Until the head ends well by itself; whether it did."""
        until, next_at, filled = time.monotonic() + most_s, 3, not disk
        acts = [self.kill_worker] * 4 + [self.kill_server] * 3 + [self.stall, self.end_head] * 2
        while time.monotonic() < until:
            time.sleep(0.3)
            self.mend()
            code = self.head.poll()
            if code == 0:
                return True
            if code is not None:
                self.done["resumed"] += 1
                self.head = self._begin(command("resume", self.out))
            elif (made := len(held_keys(self.out))) >= next_at:
                if not filled and made > rollouts // 3:
                    filled = True
                    self.fill_disk()
                else:
                    self.chance.choice(acts)()
                next_at = made + self.chance.randint(6, 16)
        return False

    def close(self) -> None:
        for process in (self.head, self.server):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        (self.out.parent / "filler").unlink(missing_ok=True)
        self.log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--most-s", type=float, default=900)
    parser.add_argument("--disk", type=Path, help="folder on a small file system, to be filled")
    given = parser.parse_args()
    folder = given.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    suite = folder / "suite.json"
    starts = toy_starts(count=given.rollouts // 4)
    Suite(name="chaos", robot="toy", chunks=4, starts=starts, seed=1).save(suite)
    common = ["--world=toy", f"--suite={suite}", "--batch=4", "--threads=1"]
    peace = [f"--policy=python:{POLICY}:Local?name={name}" for name in "ab"]
    began = time.monotonic()
    subprocess.run(command("rollout", *peace, *common, f"--out={folder / 'peace'}"), check=True)
    peace_s = time.monotonic() - began
    served = [f"--policy=python:{POLICY}:Served?port={PORT}&name={name}" for name in "ab"]
    out = (given.disk or folder) / "chaos"
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    chaos = Chaos(out, [*served, *common], folder / "chaos.log")
    try:
        ended = chaos.run(given.rollouts, given.most_s, given.disk is not None)
    finally:
        chaos.close()
    chaos_s = time.monotonic() - began
    ours, theirs = (rollout_table(EpisodeStore.open(place)) for place in (folder / "peace", out))
    ours, theirs = (t.set_index("key") for t in (ours, theirs))
    both = theirs.index.intersection(ours.index)
    wrong = [k for k in both if theirs.loc[k, "outcome"] != ours.loc[k, "outcome"]]
    errors = [k for k in both if theirs.loc[k, "outcome"] == "error"]
    film, other = films(folder / "peace"), films(out)
    found = {
        "rollouts": given.rollouts,
        "ended by itself": ended,
        "what happened": dict(chaos.done),
        "kept": len(theirs),
        "kept once": int(theirs.index.nunique()),
        "missing": len(set(ours.index) - set(theirs.index)),
        "other outcome than in peace": len(wrong),
        "errors": len(errors),
        "failures that are none": sum(
            theirs.loc[k, "outcome"] == "failure" != ours.loc[k, "outcome"] for k in both
        ),
        "other film than in peace": sum(other.get(key) != film[key] for key in film),
        "order as in peace": list(theirs.index) == list(ours.index),
        "seconds in peace, one process": round(peace_s, 1),
        "seconds in chaos, two workers": round(chaos_s, 1),
        "cores": os.cpu_count(),
    }
    print(json.dumps(found, indent=1))
    Path(__file__).with_name("chaos.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
