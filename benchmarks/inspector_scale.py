"""How fast the inspector answers with 100 000 rollouts in its index, beside 100.

    python benchmarks/inspector_scale.py --rollouts 100 100000

Writes synthetic rows into an index (no films), serves it as `worldeval app` does, and asks over
HTTP as a browser would: the first page, the list, filters, a sorted list, one page far back. Prints
the median and the largest of some tries in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from apps.inspector.index import Index, identifier

TRIES = 9
PAGES = {
    "page (Gradio's HTML)": "",
    "overview": "inspector/pane/overview",
    "list": "inspector/pane/browse",
    "filter by words": "inspector/pane/browse?q=policy%3Dpolicy-07+task%3Apush+outcome%3Afailure",
    "filter by number": "inspector/pane/browse?q=trust%3C0.02",
    "filter, nothing found": "inspector/pane/browse?q=instruction%3Anowhere",
    "word anywhere": "inspector/pane/browse?q=0042",
    "least trusted first": "inspector/pane/browse?order=trust",
    "far back": "inspector/pane/browse?page=2000",
}


def fill(file: Path, root: Path, count: int) -> None:
    """An index of ``count`` rollouts of 20 policies in 10 evaluations of one root."""
    Index([root], file)
    chance = random.Random(0)
    tasks = ("push", "reach", "drawer-open", "drawer-close", "pick-place")
    outcomes = ("success", "failure", "undecided")

    def row(number: int) -> tuple[object, ...]:
        run, policy = f"run-{number % 10}", f"policy-{number % 20:02d}"
        task = tasks[number % 5]
        start = f"{task}/evaluation/{number // 20:04d}"
        key, p = f"{policy}/{start}", chance.random()
        return (
            identifier(run, key), identifier(run), f"{root}/{run}", number, key, policy, task,
            start,
            "imagination", f"{task} the block", number, 33, outcomes[number % 3], p, "judge@1", "",
            "2 4 8", chance.random() > 0.2, chance.random(), None, "",
        )  # fmt: skip

    with sqlite3.connect(file) as db:
        db.executemany(
            f"INSERT INTO rollouts VALUES ({','.join('?' * 21)})", map(row, range(count))
        )
        db.execute("ANALYZE")
        for number in range(10):
            name, now = f"run-{number}", time.time()
            values = (
                identifier(name), name, f"{root}/{name}", now, now, 20, count // 10, 0, count // 10,
                count // 10, "", "",
            )  # fmt: skip
            db.execute(f"INSERT INTO runs VALUES ({','.join('?' * 12)})", values)
    db.close()


def measure(count: int) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        root, cache = Path(folder) / "runs", Path(folder) / "cache"
        root.mkdir()
        fill(cache / "index.sqlite", root, count)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        told = ["app", str(root), "--cache", str(cache), "--port", str(port)]
        with subprocess.Popen([sys.executable, "-m", "worldeval", *told]) as server:
            try:
                return {name: timed(f"http://127.0.0.1:{port}/{p}") for name, p in PAGES.items()}
            finally:
                server.terminate()


def timed(url: str) -> tuple[float, float]:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=10).read()
            break
        except OSError:
            time.sleep(0.1)
    taken = []
    for _ in range(TRIES):
        began = time.perf_counter()
        urllib.request.urlopen(url, timeout=60).read()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken), max(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    found = {count: measure(count) for count in asked.rollouts}
    print(f"{'ms, median (largest)':<24}" + "".join(f"{count:>22}" for count in found))
    for name in PAGES:
        cells = "".join(
            f"{f'{m:.0f} ({most:.0f})':>22}" for m, most in (f[name] for f in found.values())
        )
        print(f"{name:<24}{cells}")
    if asked.json:
        asked.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
