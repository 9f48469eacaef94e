"""Fifty people browse and five label in one inspector: errors, lost labels, waiting, memory.

    python benchmarks/inspector_load.py runs/demo [--seconds 120] [--browsing 50] [--labelling 5]

Enters: an evaluation (copied, so that its labels stay as they are). Leaves: a JSON line with the
requests, the errors, the 50th and 95th percentile of the seconds until page data (panes and JSON)
and films were there, the labels given and those found on the disk, and the server's memory at its
first answer, after twenty seconds, and at the end. People pause about a second between two looks.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from worldeval import Labelling

WARM_S = 20.0


class Person(threading.Thread):
    """Somebody at a browser, with one connection."""

    def __init__(self, port: int, number: int, until: float) -> None:
        super().__init__(daemon=True)
        self.number, self.until = number, until
        self.random = random.Random(number)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.took: dict[str, list[float]] = {"page": [], "film": []}
        self.errors: list[str] = []
        self.given = 0
        self.cookie = ""

    def ask(self, path: str, kind: str = "page", body: Any = None) -> bytes:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if kind == "film":
            headers["Range"] = "bytes=0-65535"
        data = None if body is None else json.dumps(body)
        if data:
            headers["Content-Type"] = "application/json"
        began = time.perf_counter()
        try:
            where = f"/inspector/{path}"
            self.connection.request("POST" if data else "GET", where, data, headers)
            answer = self.connection.getresponse()
            content = answer.read()
        except OSError as error:
            self.errors.append(f"{path}: {error!r}")
            self.connection.close()
            return b""
        self.took[kind].append(time.perf_counter() - began)
        if not self.cookie and (given := answer.getheader("set-cookie")):
            self.cookie = given.partition(";")[0]
        if answer.status not in (200, 206):
            self.errors.append(f"{path}: {answer.status} {content[:200]!r}")
            return b""
        return content

    def pause(self, seconds: float) -> None:
        time.sleep(self.random.uniform(0.5, 1.5) * seconds)


class Browsing(Person):
    def __init__(self, port: int, number: int, until: float, run: str, rollouts: list[str]) -> None:
        super().__init__(port, number, until)
        self.place, self.rollouts = run, rollouts

    def run(self) -> None:
        self.pause(1)
        while time.monotonic() < self.until:
            query = self.random.choice(["", "outcome:failure", "policy:full", "trusted:no"])
            self.ask(f"pane/browse?tab=browse&q={urllib.parse.quote(query)}")
            for name in self.random.sample(self.rollouts, min(6, len(self.rollouts))):
                self.ask(f"preview/{name}")
            self.pause(1)
            name = self.random.choice(self.rollouts)
            self.ask(f"pane/browse?tab=browse&rollout={name}")
            told = self.ask(f"rollout/{name}")
            if told:
                self.ask(json.loads(told)["film"], "film")
                self.curves(json.loads(told)["later"])
            self.pause(1.5)
            self.ask(f"pane/overview?run={self.place}")
            self.pause(1)

    def curves(self, path: str) -> None:
        """What judges think of the rollout, asked for as the player does until it is there."""
        for wait in (0.2, 0.3, 0.5, 1.0):
            answer = self.ask(path)
            if not answer or "busy" not in json.loads(answer):
                return
            time.sleep(wait)


class Rating(Person):
    def __init__(self, port: int, number: int, until: float, run: str) -> None:
        super().__init__(port, number, until)
        self.place, self.rater = run, f"rater-{number}"

    def run(self) -> None:
        said = ("success", "failure", "undecided")
        while time.monotonic() < self.until:
            told = self.ask(f"label/next?run={self.place}&rater={self.rater}")
            item = json.loads(told)["item"] if told else None
            if item is None:
                return
            shown = self.ask(f"label/rollout/{self.place}/{item['blind']}")
            if shown:
                self.ask(json.loads(shown)["film"], "film")
            self.pause(1)
            label = {"run": self.place, "blind": item["blind"], "rater": self.rater}
            if self.ask("label/say", body=label | {"outcome": self.random.choice(said)}):
                self.given += 1


def memory_mb(process: int) -> float:
    """Of the server: what it has in memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--browsing", type=int, default=50)
    parser.add_argument("--labelling", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "runs"
        shutil.copytree(given.evaluation, root / "loaded")
        (root / "loaded" / "labels.csv").unlink(missing_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["app", str(root), "--port", str(port), "--cache", str(Path(place) / "cache")]
        with subprocess.Popen([sys.executable, "-m", "worldeval", *words]) as server:
            try:
                print(json.dumps(measured(given, port, server.pid, root / "loaded"), indent=1))
            finally:
                server.terminate()


def measured(given: argparse.Namespace, port: int, server: int, folder: Path) -> dict[str, Any]:
    first = Person(port, 0, 0)
    rollouts: list[str] = []
    for _ in range(240):  # until it serves and has looked at the disk
        text = first.ask("pane/browse?tab=browse").decode()
        rollouts = [part.partition('"')[0] for part in text.split('data-preview="')[1:]]
        if rollouts:
            break
        time.sleep(0.5)
    at_first = memory_mb(server)
    text = first.ask("pane/label?tab=label").decode()
    run = text.partition('data-label="')[2].partition('"')[0]
    until = time.monotonic() + WARM_S + given.seconds
    people: list[Person] = [
        Browsing(port, 1 + i, until, run, rollouts) for i in range(given.browsing)
    ]
    people += [Rating(port, 1000 + i, until, run) for i in range(given.labelling)]
    for one in people:
        one.start()
    time.sleep(WARM_S)
    for one in people:
        one.took = {"page": [], "film": []}
    before = memory_mb(server)
    for one in people:
        one.join()
    after = memory_mb(server)
    labels = Labelling(folder)
    found = sum(len(labels.said_by(p.rater)) for p in people if isinstance(p, Rating))
    told: dict[str, Any] = {
        "people": {"browsing": given.browsing, "labelling": given.labelling},
        "seconds": given.seconds,
        "errors": [error for one in people for error in one.errors][:5],
        "labels": {"given": sum(one.given for one in people), "on the disk": found},
        "memory_mb": {"first": round(at_first), "warm": round(before), "after": round(after)},
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    for kind in ("page", "film"):
        took = [t for one in people for t in one.took[kind]]
        told[kind] = {
            "requests": len(took),
            "p50_s": round(float(np.percentile(took, 50)), 3),
            "p95_s": round(float(np.percentile(took, 95)), 3),
        }
    return told


if __name__ == "__main__":
    main()
