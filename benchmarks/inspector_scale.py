"""How fast the inspector answers with 100 000 rollouts in its index, beside 100.

    python benchmarks/inspector_scale.py --rollouts 100 100000

Writes synthetic rows into an index (no films), serves it as `worldeval app` does, and asks over
HTTP as a browser would: the first page, the list, filters, a sorted list, one page far back. Where
there is a Chromium, it also measures until a person sees it: from the address to the first page,
each time with an empty cache, and from the Enter key to the filtered list. Prints the median and
the largest of some tries in milliseconds, and of the server the time of a core that an answer took,
which does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from apps.inspector.index import Index
from apps.inspector.records import identifier
from apps.inspector.schema import NAMED

TRIES = 5
SERVED = 20
"""Answers over which the time of a core is counted: the clock ticks every 10 ms."""
PAGES = {
    "page (Gradio's HTML)": "",
    "overview": "inspector/pane/overview",
    "list": "inspector/pane/browse",
    "filter by words": "inspector/pane/browse?q=policy%3Dpolicy-05+task%3Apush+outcome%3Afailure",
    "filter by number": "inspector/pane/browse?q=trust%3C0.02",
    "filter, nothing found": "inspector/pane/browse?q=instruction%3Anowhere",
    "word anywhere": "inspector/pane/browse?q=0042",
    "word in every rollout": "inspector/pane/browse?q=evaluation",
    "chosen in the form": "inspector/pane/browse?policy=policy-05&outcome=failure",
    "least trusted first": "inspector/pane/browse?order=trust",
    "far back": "inspector/pane/browse?page=2000",
}

SEEN = {"seen: overview": ("overview", ".we-runs"), "seen: list": ("browse", ".we-rollout")}
FILTERS = {
    "seen: filter by words": "policy=policy-05 task:push outcome:failure",
    "seen: filter by number": "trust<0.02",
    "seen: word anywhere": "0042",
}
DRAWN = """query => {
    const pane = document.querySelector('.we-pane[data-pane=browse]');
    const box = pane.querySelector('input[name=q]');
    return !pane.hasAttribute('aria-busy') && box && box.value === query && !box.matches(':focus')
        && pane.querySelector('.we-rollout, .we-empty') && true;
}"""
"""Whether the list of a query is drawn: the box is another one than that in which was typed."""


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
        for column in NAMED:
            db.execute(f"INSERT INTO names SELECT DISTINCT '{column}', {column} FROM rollouts")
        db.execute("ANALYZE")
        for number in range(10):
            name, now = f"run-{number}", time.time()
            values = (
                identifier(name), name, f"{root}/{name}", now, now, 20, count // 10, 0, count // 10,
                count // 10, "", "",
            )  # fmt: skip
            db.execute(f"INSERT INTO runs VALUES ({','.join('?' * 12)})", values)
    db.close()


def measure(count: int) -> dict[str, tuple[float, ...]]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        root, cache = Path(folder) / "runs", Path(folder) / "cache"
        root.mkdir()
        fill(cache / "index.sqlite", root, count)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        told = ["app", str(root), "--cache", str(cache), "--port", str(port)]
        with subprocess.Popen([sys.executable, "-m", "worldeval", *told]) as server:
            address = f"http://127.0.0.1:{port}/"
            try:
                asked = {name: f"{address}{path}" for name, path in PAGES.items()}
                found = {name: timed(url, server.pid) for name, url in asked.items()}
                return found | in_browser(address)
            finally:
                server.terminate()


def timed(url: str, server: int) -> tuple[float, ...]:
    """Median and largest wall time, and time of a core, in milliseconds."""
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
    before = used_ms(server)
    for _ in range(SERVED):
        urllib.request.urlopen(url, timeout=60).read()
    return statistics.median(taken), max(taken), (used_ms(server) - before) / SERVED


def used_ms(process: int) -> float:
    """Time of a core that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_browser(address: str) -> dict[str, tuple[float, ...]]:
    """Until a person sees it; nothing where there is no Chromium."""
    chromium = os.environ.get("WORLDEVAL_CHROMIUM") or shutil.which("chromium")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return {}
    from playwright.sync_api import sync_playwright

    taken: dict[str, list[float]] = {name: [] for name in (*SEEN, *FILTERS)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(TRIES):
            context = browser.new_context()  # with a cache of its own
            for name, (tab, what) in SEEN.items():
                page = context.new_page()
                began = time.perf_counter()
                page.goto(f"{address}?tab={tab}", wait_until="commit")
                page.wait_for_selector(what)
                taken[name].append(1000 * (time.perf_counter() - began))
            for name, query in FILTERS.items():
                page.locator("input[name=q]").fill(query)
                began = time.perf_counter()
                page.keyboard.press("Enter")
                page.wait_for_function(DRAWN, arg=query)
                taken[name].append(1000 * (time.perf_counter() - began))
            context.close()
        browser.close()
    return {name: (statistics.median(times), max(times)) for name, times in taken.items()}


def told(figures: tuple[float, ...]) -> str:
    text = f"{figures[0]:.0f} ({figures[1]:.0f})"
    return text + (f"; {figures[2]:.1f}" if len(figures) > 2 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    found = {count: measure(count) for count in asked.rollouts}
    print(f"{'ms, median (largest); core':<28}" + "".join(f"{count:>22}" for count in found))
    for name in next(iter(found.values())):
        cells = "".join(f"{told(f[name]):>22}" for f in found.values())
        print(f"{name:<28}{cells}")
    if asked.json:
        asked.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
